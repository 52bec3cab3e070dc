# SPDX-License-Identifier: Apache-2.0
"""Text that comes in pieces is cut into sentences, and nothing of it is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowact_ros.dialogue.sentences import MAX_SENTENCE, SentenceSplitter

CASES = {
    "two": ("Hello there! How are you?", ["Hello there!", "How are you?"]),
    "titles": ("Dr. Smith met Mr. Jones. They spoke.", ["Dr. Smith met Mr. Jones.", "They spoke."]),
    "initials": ("J. R. R. Tolkien wrote it. I read it.", ["J. R. R. Tolkien wrote it.", "I read it."]),
    "decimals": ("It costs 3.50 euros. Cheap!", ["It costs 3.50 euros.", "Cheap!"]),
    "addresses": ("See www.museum.org/a.html today. Bye.", ["See www.museum.org/a.html today.", "Bye."]),
    "an abbreviation in the middle": ("Coins, stamps, etc. are here.", ["Coins, stamps, etc. are here."]),
    "an abbreviation at the end": ("We close at 6 p.m. Come early.", ["We close at 6 p.m.", "Come early."]),
    "quotes": ('She said "Stop." Then she left.', ['She said "Stop."', "Then she left."]),
    "brackets": ("It is old (very old!). Really.", ["It is old (very old!).", "Really."]),
    "dots": ("Well... that is it. Oh… no.", ["Well... that is it.", "Oh… no."]),
    "marks together": ("What?! No way!!! Yes.", ["What?!", "No way!!!", "Yes."]),
    "Chinese": ("你好。今天天气很好！是吗？", ["你好。", "今天天气很好！", "是吗？"]),
    "Japanese quotes": ("「はい。」と言った。次。", ["「はい。」", "と言った。", "次。"]),
    "Arabic": ("كيف حالك؟ أنا بخير. شكرا", ["كيف حالك؟", "أنا بخير.", "شكرا"]),
    "Hindi": ("नमस्ते। आप कैसे हैं?", ["नमस्ते।", "आप कैसे हैं?"]),
    "German": ("Das ist z. B. so. Dr. Meier kommt.", ["Das ist z. B. so.", "Dr. Meier kommt."]),
    "lines": ("First line\nSecond line\n\nThird", ["First line", "Second line", "Third"]),
    "nothing": ("  \n \t ", []),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", CASES)
def test_sentences(name: str, size: int) -> None:
    text, expected = CASES[name]
    splitter = SentenceSplitter()
    sentences = []
    for at in range(0, len(text), size):
        sentences += splitter.push(text[at : at + size], 0.0)
    assert sentences + splitter.finish() == expected


@given(st.lists(st.text(alphabet=st.sampled_from("aB1.!?。,;: \n\"'”)€é你…-"), max_size=40), max_size=12))
def test_nothing_is_lost_or_made_up(pieces: list[str]) -> None:
    splitter = SentenceSplitter(flush_s=0.5)
    sentences: list[str] = []
    for at, piece in enumerate(pieces):
        sentences += splitter.push(piece, float(at))
        sentences += splitter.due(at + (0.6 if at % 3 == 0 else 0.1))
    sentences += splitter.finish()
    assert "".join("".join(sentences).split()) == "".join("".join(pieces).split())
    assert all(sentence.strip() == sentence != "" for sentence in sentences)


@given(st.text(alphabet="ab ", min_size=MAX_SENTENCE, max_size=2000))
def test_no_sentence_is_endless(text: str) -> None:
    splitter = SentenceSplitter()
    sentences = splitter.push(text, 0.0) + splitter.finish()
    assert all(len(sentence) <= MAX_SENTENCE for sentence in sentences)


def test_what_looks_complete_is_said_when_nothing_more_comes() -> None:
    splitter = SentenceSplitter(flush_s=0.5)
    assert splitter.push("That is all.", 10.0) == []
    assert splitter.due(10.4) == []
    assert splitter.due(10.5) == ["That is all."]
    assert not splitter.pending and splitter.due(99.0) == []


def test_a_clause_is_said_without_the_rest_of_its_sentence() -> None:
    splitter = SentenceSplitter(flush_s=0.5)
    splitter.push("If you go up the stairs, you will", 0.0)
    assert splitter.due(0.6) == ["If you go up the stairs,"]
    assert splitter.push(" see it.", 0.7) == [] and splitter.finish() == ["you will see it."]


@pytest.mark.parametrize("text", ["Well, I", "It costs 1,000", "Mr.", "no clause in here"])
def test_what_would_sound_broken_waits(text: str) -> None:
    splitter = SentenceSplitter(flush_s=0.5)
    splitter.push(text, 0.0)
    assert splitter.due(5.0) == []
