# SPDX-License-Identifier: Apache-2.0
"""Sound that would be ruined as it is: at the scale of integers, or beside the zero line."""

from __future__ import annotations

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE

LOUDEST = 8.0  # floats up to here are taken as meant: a mix without a limiter; beyond it they are integers
_SCALES = (2.0**15, 2.0**23, 2.0**31)  # of 16, 24 and 32 bits
_LEAST_OFFSET = 0.01  # less is neither heard nor seen
_SURE_S = 0.1  # [s] of sound before an offset is told from a slow swing of it
_SIGMAS = 6.0  # of the mean of noise: a mean beyond it is an offset
_SWINGS_HZ = 20.0  # sound crosses its mean more often than this; what does not is no sound beside the zero line
_WINDOW_S = 2.0  # [s] that the offset is averaged over
_RAMP = SAMPLE_RATE // 50  # samples in which a new offset is taken up


class FullScale:
    """Brings the chunks of one sender to full scale 1, whatever scale its floats have.

    divisor: 1, or that of the integers that they turned out to be; remark: what to tell the sender then.
    """

    def __init__(self) -> None:
        self.divisor = 1.0

    def __call__(self, pcm: np.ndarray) -> np.ndarray:
        """float32 of any shape -> the same at full scale 1; not changed where it is that already."""
        peak = float(np.abs(pcm).max()) if pcm.size else 0.0
        whole = peak >= 2.0 and bool((pcm == np.rint(pcm)).all())
        if peak > max(LOUDEST, self.divisor) or (whole and self.divisor == 1.0):
            self.divisor = next((scale for scale in _SCALES if peak <= scale), _SCALES[-1])
        return pcm if self.divisor == 1.0 else (pcm / np.float32(self.divisor)).astype(np.float32)

    @property
    def remark(self) -> str:
        if self.divisor == 1.0:
            return ""
        bits = dict(zip(_SCALES, (16, 24, 32)))[self.divisor]
        return f"floats at the scale of {bits}-bit integers were divided by {self.divisor:.0f}; send -1 … 1"


class WithoutOffset:
    """Takes a constant offset out of one utterance at 24 kHz; sound without one passes bit for bit.

    It is the mean of the last two seconds, which cuts what swings slower than a voice ever does. remark: the offset,
    once there was one.
    """

    def __init__(self) -> None:
        self.remark = ""
        self._weight = self._sum = self._squares = self._crossings = 0.0
        self._taken = 0.0  # what is subtracted now

    def __call__(self, pcm: np.ndarray) -> np.ndarray:
        """float32 [n] -> float32 [n]."""
        if not len(pcm):
            return pcm
        keep = min(1.0, _WINDOW_S * SAMPLE_RATE / (self._weight + len(pcm)))
        self._weight = keep * (self._weight + len(pcm))
        self._sum = keep * (self._sum + float(pcm.sum(dtype=np.float64)))
        self._squares = keep * (self._squares + float(np.square(pcm, dtype=np.float64).sum()))
        mean = self._sum / self._weight
        above = pcm > mean
        self._crossings = keep * (self._crossings + int((above[1:] != above[:-1]).sum()))
        spread = max(0.0, self._squares / self._weight - mean**2) ** 0.5
        if self._taken == 0.0:
            seconds = self._weight / SAMPLE_RATE
            sure = seconds >= _SURE_S and self._crossings >= _SWINGS_HZ * seconds
            if not sure or abs(mean) < max(_LEAST_OFFSET, _SIGMAS * spread / self._weight**0.5):
                return pcm
            self.remark = f"a constant offset of {mean:.3f} was taken out; look at the recording's input"
        ramp = np.minimum(np.arange(1, len(pcm) + 1, dtype=np.float32) / _RAMP, 1.0)
        out = pcm - (self._taken + (mean - self._taken) * ramp)
        self._taken = mean
        return out.astype(np.float32)
