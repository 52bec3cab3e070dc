# SPDX-License-Identifier: Apache-2.0
"""What models write is read in whatever form it comes, and in whatever pieces."""

from __future__ import annotations

import json

import pytest
from chat_server import sentences
from hypothesis import given
from hypothesis import strategies as st

from flowact_ros.dialogue.language_model import LanguageModelError
from flowact_ros.dialogue.reply import MAX_ACTION, Acted, Part, ReplyReader, Said


def read(text: str, size: int = 3) -> list[Part]:
    """Its parts, with texts that follow each other joined."""
    reader, parts = ReplyReader(), []
    for at in range(0, len(text), size):
        parts += reader.push(text[at : at + size])
    joined: list[Part] = []
    for part in [*parts, *reader.finish()]:
        if isinstance(part, Said) and joined and isinstance(joined[-1], Said):
            joined[-1] = Said(joined[-1].text + part.text)
        else:
            joined.append(part)
    return [Said(part.text.strip()) if isinstance(part, Said) else part for part in joined]


SMILE, WAVE = Acted("speaking", "smiling warmly"), Acted("speaking", "waving {0}")
JSON = sentences(("smiling warmly", 'Hello "you" }!'), ("waving {0}", "Bye."))
BOTH = [SMILE, Said('Hello "you" }!'), WAVE, Said("Bye.")]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (JSON, BOTH),
        (f"```json\n{JSON}\n```", BOTH),
        (f"<think>Hm, {{ [x]</think>\n{JSON}", BOTH),
        (json.dumps({"note": "a { b", **json.loads(JSON)}), BOTH),
        ('{"say": "Hi."}', [Said("Hi.")]),
        ('{"say": "Hi.", "action": 7, "behaviour": "dancing"}', [Said("Hi.")]),
        ("Hello there.", [Said("Hello there.")]),
        ("[smiling warmly] Hello! [waving {0}] Bye.", [SMILE, Said("Hello!"), WAVE, Said("Bye.")]),
        ("*smiling warmly* Hello!", [SMILE, Said("Hello!")]),
        ("Hello [smiling warmly] you.", [Said("Hello"), SMILE, Said("you.")]),
        ("Two * three [unclosed", [Said("Two * three [unclosed")]),
        ("[] [123] Hello.", [Said("Hello.")]),
        ("<thinking is good.", [Said("<thinking is good.")]),
        ("<think>never ends", []),
        ("", []),
    ],
)
def test_forms(text: str, parts: list[Part], size: int) -> None:
    assert [part for part in read(text, size) if part != Said("")] == parts


def test_the_first_sentence_does_not_wait_for_the_second() -> None:
    reader = ReplyReader()
    assert list(reader.push(JSON[: JSON.index("Bye")]))[:2] == [SMILE, Said('Hello "you" }!\n')]


@pytest.mark.parametrize("text", ['{"reply": nonsense', "{", '{"reply": [{"say": "Hel', "{" * 5000])
def test_json_without_a_sentence_is_an_error(text: str) -> None:
    with pytest.raises(LanguageModelError, match="JSON"):
        read(text, 500)


def test_behaviours_are_those_of_the_vocabulary() -> None:
    for behaviour, expected in (("REACTING", "reacting"), ("listening", "speaking"), ("rm -rf", "speaking")):
        reply = json.dumps({"say": "x", "behaviour": behaviour, "action": "laughing"})
        assert read(reply)[0] == Acted(expected, "laughing")


def test_actions_are_one_short_line() -> None:
    (action, _) = read(json.dumps({"say": "x", "action": "smiling\n\x00" + "y" * 10_000}))
    assert isinstance(action, Acted) and len(action.action) <= MAX_ACTION and action.action.isprintable()


@given(st.text(alphabet=st.sampled_from('{}[]*",:\\ab<>/think say`\n'), max_size=200), st.integers(1, 9))
def test_whatever_comes_is_read_or_refused(text: str, size: int) -> None:
    try:
        read(text, size)
    except LanguageModelError as error:
        assert "\n" not in str(error)
