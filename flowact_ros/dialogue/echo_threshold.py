# SPDX-License-Identifier: Apache-2.0
"""Another voice over the robot's own: what the microphone hears beyond the echo that `echo_model` expects."""

from __future__ import annotations

import numpy as np

from flowact_ros.dialogue.echo import HOP, RATE
from flowact_ros.dialogue.echo_model import EchoModel

WINDOW = 2 * HOP
BANDS, BAND_HZ = 18, (150.0, 7000.0)
HOLD = 30  # hops for which a voice goes on that was noticed
LEAST_GAIN = 0.5  # meanwhile: a voice with holes is none for a detector; with all of the echo, a bang is one


def _bands() -> np.ndarray:
    """[bins, BANDS], 1 where a bin belongs to a band: equally wide on the mel scale, none without a bin."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, high = (2595 * np.log10(1 + frequency / 700) for frequency in BAND_HZ)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 1) / 2595) - 1)
    number = np.digitize(frequencies, edges) - 1
    table = (number[:, None] == np.arange(BANDS)).astype(np.float32)
    return table[:, table.any(axis=0)]


class Spectra:
    """A stream's windows [n, bins], each a hop further than the one before."""

    def __init__(self) -> None:
        self.window = np.sqrt(np.hanning(WINDOW + 1)[:-1]).astype(np.float32)
        self._before = np.zeros(HOP, np.float32)

    def push(self, pcm: np.ndarray) -> np.ndarray:
        sound = np.concatenate([self._before, pcm])
        self._before = sound[-HOP:]
        frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
        return np.fft.rfft(frames * self.window, axis=1)


class Threshold:
    """While somebody speaks, what exceeds the echo passes, band by band, and a little of the rest; else it is quiet."""

    delay = HOP

    def __init__(self) -> None:
        self._table = _bands()
        self._of_bin = np.where(self._table.any(axis=1), self._table.argmax(axis=1), 0)
        highest = np.flatnonzero(self._table.any(axis=1))[-1]
        self._of_bin[highest + 1 :] = self._table.shape[1] - 1
        self.model = EchoModel(self._table.shape[1])
        self._mic, self._played = Spectra(), Spectra()
        self._overlap = np.zeros(HOP, np.float32)
        self._hold = 0

    def describe(self) -> str:
        return self.model.describe()

    def push(self, mic: np.ndarray, played: np.ndarray) -> np.ndarray:
        spectra = self._mic.push(mic)
        powers = np.square(np.abs(spectra)) @ self._table
        others = np.square(np.abs(self._played.push(played))) @ self._table
        for spectrum, power, other in zip(spectra, powers, others, strict=True):
            spectrum *= self._gains(power, other)[self._of_bin]
        frames = np.fft.irfft(spectra, axis=1) * self._mic.window
        out = frames[:, :HOP].copy()
        out[0] += self._overlap
        out[1:] += frames[:-1, HOP:]
        self._overlap = frames[-1, HOP:].copy()
        return out.reshape(-1).astype(np.float32)

    def _gains(self, power: np.ndarray, played: np.ndarray) -> np.ndarray:
        echo, other = self.model.judge(played, power)
        if not echo:
            return np.ones_like(power)
        self._hold = HOLD if other else self._hold - 1
        if self._hold <= 0:
            return np.zeros_like(power)
        return np.clip(1.0 - self.model.explained / (power + 1e-12), LEAST_GAIN, 1.0)


class Gate:
    """For a microphone from which the echo was taken away: what is left passes as it is, where it is a voice."""

    def __init__(self) -> None:
        self._table = _bands()
        self.model = EchoModel(self._table.shape[1])
        self._left, self._played = Spectra(), Spectra()
        self._hold = 0

    def open(self, left: np.ndarray, played: np.ndarray) -> list[tuple[bool, bool]]:
        """For each hop: is the robot heard at all, and if so, somebody else?"""
        streams = ((self._played, played), (self._left, left))
        powers = [np.square(np.abs(stream.push(pcm))) @ self._table for stream, pcm in streams]
        found = []
        for one in zip(*powers, strict=True):
            echo, other = self.model.judge(*one)
            self._hold = HOLD if echo and other else max(0, self._hold - 1)
            found.append((echo, self._hold > 0))
        return found
