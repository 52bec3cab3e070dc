# SPDX-License-Identifier: Apache-2.0
"""A speech backend for tests: every letter is a phoneme of 80 ms with a hum, words are 120 ms of silence apart."""

from __future__ import annotations

import numpy as np

from flowact_ros.dialogue.speech import Phoneme, Speech, SynthesizerError, Word

LETTERS = {
    "a": "AA",
    "b": "B",
    "c": "K",
    "e": "EH",
    "i": "IY",
    "j": "JH",
    "o": "OW",
    "q": "K",
    "u": "UW",
    "x": "S",
    "h": "HH",
}


class FakeSynthesizer:
    voices = ("fake",)

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        now, phonemes, words = 0.2, [Phoneme("SIL", 0.0, 0.2)], []
        for word in text.lower().split():
            start = now
            for letter in filter(str.isalpha, word):
                symbol = LETTERS.get(letter, letter.upper())
                phonemes.append(Phoneme(symbol, now, now + 0.08 / rate, letter in "ao"))
                now += 0.08 / rate
            words.append(Word(word, start, now))
            phonemes.append(Phoneme("SIL", now, now + 0.12))
            now += 0.12
        pcm = np.zeros(round(now * 24_000), np.float32)
        t = np.arange(len(pcm)) / 24_000
        for p in phonemes:
            if p.symbol != "SIL":
                inside = (t >= p.start_s) & (t < p.end_s)
                pcm[inside] = 0.2 * np.sin(2 * np.pi * 140 * pitch * t[inside])
        return Speech(pcm, phonemes, words)


def only_fake(monkeypatch) -> None:  # noqa: ANN001
    """Make the fake voice the only one that is installed."""
    from flowact_ros.dialogue import synthesizer

    def missing(voice: str) -> None:
        raise SynthesizerError("not installed")

    monkeypatch.setattr(synthesizer, "_loaded", {"hibari": FakeSynthesizer()})
    monkeypatch.setattr(synthesizer, "BACKENDS", dict.fromkeys(synthesizer.BACKENDS, missing))
