# SPDX-License-Identifier: Apache-2.0
"""A text that is spoken sentence by sentence: how it is split, and how far it was spoken at any moment."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from flowact_ros.dialogue.sentences import SentenceSplitter
from flowact_ros.dialogue.speech import Word


def split_sentences(text: str) -> list[str]:
    """The sentences of a whole text. Lines may be broken anywhere, an empty line ends a sentence; control characters
    are spaces."""
    paragraphs = re.split(r"\n\s*\n", text)
    plain = ("".join(c if c.isprintable() else " " for c in paragraph) for paragraph in paragraphs)
    splitter = SentenceSplitter()
    return [*splitter.push("\n".join(plain), 0.0), *splitter.finish()]


@dataclass(frozen=True)
class Sentence:
    """A sentence in the time of its utterance. places: for each word, where it ends in the text, its marks included."""

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...]
    places: tuple[int, ...]

    def until(self, seconds: float, *, whole_words: bool) -> str:
        """The text up to `seconds`: of words that have ended (`whole_words`), or that have begun."""
        if seconds >= self.end_s:
            return self.text
        if not self.words:
            tokens = self.text.split()
            share = (seconds - self.start_s) / max(self.end_s - self.start_s, 1e-6)
            return " ".join(tokens[: round(share * len(tokens))])
        times = [word.end_s if whole_words else word.start_s for word in self.words]
        count = bisect_right(times, seconds)
        if count == len(times) and seconds >= self.words[-1].end_s:
            return self.text
        return self.text[: self.places[count - 1]] if count else ""


class SpokenText:
    """What an utterance says, as far as it is known; times count from its first sample."""

    def __init__(self) -> None:
        self.sentences: list[Sentence] = []

    @property
    def end_s(self) -> float:
        return self.sentences[-1].end_s if self.sentences else 0.0

    def add(self, text: str, start_s: float, end_s: float, words: Sequence[Word] = ()) -> None:
        """The next sentence, which sounds from `start_s` to `end_s`; times of words count from its own start."""
        moved = tuple(Word(w.text, w.start_s + start_s, w.end_s + start_s) for w in words)
        self.sentences.append(Sentence(text, start_s, end_s, moved, _places(text, words)))

    def sentence(self, seconds: float) -> Sentence | None:
        """The one being spoken, or the last one before."""
        index = bisect_right([s.start_s for s in self.sentences], seconds)
        return self.sentences[index - 1] if index else None

    def begun(self, after_s: float, until_s: float) -> list[str]:
        """The words that begin in (after, until]."""
        return [w.text for s in self.sentences for w in s.words if after_s < w.start_s <= until_s]

    def word(self, seconds: float) -> str:
        """The last word that has begun; empty if times are not known."""
        found = self.sentence(seconds)
        begun = [w.text for w in found.words if w.start_s <= seconds] if found else []
        return begun[-1] if begun else ""

    def spoken(self, seconds: float) -> str:
        """The text that was heard by `seconds`: whole words, in the spelling of the text. By share where times of
        words are not known."""
        parts = [s.until(seconds, whole_words=True) for s in self.sentences if s.start_s < seconds]
        return " ".join(part for part in parts if part)

    def caption(self, seconds: float) -> tuple[str, bool]:
        """(what a screen shows of the sentence being spoken, is the sentence over). All of it at once where times of
        words are not known."""
        found = self.sentence(seconds)
        if found is None:
            return "", False
        over = seconds >= (found.words[-1].end_s if found.words else found.end_s)
        text = found.until(seconds, whole_words=False) if found.words and not over else found.text
        return text, over


def _places(text: str, words: Sequence[Word]) -> tuple[int, ...]:
    """Where each word ends in `text`. One that is not there as it is spoken ("25 °C": "degrees") ends with the one
    before it."""
    places: list[int] = []
    at = 0
    for word in words:
        found = re.compile(rf"(?<!\w){re.escape(word.text)}(?!\w)", re.IGNORECASE).search(text, at, at + 60)
        if found is not None:
            at = found.end()
            while at < len(text) and not text[at].isspace() and not text[at].isalnum():
                at += 1
        places.append(at)
    return tuple(places)
