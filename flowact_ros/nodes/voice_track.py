# SPDX-License-Identifier: Apache-2.0
"""A microphone's sound on the time axis of a recording: stamps shake by milliseconds, samples must not."""

from __future__ import annotations

import numpy as np

from flowact_ros.media.resample import StreamResampler
from flowact_ros.nodes.convert import NANOSECONDS
from flowact_ros.timebase import SAMPLE_RATE

SHAKE_NS = NANOSECONDS // 10  # a stamp that is farther from where the samples are begins a new stream


class VoiceTrack:
    """Sound of any rate in, samples at SAMPLE_RATE with the time of the first out."""

    def __init__(self) -> None:
        self._resampler = StreamResampler(SAMPLE_RATE, SAMPLE_RATE)
        self._origin_ns = 0
        self._taken = self._given = 0  # samples, at the source's rate and at ours

    def take(self, stamp_ns: int, pcm: np.ndarray, rate: int) -> tuple[int, np.ndarray]:
        """([ns] of the first sample, float32 [n]); the resampler gives some samples later."""
        expected_ns = self._origin_ns + self._taken * NANOSECONDS // self._resampler.src
        if rate != self._resampler.src or abs(stamp_ns - expected_ns) > SHAKE_NS:
            self._resampler = StreamResampler(rate, SAMPLE_RATE)
            self._origin_ns, self._taken, self._given = stamp_ns, 0, 0
        first_ns = self._origin_ns + self._given * NANOSECONDS // SAMPLE_RATE
        out = self._resampler.push(pcm)
        self._taken += len(pcm)
        self._given += len(out)
        return first_ns, out
