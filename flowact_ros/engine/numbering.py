# SPDX-License-Identifier: Apache-2.0
"""What a sender's numbers say about a chunk: that it is next, early, known already, or the start of something new.

Senders number as they like: both counters, one of them, none, in bytes, from 0 with every sentence or once for all.
So a counter is believed only while it counts: one that stands still was not filled in, one that never fits its
neighbours counts something else. And a chunk is known already only if the same sound came under the same numbers a
moment ago; otherwise a number that falls back begins something new. So no habit of numbering loses a sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

import numpy as np

from flowact_ros.engine.chunks import Chunk

REPEAT_S = 0.2  # a repeat comes within this time of what it repeats
_JUMP_S = 10.0  # a place further ahead was not lost on the way: the sender counts from elsewhere
_JUMP_CHUNKS = 1000
_STRIKES = 3  # misfits in a row after which a counter is not believed any more
_PATTERN = 3  # chunks that wait, none next to another: the counter does not count chunks (or samples)


class Place(Enum):
    """Where a chunk lies."""

    NEXT = "next"
    AHEAD = "ahead"  # others are missing before it
    HEARD = "heard"  # it came a moment ago
    AGAIN = "again"  # the utterance's first chunk once more: a repeat of it, or the same sentence anew
    LATE = "late"  # it was given up as lost
    NEW = "new"  # something else begins


class _Counter:
    """One of the two numbers of a sender's chunks."""

    def __init__(self) -> None:
        self.counts: bool | None = None  # None: with one value nobody can tell
        self.value: int | None = None  # of the chunk that came last
        self.next: int | None = None  # expected
        self.misfits = 0
        self._refuted = False

    def see(self, value: int | None, should_move: bool) -> None:
        """A chunk came with this value. `should_move`: the one before it had samples, and was no end."""
        if self._refuted or value is None:
            return
        if self.value is not None and value != self.value:
            self.counts = True
        elif self.value is not None and should_move and self.counts is None:
            self.counts, self.next = False, None
        self.value = value

    def delivered(self, value: int | None, size: int, misfit: bool) -> None:
        """What comes next, after a chunk of this value that stands for `size` of what is counted.

        misfit: a value that was not expected speaks against the counter.
        """
        if self.counts is False:
            return
        if value is None:
            self.next = None if self.next is None else self.next + size
            return
        if self.next is None or value == self.next:
            self.misfits = 0
        elif misfit:
            self.misfits += 1
            if self.misfits >= _STRIKES:
                self.refute()
                return
        self.next = value + size

    def refute(self) -> None:
        self.counts, self.next, self._refuted = False, None, True

    def beyond(self, value: int | None) -> int | None:
        """How far a value lies beyond the expected one; None if nobody knows."""
        return None if value is None or self.next is None or self.counts is False else value - self.next


