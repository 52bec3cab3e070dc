# SPDX-License-Identifier: Apache-2.0
"""Text to speech with phoneme times.

The shipped demo sentence is made by this module:

    python -m flowact_ros.dialogue.synthesizer --out config/demo.wav \
        --text "Hello, and welcome! ..."          (without --text: the shipped sentence, ``DEMO_TEXT``)

Backends: ``hibari`` (PyPI package ``hibari-tts``, Apache-2.0, voice inside, the default), ``flite``
and ``espeak`` (Debian libraries ``libflite1`` and ``libespeak-ng1``, optional, for variety).
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE

DEMO_TEXT = (
    "Hello, and welcome! My name is FlowAct, and I am a living face for robots. "
    "I listen, I think, and I speak, all in real time. How may I help you today?"
)


class SynthesizerError(RuntimeError):
    """Speech could not be made: a backend is not installed, a voice is unknown, or there is nothing to say."""


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


class Synthesizer(Protocol):
    """What speaks. The same arguments give the same samples."""

    voices: tuple[str, ...]

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        """Speak ``text``; ``rate`` 0.5 .. 2 (2 = twice as fast), ``pitch`` 0.5 .. 2 scales the melody.

        Raises SynthesizerError when nothing of the text can be spoken.
        """
        ...


def _hibari(voice: str) -> Synthesizer:
    from flowact_ros.dialogue.synthesizer_hibari import HibariSynthesizer

    return HibariSynthesizer(voice or "heart")


def _flite(voice: str) -> Synthesizer:
    from flowact_ros.dialogue.synthesizer_native import NativeSynthesizer

    return NativeSynthesizer("flite", voice or "slt")


def _espeak(voice: str) -> Synthesizer:
    from flowact_ros.dialogue.synthesizer_native import NativeSynthesizer

    return NativeSynthesizer("espeak", voice or "en-us")


BACKENDS: dict[str, Callable[[str], Synthesizer]] = {"hibari": _hibari, "flite": _flite, "espeak": _espeak}
_loaded: dict[str, Synthesizer] = {}


def load_synthesizer(name: str = "hibari") -> Synthesizer:
    """The backend ``name``, or ``backend:voice`` (``hibari``, ``flite:rms``); loaded once per process.

    Raises SynthesizerError with the remedy when the name is unknown or the backend is not installed.
    """
    if name not in _loaded:
        backend, _, voice = name.partition(":")
        if backend not in BACKENDS:
            raise SynthesizerError(f"unknown speech backend {backend!r}; available: {', '.join(BACKENDS)}")
        _loaded[name] = BACKENDS[backend](voice)
    return _loaded[name]


def check_request(text: str, rate: float, pitch: float) -> str:
    """The text without surrounding space; raises SynthesizerError when a value is out of range."""
    text = text.strip()
    if not any(c.isalnum() for c in text):
        raise SynthesizerError(f"text {text[:40]!r} has no letter or digit to speak")
    for name, value in (("rate", rate), ("pitch", pitch)):
        if not 0.5 <= value <= 2.0:
            raise SynthesizerError(f"{name} is {value}, it must lie in 0.5 .. 2.0")
    return text


def write_wav(path: str | Path, pcm: np.ndarray) -> None:
    """Write float32 mono samples [T] at 24 kHz as a 16-bit WAV file."""
    data = (np.clip(pcm, -1.0, 1.0) * 32767.0).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(data.tobytes())


def main(argv: list[str] | None = None) -> int:
    program = "python -m flowact_ros.dialogue.synthesizer"
    parser = argparse.ArgumentParser(prog=program, description="Text to a WAV file.")
    parser.add_argument("--text", default=DEMO_TEXT, help="what to say (default: the shipped demo sentence)")
    parser.add_argument("--out", required=True, type=Path, help="WAV file to write, 24 kHz mono 16 bit")
    parser.add_argument("--voice", default="hibari", help="backend or backend:voice (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 0.5 .. 2 (default: %(default)s)")
    parser.add_argument("--pitch", type=float, default=1.0, help="pitch, 0.5 .. 2 (default: %(default)s)")
    parser.add_argument("--phonemes", action="store_true", help="print the phonemes with their times")
    args = parser.parse_args(argv)
    try:
        speech = load_synthesizer(args.voice).synthesize(args.text, rate=args.rate, pitch=args.pitch)
    except SynthesizerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_wav(args.out, speech.pcm)
    if args.phonemes:
        for phoneme in speech.phonemes:
            mark = "*" if phoneme.stressed else ""
            print(f"{phoneme.start_s:8.3f} {phoneme.end_s:8.3f} {phoneme.symbol}{mark}")
    print(f"{args.out}: {speech.seconds:.2f} s, {len(speech.phonemes)} phonemes, {len(speech.words)} words")
    return 0


if __name__ == "__main__":
    # Through the import system, so that Phoneme and SynthesizerError exist once and not twice.
    from flowact_ros.dialogue import synthesizer

    sys.exit(synthesizer.main())
