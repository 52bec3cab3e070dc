# SPDX-License-Identifier: Apache-2.0
"""Text to speech with phoneme times.

The shipped demo sentence is made by this module:

    python -m flowact_ros.dialogue.synthesizer --out config/demo.wav \
        --text "Hello, and welcome! ..."          (without --text: the shipped sentence, ``DEMO_TEXT``)

Backends: ``hibari`` (PyPI package ``hibari-tts``, Apache-2.0, voice inside, the default), ``flite``
and ``espeak`` (Debian libraries ``libflite1`` and ``libespeak-ng1``, optional, for variety), and ``kokoro``
(`flowact weights get kokoro`, 28 voices, for machines with cores to spare).
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from flowact_ros.dialogue.speech import Speech, SynthesizerError
from flowact_ros.timebase import SAMPLE_RATE
from flowact_ros.vocabulary import KOKORO

DEMO_TEXT = (
    "Hello, and welcome! My name is FlowAct, and I am a living face for robots. "
    "I listen, I think, and I speak, all in real time. How may I help you today?"
)


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


def _kokoro(voice: str) -> Synthesizer:
    from flowact_ros.dialogue.synthesizer_kokoro import KokoroSynthesizer

    return KokoroSynthesizer(voice or "af_bella")


BACKENDS: dict[str, Callable[[str], Synthesizer]] = {
    "hibari": _hibari, "flite": _flite, "espeak": _espeak, KOKORO: _kokoro,
}  # fmt: skip
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
    sys.exit(main())
