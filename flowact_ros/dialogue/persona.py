# SPDX-License-Identifier: Apache-2.0
"""Who the character is: a YAML file that a museum or a clinic writes, checked key by key, and its system prompt.

Nothing of it is a template: its texts are data, put into the prompt as they are. `config/persona.yaml` is an example of
every key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from flowact_ros.dialogue.language_model import DIRECTIONS, JSON

MAX_BYTES = 64 << 10
MAX_TEXT = 2000  # characters of one entry
MAX_ENTRIES = 200
WORDS_BESIDE = 2  # of a fixed reply's: "well, hello Nova" is a greeting and nothing else

_ACTIONS = (
    "smiling warmly",
    "speaking with a concerned look",
    "explaining with raised hands",
    "telling good news with a bright face",
    "laughing heartily",
    "greeting a visitor and waving a hand",
)
_FORMS = {
    JSON: 'Answer with JSON alone: {"reply": [{"behaviour": "speaking", "action": …, "say": …}, …]}, one entry a '
    'sentence. "say" is the sentence. "action" is what your face and hands do meanwhile, in a few words, such as: '
    f'{"; ".join(_ACTIONS)}. "behaviour" is "speaking", or "reacting" for a sentence that is above all a feeling.',
    DIRECTIONS: "Begin every sentence with what your face and hands do meanwhile, in a few words in square brackets, "
    f"such as: {' '.join(f'[{action}]' for action in _ACTIONS)}.",
}


class PersonaError(ValueError):
    """A persona file cannot be used: one line with the key and what would be right."""


@dataclass(frozen=True)
class FixedReply:
    """An answer that is always the same: no model is asked."""

    words: tuple[str, ...]  # any of them in what was heard, as whole words
    say: str
    alone: bool = False  # only if hardly anything else was said: "hi", but not "hi, where is the whale?"

    def fits(self, heard: str) -> bool:
        return any(
            _mentions(heard, (word,))
            and not (self.alone and len(heard.split()) > len(word.split()) + WORDS_BESIDE)
            for word in self.words
        )


@dataclass(frozen=True)
class Persona:
    """Every field is a key of the file."""

    name: str
    role: str
    facts: tuple[str, ...] = ()
    style: str = ""
    languages: tuple[str, ...] = ("English",)
    greeting: str = ""
    invitation: str = ""  # said when a conversation has fallen silent
    refuse: tuple[str, ...] = ()  # words or phrases that are not talked about
    refusal: str = "I am sorry, I cannot talk about that."
    too_long: str = "That was a lot at once. Could you say it in a few words?"
    too_many: str = "One moment please, I need to catch up."
    thinking: tuple[str, ...] = ()  # what the face is told while the answer is made
    replies: tuple[FixedReply, ...] = ()
    fallback: tuple[str, ...] = ("I am sorry, I did not get that. Could you ask again?",)

    def system_prompt(self, writes: str) -> str:
        """What the model is told about itself and, by `writes` of the model, about the form of its answers."""
        parts = [
            f"You are {self.name}, {self.role}. You stand on a screen in front of a visitor and speak with a voice: "
            f"answer in one to three short sentences, without lists, markup or emoji.",
            self.style,
        ]
        first, *others = self.languages
        if others:
            parts.append(
                f"You speak {', '.join(self.languages)}. Answer in the visitor's language if it is one of these, else "
                f"in {first}."
            )
        else:
            parts.append(f"Answer in {first}.")
        if self.facts:
            parts.append("What you know, and nothing else about these things:\n" + _listed(self.facts))
            parts.append("If you do not know something, say so.")
        if self.refuse:
            parts.append(f"Do not talk about: {'; '.join(self.refuse)}. Say instead: {self.refusal}")
        parts.append(_FORMS.get(writes, ""))
        return "\n".join(part for part in parts if part)

    def fixed_reply(self, heard: str) -> str:
        """The first of `replies` that fits; "" if none does."""
        return next((reply.say for reply in self.replies if reply.fits(heard)), "")

    def refuses(self, heard: str) -> bool:
        return _mentions(heard, self.refuse)


def _listed(texts: tuple[str, ...]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _mentions(heard: str, words: tuple[str, ...]) -> bool:
    """Any of the words in it, whole, in any case. In scripts without spaces a word is found anywhere."""
    for word in words:
        pattern = r"\s+".join(re.escape(part) for part in word.split())
        edges = (r"\b", r"\b") if word.isascii() else ("", "")
        if re.search(f"{edges[0]}{pattern}{edges[1]}", heard, re.IGNORECASE):
            return True
    return False


def load_persona(path: str | Path) -> Persona:
    """Raises PersonaError, one line, for a file that cannot be read and for the first mistake in it."""
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PersonaError(f"persona {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise PersonaError(f"persona {path} has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        content = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise PersonaError(f"persona {path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        return parse_persona(content)
    except PersonaError as error:
        raise PersonaError(f"persona {path}: {error}") from None


def parse_persona(content: Any) -> Persona:
    """Of what a YAML file holds. Raises PersonaError."""
    known = [field.name for field in fields(Persona)]
    if not isinstance(content, dict):
        raise PersonaError(f"names with values are expected: {', '.join(known)}")
    for key in content:
        if key not in known:
            raise PersonaError(f"unknown key {str(key)[:40]!r}; known are {', '.join(known)}")
    for key in ("name", "role"):
        if key not in content:
            raise PersonaError(f"{key} is missing")
    values: dict[str, Any] = {}
    for field in fields(Persona):
        if field.name not in content:
            continue
        value = content[field.name]
        if field.name == "replies":
            values["replies"] = _replies(value)
        elif field.type.startswith("tuple"):
            values[field.name] = _texts(field.name, value)
        else:
            optional = field.name in ("style", "greeting", "invitation")
            values[field.name] = _text(field.name, value, optional=optional)
    for name in ("languages", "fallback"):
        if name in values and not values[name]:
            raise PersonaError(f"{name} must have at least one entry")
    return Persona(**values)


def _text(key: str, value: Any, *, optional: bool = False) -> str:
    if not isinstance(value, str):
        raise PersonaError(f"{key} must be a text, not {value!r}"[:200])
    text = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in value).split())
    if not text and not optional:
        raise PersonaError(f"{key} is empty")
    if len(text) > MAX_TEXT:
        raise PersonaError(f"{key} has {len(text)} characters, at most {MAX_TEXT}")
    return text


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise PersonaError(f"{key} must be a list of texts, not {value!r}"[:200])
    if len(value) > MAX_ENTRIES:
        raise PersonaError(f"{key} has {len(value)} entries, at most {MAX_ENTRIES}")
    return tuple(_text(f"{key}[{at}]", entry) for at, entry in enumerate(value))


def _replies(value: Any) -> tuple[FixedReply, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise PersonaError(f"replies must be a list of at most {MAX_ENTRIES} entries with words and say")
    replies = []
    for at, entry in enumerate(value):
        key = f"replies[{at}]"
        if not isinstance(entry, dict) or not {"words", "say"} <= set(entry) <= {"words", "say", "alone"}:
            raise PersonaError(f"{key} must have the keys words and say, may have alone, and no other")
        if not isinstance(entry.get("alone", False), bool):
            raise PersonaError(f"{key}.alone must be true or false, not {entry['alone']!r}"[:200])
        words = _texts(f"{key}.words", entry["words"])
        if not words:
            raise PersonaError(f"{key}.words must have at least one entry")
        replies.append(FixedReply(words, _text(f"{key}.say", entry["say"]), entry.get("alone", False)))
    return tuple(replies)
