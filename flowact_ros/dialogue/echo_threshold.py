# SPDX-License-Identifier: Apache-2.0
"""Another voice over the robot's own: where the microphone is louder than the echo explains.

The echo is what was played, some time later, in every band of frequencies so and so much weaker, with a tail of the
room. The delay is found by comparing how the levels of both go up and down; the coupling of a band is a high quantile
of what the microphone had above what was played, so it follows the loudspeaker's volume. While somebody else speaks
it is left alone.
"""

from __future__ import annotations

import numpy as np

from flowact_ros.dialogue.echo import HOP, RATE

WINDOW = 2 * HOP
BANDS, BAND_HZ = 18, (150.0, 7000.0)
LAGS = 64  # hops: an echo comes within so many of them
BLUR = 2  # hops around the delay whose loudest counts
TAIL_DB = 1.2  # a hop, by which the room's answer falls: 60 dB in 0.5 s
LOUDEST_DB = 10.0  # coupling that is assumed before anything is known
LEARN, SETTLE = 150, 300  # hops of the robot's voice in which the coupling is found, and until it is believed
MARGIN_DB = 3.0  # above what the echo explains counts
FLOOR = 4.0  # times the noise of the room (6 dB) counts
SHARE = 0.25  # of the bands must count
HOLD, HOLD_LEFT = (
    10,
    30,
)  # hops for which a voice goes on that was noticed: in a microphone, in what a canceller left
RISE_DB, FALL_DB = 0.5, 0.05  # a hop, of the coupling: the ratio of the two makes it the quantile 0.91
RISE_SPOKEN_DB = 0.02  # while somebody speaks: what has really become louder is believed after a while
QUIET = 1e-4  # band power of a window, below which nothing is played: about -70 dB re full scale


def _bands() -> np.ndarray:
    """[bins, BANDS], 1 where a bin belongs to a band: equally wide on the mel scale, none without a bin."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, high = (2595 * np.log10(1 + frequency / 700) for frequency in BAND_HZ)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 1) / 2595) - 1)
    number = np.digitize(frequencies, edges) - 1
    table = (number[:, None] == np.arange(BANDS)).astype(np.float32)
    return table[:, table.any(axis=0)]


class EchoModel:
    """How loud the echo can be, band by band, learned from two streams of band powers."""

    def __init__(self, bands: int) -> None:
        # Written twice, LAGS apart: the last LAGS hops are one slice, the newest first.
        self._at = 0
        self._powers = np.zeros((2 * LAGS, bands))
        self._shapes = np.zeros((2 * LAGS, bands))
        self._means = np.zeros((2, bands))
        self._likeness = np.zeros(LAGS)
        self.lag = 0  # [hops] the echo comes after what was played
        self._tail = np.zeros(bands)
        self._coupling_db = np.full(bands, LOUDEST_DB)
        self._floor: np.ndarray | None = None
        self._heard = 0
        self.explained = np.zeros(bands)

    @property
    def settled(self) -> bool:
        return self._heard >= SETTLE

    def describe(self) -> str:
        if not self.settled:
            return "not known yet"
        return f"{self._coupling_db.mean():.0f} dB, {1000 * self.lag * HOP // RATE} ms late"

    def judge(self, played: np.ndarray, mic: np.ndarray, left: np.ndarray) -> tuple[bool, bool]:
        """Powers [bands] of a hop: played, heard, and what is left of that (the same if nothing was taken away).

        Returns whether the robot is heard at all, and whether somebody else is.
        """
        self._remember(played)
        self._learn_floor(left)
        recent = self._powers[self._at : self._at + LAGS]
        if recent.max() < QUIET and self._tail.max() < QUIET:
            self._tail[:] = self.explained[:] = 0.0
            return False, True
        self._find_delay(mic)
        near = recent[max(0, self.lag - BLUR) : self.lag + BLUR + 1].max(axis=0)
        self._tail = np.maximum(near, self._tail * 10 ** (-TAIL_DB / 10))
        self.explained = self._tail * 10 ** (self._coupling_db / 10)
        above = left > self.explained * 10 ** (MARGIN_DB / 10) + FLOOR * self._floor
        other = self.settled and bool(np.mean(above) > SHARE)
        self._learn_coupling(near, left, other)
        return True, other

    def _remember(self, played: np.ndarray) -> None:
        self._at = (self._at - 1) % LAGS
        self._powers[self._at] = self._powers[self._at + LAGS] = played
        self._shapes[self._at] = self._shapes[self._at + LAGS] = self._shape(0, played)

    def _shape(self, stream: int, power: np.ndarray) -> np.ndarray:
        """How much louder than usual."""
        level = np.log(power + 1e-9)
        self._means[stream] += 0.02 * (level - self._means[stream])
        return level - self._means[stream]

    def _find_delay(self, mic: np.ndarray) -> None:
        shape = self._shape(1, mic)
        self._likeness = 0.998 * self._likeness + self._shapes[self._at : self._at + LAGS] @ shape
        best = int(self._likeness.argmax())
        if self._likeness[best] > 1.1 * self._likeness[self.lag]:
            self.lag = best

    def _learn_floor(self, left: np.ndarray) -> None:
        """It follows a fall in some hops and rises by a dB a second."""
        if self._floor is None:
            self._floor = left.copy()
        falling = left < self._floor
        self._floor = np.where(falling, 0.7 * self._floor + 0.3 * left, self._floor * 1.002 + 1e-12)

    def _learn_coupling(self, near: np.ndarray, left: np.ndarray, other: bool) -> None:
        loud = near > QUIET
        if not loud.any():
            return
        ratio = 10 * np.log10((left + 1e-12) / (self._tail + 1e-12))
        fall = FALL_DB if self._heard >= LEARN else RISE_DB
        rise = np.minimum(RISE_SPOKEN_DB if other else RISE_DB, ratio - self._coupling_db)
        change = np.where(ratio > self._coupling_db, rise, -fall)
        self._coupling_db = np.clip(self._coupling_db + np.where(loud, change, 0.0), -60.0, LOUDEST_DB + 10.0)
        self._heard += 1


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
    """What exceeds the echo passes, bin by bin; where too little does, it is quiet."""

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
        echo, other = self.model.judge(played, power, power)
        if not echo:
            return np.ones_like(power)
        self._hold = HOLD if other else self._hold - 1
        if self._hold <= 0:
            return np.zeros_like(power)
        return np.clip(1.0 - self.model.explained / (power + 1e-12), 0.0, 1.0)


class Gate:
    """For a microphone from which the echo was taken away: what is left passes as it is, where it is a voice."""

    def __init__(self) -> None:
        self._table = _bands()
        self.model = EchoModel(self._table.shape[1])
        self._mic, self._left, self._played = Spectra(), Spectra(), Spectra()
        self._hold = 0

    def open(self, mic: np.ndarray, left: np.ndarray, played: np.ndarray) -> list[tuple[bool, bool]]:
        """For each hop: is the robot heard at all, and if so, somebody else?"""
        streams = ((self._played, played), (self._mic, mic), (self._left, left))
        powers = [np.square(np.abs(stream.push(pcm))) @ self._table for stream, pcm in streams]
        found = []
        for one in zip(*powers, strict=True):
            echo, other = self.model.judge(*one)
            self._hold = HOLD_LEFT if echo and other else max(0, self._hold - 1)
            found.append((echo, self._hold > 0))
        return found
