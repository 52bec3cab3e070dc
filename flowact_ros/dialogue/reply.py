# SPDX-License-Identifier: Apache-2.0
"""What a language model writes, read while it comes: what is to be said, and what the face does meanwhile.

Three forms are understood, whichever was asked for, since models do not always do as they are told:
JSON (`REPLY_SCHEMA`), text with stage directions (`[smiling warmly] Hello!`), and plain text. What a model thinks
aloud between <think> and </think> is not said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowact_ros.dialogue.language_model import LanguageModelError
from flowact_ros.vocabulary import BEHAVIOURS, REACTING, SPEAKING

MAX_ACTION = 120  # characters: the text encoder reads a phrase, not a story
# The face of somebody who speaks: the other behaviours are the planner's to decide.
SPOKEN_BEHAVIOURS = (SPEAKING, REACTING)

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reply": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "behaviour": {"type": "string", "enum": list(SPOKEN_BEHAVIOURS)},
                    "action": {"type": "string"},
                    "say": {"type": "string"},
                },
                "required": ["behaviour", "action", "say"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["reply"],
    "additionalProperties": False,
}

_DIRECTION = re.compile(r"\[([^\[\]\n]{0,200})\]|\*([^*\n]{1,200})\*")
_LIKE_JSON = re.compile(r"\s*(?:```(?:json)?\s*)?\{")
_FENCE = re.compile(r"\s*(?:`{1,2}|```[a-z]{0,4}\s*)?$")  # what may still become a fence with JSON in it
_WRAPPER = re.compile(r'\{\s*"[^"\\]*"\s*:\s*[\[{]')  # an object whose first value holds others
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Said:
    """Text to be spoken, as much of it as has come."""

    text: str


@dataclass(frozen=True)
class Acted:
    """What the face does from here on: a behaviour of the vocabulary, and free words for the model of motion."""

    behaviour: str
    action: str


Part = Said | Acted


def acted(behaviour: object, action: object) -> Acted | None:
    """An action that was checked; None if nothing is left of it."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(action or "")).split())[:MAX_ACTION]
    if not any(c.isalpha() for c in words):
        return None
    name = str(behaviour).strip().lower()
    return Acted(name if name in BEHAVIOURS and name in SPOKEN_BEHAVIOURS else SPEAKING, words)


class ReplyReader:
    """`push` what has come, then `finish`; both give parts in the order in which they are to be spoken."""

    def __init__(self) -> None:
        self._rest = ""
        self._json: bool | None = None  # not known yet
        self._thinks = False
        self._at = 0  # in JSON: everything before was read
        self._read = 0  # objects

    def push(self, text: str) -> Iterator[Part]:
        self._rest += text
        if self._json and "}" not in text:
            return
        if not self._without_thoughts():
            return
        if self._json is None:
            if _LIKE_JSON.match(self._rest):
                self._json = True
            elif not _FENCE.fullmatch(self._rest):
                self._json = False
            else:
                return
        yield from self._objects() if self._json else self._text(last=False)

    def finish(self) -> Iterator[Part]:
        """What is left. Raises LanguageModelError for JSON that breaks off before anything in it could be said."""
        if self._thinks or not self._rest.strip():
            return
        if self._json:
            yield from self._objects()
            if not self._read:
                raise LanguageModelError(
                    f"the model's JSON cannot be read: {' '.join(self._rest.split())[:80]!r}"
                )
        else:
            yield from self._text(last=True)

    def _without_thoughts(self) -> bool:
        """Takes out <think> … </think>. False while it is open, or while what came may still become one."""
        while True:
            if self._thinks:
                _, found, after = self._rest.partition("</think>")
                if not found:
                    self._rest = self._rest[-len("</think>") :]
                    return False
                self._rest, self._thinks = after, False
            stripped = self._rest.lstrip()
            if self._json is None and stripped.startswith("<think>"):
                self._rest, self._thinks = stripped[len("<think>") :], True
                continue
            return not (self._json is None and "<think>".startswith(stripped))

    def _objects(self) -> Iterator[Part]:
        """Those that are complete. The list around them is stepped into: it is complete only at the very end."""
        while (start := self._rest.find("{", self._at)) >= 0:
            if _WRAPPER.match(self._rest, start):
                self._at = start + 1
                continue
            try:
                value, self._at = _DECODER.raw_decode(self._rest, start)
            except (ValueError, RecursionError):
                return  # not complete yet
            self._read += 1
            yield from _spoken(value)

    def _text(self, last: bool) -> Iterator[Part]:
        while found := _DIRECTION.search(self._rest):
            if found.start():
                yield Said(self._rest[: found.start()])
            self._rest = self._rest[found.end() :]
            if (action := acted(SPEAKING, found[1] or found[2])) is not None:
                yield action
        # A direction that has begun may be complete with the next piece.
        opened = -1 if last else max(self._rest.rfind("["), self._rest.rfind("*"))
        if opened >= 0 and len(self._rest) - opened <= 200 and "\n" not in self._rest[opened:]:
            text, self._rest = self._rest[:opened], self._rest[opened:]
        else:
            text, self._rest = self._rest, ""
        if text:
            yield Said(text)


def _spoken(value: object) -> Iterator[Part]:
    """Of one object, or of all in it."""
    if isinstance(value, list):
        for entry in value[:100]:
            yield from _spoken(entry)
    elif isinstance(value, dict):
        if isinstance(value.get("say"), str):
            if (action := acted(value.get("behaviour", SPEAKING), value.get("action"))) is not None:
                yield action
            yield Said(value["say"].strip() + "\n")
        else:
            for entry in list(value.values())[:100]:
                if isinstance(entry, (dict, list)):
                    yield from _spoken(entry)
