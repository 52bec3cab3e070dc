# SPDX-License-Identifier: Apache-2.0
"""Cuts text that comes piece by piece into sentences, so that the first one is spoken while the rest is written.

No clock in here: times come with the pieces. What comes out is what went in, but for white space.
"""

from __future__ import annotations

import re
import unicodedata

MAX_SENTENCE = 240  # characters; a longer one is cut at the best place before
_LOOK_AHEAD = 32
_ENDS = ".!?…。！？｡؟۔।॥።"  # Latin, Chinese and Japanese, Arabic, Urdu, Hindi, Amharic
_WIDE_ENDS = "。！？｡"  # of scripts that write no space after a sentence
_CLOSERS = "\"'”’»›)]」』）】"
_CLAUSES = ",;:—–，、；：،؛"
# A full stop after these ends no sentence; after those of the second table it does before a capital. Lower case, without
# the last stop.
_TITLES = frozenset(
    "mr mrs ms dr prof st hon rev gen col capt lt vs e.g i.e cf approx fig no nr vol u.s u.k z.b d.h u.a bzw ca hr fr "
    "mme mlle sra srta".split()
)
_ABBREVIATIONS = frozenset(
    "etc a.m p.m sr jr inc ltd corp co dept est pp art ed usw str tel al ggf evtl".split()
)
_WORD_BEFORE = re.compile(r"(\S+)$")
_END = re.compile(rf"[{re.escape(_ENDS)}]+[{re.escape(_CLOSERS)}]*")


class SentenceSplitter:
    """`push` pieces, ask `due` now and then, and `finish`: each returns the sentences that are ready."""

    def __init__(self, flush_s: float = 0.7) -> None:
        self._flush_s = flush_s
        self._rest = ""
        self._since = float("-inf")  # when the rest last grew

    @property
    def pending(self) -> bool:
        """Something waits for its end."""
        return bool(self._rest.strip())

    @property
    def complete(self) -> bool:
        """What waits looks like a whole sentence: only what follows could tell otherwise."""
        return _looks_complete(self._rest.rstrip())

    def push(self, text: str, now_s: float) -> list[str]:
        self._rest += text
        self._since = now_s
        sentences = []
        while (cut := _cut(self._rest)) is not None:
            sentences.append(self._rest[:cut])
            self._rest = self._rest[cut:]
        return _spoken(sentences)

    def due(self, now_s: float) -> list[str]:
        """After `flush_s` without anything new: what looks like a sentence, or what is complete of one."""
        if not self.pending or now_s - self._since < self._flush_s:
            return []
        text = self._rest.rstrip()
        if self.complete:
            cut = len(text)
        else:
            cut = max(text.rfind(mark) for mark in _CLAUSES) + 1
            # "1,000" is no clause, and two words alone would be said as if they were all.
            if cut < len(text) and not text[cut : cut + 1].isspace() and text[cut - 1 : cut] in ",:":
                cut = 0
            if len(text[:cut].split()) < 3 and len(text[:cut]) < 12:
                return []
        sentence, self._rest = self._rest[:cut], self._rest[cut:]
        return _spoken([sentence])

    def finish(self) -> list[str]:
        """The rest, whatever it is."""
        rest, self._rest = self._rest, ""
        return _spoken([rest])


def _spoken(sentences: list[str]) -> list[str]:
    """Those with something to say, their white space in order."""
    tidy = (" ".join(sentence.split()) for sentence in sentences)
    return [sentence for sentence in tidy if sentence]


def _looks_complete(text: str) -> bool:
    ends = [found for found in _END.finditer(text) if found.end() == len(text)]
    return bool(ends) and not _abbreviated(text, ends[-1].start())


def _cut(text: str) -> int | None:
    """Where the first sentence of the text ends for sure; None if that cannot be told yet."""
    long = len(text) > MAX_SENTENCE
    text = text[: MAX_SENTENCE + _LOOK_AHEAD]  # however much has come, it is looked at once
    line = text.find("\n")
    if line >= 0 and text[:line].strip() == "":
        return line + 1
    for found in _END.finditer(text):
        if 0 <= line < found.start():
            break
        after = text[found.end() :]
        if found[0][0] in _WIDE_ENDS:
            if after:
                return min(found.end(), MAX_SENTENCE)
            continue
        following = after.lstrip()
        if not after[:1].isspace() or not following:
            continue  # inside a number or an address, or nobody knows yet
        if found[0][0] == "." and (following[0].islower() or _abbreviated(text, found.start(), following[0])):
            continue
        if found[0][0] == "…" and following[0].islower():
            continue
        return min(found.end(), MAX_SENTENCE)
    if line >= 0:
        return min(line + 1, MAX_SENTENCE)
    return _forced(text) if long else None


def _abbreviated(text: str, stop: int, following: str = "") -> bool:
    """Is the full stop at `stop` one of an abbreviation, or of an initial? `following`: what comes after the space."""
    if text[stop] != ".":
        return False
    found = _WORD_BEFORE.search(text[:stop])
    if found is None:
        return False
    word = found[1].lstrip("\"'“‘«‹([„").lower()
    if len(word) == 1 and word.isalpha() and word != "i":
        # J. R. R. Tolkien, z. B.; in scripts without capitals a letter may be a word.
        return unicodedata.category(text[stop - 1]) != "Lo"
    return word in _TITLES or (word in _ABBREVIATIONS and not following.isupper() and following != "")


def _forced(text: str) -> int:
    """A place to cut a sentence that is too long: after a clause, else between words, else anywhere."""
    head = text[:MAX_SENTENCE]
    clause = max(head.rfind(mark + " ") for mark in _CLAUSES)
    if clause > MAX_SENTENCE // 3:
        return clause + 1
    space = head.rfind(" ")
    return space if space > 0 else MAX_SENTENCE
