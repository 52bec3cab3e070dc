# SPDX-License-Identifier: Apache-2.0
"""The optional voices of two C libraries, CMU flite and espeak-ng; they speak in ``synthesizer_worker`` processes.

flite (Debian ``libflite1``): four voices, three of them male. espeak-ng (Debian ``libespeak-ng1``): a formant voice,
mechanical; it marks no stress, so the longest full vowel of a word of four letters or more counts as stressed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue import synthesizer_worker as worker
from flowact_ros.dialogue.speech import NothingToSay, Phoneme, Speech, SynthesizerError, Word, check_request
from flowact_ros.dialogue.synthesizer_phonemes import FROM_ESPEAK, FROM_FLITE, SILENCE, VOWELS, tile
from flowact_ros.media.resample import resample
from flowact_ros.timebase import SAMPLE_RATE

_SYMBOLS = {"flite": FROM_FLITE, "espeak": FROM_ESPEAK}
_PACKAGES = {"flite": "libflite1", "espeak": "libespeak-ng1"}
TIMEOUT = 30.0  # [s]


class NativeSynthesizer:
    """One voice of one of the two libraries. Constructing it speaks one word, to know whether it can."""

    VOICES = {"flite": tuple(worker.FLITE_PITCH), "espeak": ("en-us", "en-gb")}

    def __init__(self, library: str, voice: str) -> None:
        self.voices = self.VOICES[library]
        if voice not in self.voices:
            raise SynthesizerError(f"unknown {library} voice {voice!r}; available: {', '.join(self.voices)}")
        self._library, self._voice = library, voice
        self._run("yes", 1.0, 1.0)

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        """See Synthesizer."""
        header, pcm = self._run(check_request(text, rate, pitch), rate, pitch)
        sound = resample(pcm, header["rate"], SAMPLE_RATE)
        table, seconds = _SYMBOLS[self._library], len(sound) / SAMPLE_RATE
        rows = [
            (table.get(name, SILENCE), min(start, seconds), min(end, seconds), stressed, word)
            for name, start, end, stressed, word in header["segments"]
        ]
        if all(symbol == SILENCE for symbol, *_ in rows):
            raise NothingToSay(f"{self._library} has nothing to say for {text[:40]!r}")
        stressed_rows = _longest_vowels(rows, header["words"]) if self._library == "espeak" else None
        phonemes: list[Phoneme] = []
        spans: dict[int, tuple[float, float]] = {}
        for i, (symbol, start, end, stressed, word) in enumerate(rows):
            beat = symbol in VOWELS and (i in stressed_rows if stressed_rows is not None else stressed)
            phonemes.append(Phoneme(symbol, start, end, beat))
            if word >= 0 and symbol != SILENCE:
                spans[word] = (spans.get(word, (start, end))[0], end)
        words = [Word(header["words"][i], *spans[i]) for i in sorted(spans) if spans[i][1] > spans[i][0]]
        return Speech(sound, tile(phonemes, sound), words)

    def _run(self, text: str, rate: float, pitch: float) -> tuple[dict[str, Any], np.ndarray]:
        """Header and samples float32 [T] at the library's own rate."""
        command = [sys.executable, "-I", "-S", str(Path(worker.__file__)), self._library, self._voice]
        try:
            done = subprocess.run(
                [*command, repr(rate), repr(pitch)],
                input=text.encode(),
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SynthesizerError(f"{self._library} did not answer: {error}") from error
        message = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if done.returncode == worker.MISSING:
            raise SynthesizerError(
                f"the {self._library} library is not installed ({message}): apt-get install {_PACKAGES[self._library]} "
                "(it is optional)"
            )
        if done.returncode != 0:
            raise SynthesizerError(
                f"{self._library} failed with status {done.returncode} on {text[:40]!r}: {message}"
            )
        header, _, samples = done.stdout.partition(b"\n")
        return json.loads(header), np.frombuffer(samples, "<i2").astype(np.float32) / 32768.0


def _longest_vowels(rows: list[tuple[str, float, float, bool, int]], words: list[str]) -> set[int]:
    """Index of the longest full vowel of every word of four letters or more."""
    best: dict[int, tuple[float, int]] = {}
    for i, (symbol, start, end, _, word) in enumerate(rows):
        if symbol in VOWELS and symbol != "AX" and word >= 0 and len(words[word]) >= 4:
            best[word] = max(best.get(word, (0.0, -1)), (end - start, i))
    return {i for _, i in best.values()}
