# SPDX-License-Identifier: Apache-2.0
"""Senders of speech as there are many: each numbers, names, paces and ends its sentences in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

NUMBERINGS = (
    "none",  # left out (or a language without them)
    "zeros",  # of the message, never filled in
    "constant",  # filled in once
    "both",
    "first only",
    "sequence only",
    "first only, other 0",
    "sequence only, other 0",
    "from one",
    "sequence by two",
    "first in bytes",
    "first in milliseconds",
    "first at half rate",
    "sequence over all sentences",
    "both over all sentences",
)


@dataclass(frozen=True)
class Piece:
    """What one message holds; `at` [s] is when it is sent."""

    at: float
    pcm: np.ndarray
    rate: int
    name: str
    first: int | None
    sequence: int | None
    last: bool


@dataclass(frozen=True)
class Sender:
    """chunk_s, pause_s: [s] of a chunk, and of silence between sentences; paced: chunks come as they sound."""

    numbering: str
    name: str | None  # None: one for each sentence
    ends: bool
    chunk_s: float
    paced: bool
    pause_s: float

    def send(self, sentences: list[np.ndarray], rates: list[int]) -> Iterator[Piece]:
        now, first_all, sequence_all = 0.0, 0, 0
        for index, (pcm, rate) in enumerate(zip(sentences, rates)):
            size = max(1, int(self.chunk_s * rate))
            starts = range(0, len(pcm), size)
            for sequence, first in enumerate(starts):
                piece = pcm[first : first + size]
                numbers = self._numbers(first, sequence, first_all, sequence_all, rate)
                last = self.ends and first + size >= len(pcm)
                yield Piece(now, piece, rate, self.name if self.name is not None else f"s{index}", *numbers, last)
                now += len(piece) / rate if self.paced else 0.001
            first_all, sequence_all = first_all + len(pcm), sequence_all + len(starts)
            now += self.pause_s

    def _numbers(self, first: int, sequence: int, before: int, chunks: int, rate: int) -> tuple[int | None, int | None]:
        return {
            "none": (None, None),
            "zeros": (0, 0),
            "constant": (77, 5),
            "both": (first, sequence),
            "first only": (first, None),
            "sequence only": (None, sequence),
            "first only, other 0": (first, 0),
            "sequence only, other 0": (0, sequence),
            "from one": (first, sequence + 1),
            "sequence by two": (None, 2 * sequence),
            "first in bytes": (2 * first, None),
            "first in milliseconds": (first * 1000 // rate, None),
            "first at half rate": (first // 2, None),
            "sequence over all sentences": (first, chunks + sequence),
            "both over all sentences": (before + first, chunks + sequence),
        }[self.numbering]


senders = st.builds(
    Sender,
    numbering=st.sampled_from(NUMBERINGS),
    name=st.sampled_from([None, "", "tts"]),
    ends=st.booleans(),
    chunk_s=st.sampled_from([0.02, 0.04, 0.1, 0.5, 1.0]),
    paced=st.booleans(),
    pause_s=st.sampled_from([0.0, 0.05, 0.3, 1.5, 30.0]),
)
