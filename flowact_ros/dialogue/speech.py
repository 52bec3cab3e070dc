# SPDX-License-Identifier: Apache-2.0
"""What a synthesizer is asked for and what it gives: sound, and the phonemes and words in it with their times."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE


class SynthesizerError(RuntimeError):
    """Speech could not be made: a backend is not installed, a voice is unknown, or there is nothing to say."""


class NothingToSay(SynthesizerError):
    """Nothing of the text can be pronounced."""


@dataclass(frozen=True)
class Phoneme:
    """One phoneme of ``synthesizer_phonemes.INVENTORY`` (ARPABET, ``SIL`` = silence), times in seconds."""

    symbol: str
    start_s: float
    end_s: float
    stressed: bool = False

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def moved(self, by_s: float) -> Phoneme:
        """The same phoneme ``by_s`` seconds later."""
        return Phoneme(self.symbol, self.start_s + by_s, self.end_s + by_s, self.stressed)


@dataclass(frozen=True)
class Word:
    """One spoken word and its span in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """Sound and its phonemes.

    ``pcm``: float32 [T], mono, 24 kHz, in [-1, 1]. ``phonemes`` tile [0, T / 24000] without gaps or overlaps.
    """

    pcm: np.ndarray
    phonemes: list[Phoneme]
    words: list[Word] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


def check_request(text: str, rate: float, pitch: float) -> str:
    """The text without surrounding space; raises SynthesizerError when a value is out of range, NothingToSay."""
    text = text.strip()
    if not any(c.isalnum() for c in text):
        raise NothingToSay(f"text {text[:40]!r} has no letter or digit to speak")
    for name, value in (("rate", rate), ("pitch", pitch)):
        if not 0.5 <= value <= 2.0:
            raise SynthesizerError(f"{name} is {value}, it must lie in 0.5 .. 2.0")
    return text
