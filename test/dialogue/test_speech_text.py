# SPDX-License-Identifier: Apache-2.0
"""A text is split where a speaker would breathe, and what was spoken of it is told by the times of its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowact_ros.dialogue.sentences import MAX_SENTENCE
from flowact_ros.dialogue.speech import Word
from flowact_ros.dialogue.speech_text import SpokenText, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Good morning", ["Good morning"]),
        ("Hello! How are you?  Fine.", ["Hello!", "How are you?", "Fine."]),
        ("Dr. Smith pays 3.50 to J. Doe, e.g. today.", ["Dr. Smith pays 3.50 to J. Doe, e.g. today."]),
        ('He said "Stop!" Then he left.', ['He said "Stop!"', "Then he left."]),
        ("Wait... what? Yes", ["Wait... what?", "Yes"]),
        ("A list\n\nand more\nof it", ["A list", "and more of it"]),
        ("こんにちは。元気ですか？はい", ["こんにちは。", "元気ですか？", "はい"]),
        ("a\x00b\x1b[2J c", ["a b [2J c"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_a_long_sentence_is_cut_at_a_pause() -> None:
    text = "We walk along the river, " * 20 + "and home."
    parts = split_sentences(text)
    assert len(parts) > 1 and all(len(part) <= MAX_SENTENCE for part in parts)
    assert all(part.endswith("river,") for part in parts[:-1])
    assert " ".join(parts) == text
    assert [len(part) for part in split_sentences("x" * 500)] == [240, 240, 20]


@given(st.text(max_size=600))
def test_nothing_is_lost(text: str) -> None:
    parts = split_sentences(text)
    assert all(0 < len(part) <= MAX_SENTENCE and part.isprintable() for part in parts)
    kept = "".join(c for c in text if c.isprintable() and not c.isspace())
    assert "".join("".join(parts).split()) == kept


@pytest.fixture
def said() -> SpokenText:
    """Two sentences; in the first a number is spoken otherwise than it is written."""
    said = SpokenText()
    words = [("It's", 0.1, 0.3), ("25", 0.3, 0.6), ("degrees", 0.6, 0.9), ("in", 1.0, 1.1), ("no", 1.1, 1.3)]
    said.add("It's 25 °C in no!", 0.0, 2.0, [Word(*w) for w in words])
    said.add("Yes, no.", 2.1, 3.0, [Word("Yes", 0.1, 0.3), Word("no", 0.4, 0.6)])
    return said


@pytest.mark.parametrize(
    ("seconds", "spoken", "word", "caption"),
    [
        (0.0, "", "", ("", False)),
        (0.2, "", "It's", ("It's", False)),
        (0.35, "It's", "25", ("It's 25", False)),
        (0.95, "It's 25", "degrees", ("It's 25", False)),
        (1.2, "It's 25 °C in", "no", ("It's 25 °C in no!", False)),
        (1.4, "It's 25 °C in no!", "no", ("It's 25 °C in no!", True)),
        (2.15, "It's 25 °C in no!", "", ("", False)),
        (2.45, "It's 25 °C in no! Yes,", "Yes", ("Yes,", False)),
        (9.0, "It's 25 °C in no! Yes, no.", "no", ("Yes, no.", True)),
    ],
)
def test_what_was_spoken(said: SpokenText, seconds: float, spoken: str, word: str, caption: tuple) -> None:
    assert (said.spoken(seconds), said.word(seconds), said.caption(seconds)) == (spoken, word, caption)


def test_words_begun(said: SpokenText) -> None:
    assert said.begun(0.0, 0.65) == ["It's", "25", "degrees"]
    assert said.begun(0.6, 0.6) == [] and said.begun(1.1, 2.3) == ["Yes"]


def test_without_times_of_words_the_share_tells() -> None:
    said = SpokenText()
    assert (said.spoken(1.0), said.word(1.0), said.caption(1.0), said.end_s) == ("", "", ("", False), 0.0)
    said.add("one two three four", 0.0, 4.0)
    assert [said.spoken(s) for s in (0.0, 1.0, 2.0, 4.0)] == ["", "one", "one two", "one two three four"]
    assert (said.word(2.0), said.begun(0.0, 4.0)) == ("", [])
    assert said.caption(0.1) == ("one two three four", False) and said.caption(4.0)[1]
