# SPDX-License-Identifier: Apache-2.0
"""What a user said is data: cleaned of what is no speech, limited in length and in how often it comes."""

from __future__ import annotations

import re
import unicodedata

# Marks by which models are told whose turn it is; nobody pronounces them.
_MARKS = re.compile(
    r"<\|[^<>|]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>", re.IGNORECASE
)


def clean(text: str) -> str:
    """One line without control characters and turn marks; "" if no letter or digit is in it."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") else c for c in text
    )
    while (cleaned := _MARKS.sub(" ", text)) != text:
        text = cleaned
    return " ".join(text.split()) if any(c.isalnum() for c in text) else ""


def speakable(text: str) -> str:
    """A model's sentence without markup and emoji; "" if it is not mostly words."""
    text = _MARKS.sub(" ", text)
    kept = "".join(
        " " if c in "*_`#~|<>{}[]\\" or unicodedata.category(c) in ("So", "Sk", "Cc", "Cs", "Co", "Cn") else c
        for c in text
    )
    kept = " ".join(
        kept.replace("\N{ZERO WIDTH JOINER}", "").replace("\N{VARIATION SELECTOR-16}", "").split()
    )
    kept = kept.lstrip("-•·–— ")
    # Vowel signs of Indian scripts are marks, category M, and belong to words.
    words = sum(c.isalnum() or unicodedata.category(c).startswith("M") for c in kept)
    solid = sum(not c.isspace() for c in kept)
    return kept if words and words >= 0.5 * solid else ""


class RateLimit:
    """At most `per_minute` in the long run, and a quarter of that at once."""

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute / 60.0
        self._most = max(1.0, per_minute / 4.0)
        self._left, self._asked_s = self._most, float("-inf")

    def allows(self, now_s: float) -> bool:
        """May one more come? It is counted if so."""
        if now_s > self._asked_s:
            self._left = min(self._most, self._left + (now_s - self._asked_s) * self._per_s)
            self._asked_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