class Numbering:
    """The numbers of the chunks of one utterance.

    rate: [Hz] of its samples; repeats: how many chunks late a repeat may come.
    """

    def __init__(self, rate: int, repeats: int) -> None:
        self.rate = rate
        self._first, self._sequence = _Counter(), _Counter()
        self._begin: tuple[int | None, int | None] | None = None
        self._recent: deque[tuple[float, tuple[int | None, int | None], int]] = deque(maxlen=repeats)
        self._lost: deque[tuple[_Counter, int, int]] = deque(maxlen=repeats)  # values [from, to) of a counter
        self._previous: tuple[tuple[int | None, int | None], int] | None = None
        self._same = self._should_move = False
        self._tail = np.zeros(0, np.float32)  # the chunk delivered last

    @property
    def ends(self) -> tuple[int | None, int | None]:
        """(first_sample, sequence) that would go on from here."""
        return self._first.next, self._sequence.next

    @property
    def counting(self) -> bool:
        """Some number has been seen to count."""
        return bool(self._first.counts or self._sequence.counts)

    def see(self, chunk: Chunk) -> None:
        """A chunk has come; before its place is asked for."""
        same, self._previous = (chunk.numbers, chunk.digest) == self._previous, (chunk.numbers, chunk.digest)
        repeated, self._same = same and not self._same, same  # once may be a repeat, twice is a sender of silence
        should_move = self._should_move and not repeated
        self._first.see(chunk.first, should_move)
        self._sequence.see(chunk.sequence, should_move)
        self._should_move = len(chunk.pcm) > 0 and not chunk.last  # behind an end numbers may begin anew

    def believed(self, chunk: Chunk) -> bool:
        """It has a number that counts, as far as anybody can tell."""
        first = chunk.first is not None and self._first.counts is not False
        return first or (chunk.sequence is not None and self._sequence.counts is not False)

    def key(self, chunk: Chunk) -> int:
        """Chunks that wait are sorted by this."""
        if chunk.sequence is not None and self._sequence.counts is not False:
            return chunk.sequence
        return chunk.first if chunk.first is not None and self._first.counts is not False else 0

    def place(self, chunk: Chunk, now: float) -> Place:
        """Where it lies at clock time `now`, by what was delivered so far."""
        samples, chunks = self._first.beyond(chunk.first), self._sequence.beyond(chunk.sequence)
        if chunks is None and samples is None:
            return Place.NEXT
        if chunks is not None:
            begins = samples is not None and samples < 0 and chunk.first == 0 and bool(self._first.counts)
            if chunks == 0 or (chunks > 0 and samples == 0):
                return Place.NEW if begins else Place.NEXT  # the sequence counts on over sentences
            if chunks > 0:
                return Place.NEW if chunks > _JUMP_CHUNKS else Place.AHEAD
            return self._old(chunk, now)
        assert samples is not None
        if samples == 0:
            return Place.NEXT
        if samples > 0:
            return Place.NEW if samples > _JUMP_S * self.rate else Place.AHEAD
        if len(chunk.pcm) <= -samples:
            return self._old(chunk, now)
        if self.overlap(chunk):
            return Place.NEXT
        if chunk.first == 0 or (self._begin is not None and chunk.first == self._begin[0]):
            return Place.NEW
        self._first.refute()  # chunks that do not hold the same sound do not lie over each other
        return Place.NEXT

    def _old(self, chunk: Chunk, now: float) -> Place:
        recent = [known for at, *known in self._recent if now - at < REPEAT_S]
        if [chunk.numbers, chunk.digest] in recent:
            return Place.AGAIN if chunk.numbers == self._begin else Place.HEARD
        for counter, start, end in self._lost:
            value = chunk.sequence if counter is self._sequence else chunk.first
            if value is not None and start <= value < end:
                return Place.LATE
        return Place.NEW

    def overlap(self, chunk: Chunk) -> int:
        """Samples at its start that were delivered already, if they are the same ones."""
        samples = self._first.beyond(chunk.first)
        if samples is None or self._sequence.beyond(chunk.sequence) is not None or not 0 < -samples < len(chunk.pcm):
            return 0
        known = self._tail[samples:] if -samples <= len(self._tail) else self._tail[:0]
        return -samples if len(known) and np.array_equal(known, chunk.pcm[:-samples]) else 0

    def give_up(self, waiting: Sequence[Chunk]) -> tuple[int, int]:
        """What is missing before the first of those that wait does not come any more: (chunks at least, samples).

        (0, 0) if nothing is missing after all: the counter counts something else.
        """
        chunk = waiting[0]
        samples, chunks = self._first.beyond(chunk.first) or 0, self._sequence.beyond(chunk.sequence) or 0
        counter, size = (self._sequence, chunks) if chunks > 0 else (self._first, samples)
        if size <= 0:
            return 0, 0
        if len(waiting) >= _PATTERN and not self._agree(chunk):
            if not any(self._adjoin(a, b, counter) for a, b in zip(waiting, waiting[1:])):
                counter.refute()
                return 0, 0
        assert counter.next is not None
        self._lost.append((counter, counter.next, counter.next + size))
        return max(1, chunks), max(0, samples)

    def _agree(self, chunk: Chunk) -> bool:
        """Both numbers say that something is missing before it."""
        return (self._first.beyond(chunk.first) or 0) > 0 and (self._sequence.beyond(chunk.sequence) or 0) > 0

    def _adjoin(self, a: Chunk, b: Chunk, counter: _Counter) -> bool:
        if counter is self._sequence:
            return a.sequence is not None and b.sequence == a.sequence + 1
        return a.first is not None and b.first == a.first + len(a.pcm)

    def delivered(self, chunk: Chunk) -> None:
        """It went on; what is next follows from it."""
        if self._begin is None:
            self._begin = chunk.numbers
        agree = self._agree(chunk)
        self._first.delivered(chunk.first, len(chunk.pcm), not agree)
        self._sequence.delivered(chunk.sequence, 1, not agree)
        self._recent.append((chunk.came, chunk.numbers, chunk.digest))  # it may have waited meanwhile
        if chunk.last:
            self.forget_sound()
        elif len(chunk.pcm):
            self._tail = chunk.pcm

    def forget_sound(self) -> None:
        """Nothing goes on from here: what is remembered of finished utterances are numbers alone."""
        self._tail = np.zeros(0, np.float32)
