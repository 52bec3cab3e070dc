# SPDX-License-Identifier: Apache-2.0
"""Sample-rate conversion (soxr), for a whole clip or for a stream that arrives in pieces."""

from __future__ import annotations

import numpy as np
import soxr

from flowact_ros.media.errors import MediaError
from flowact_ros.timebase import INPUT_RATES

_GREATEST = INPUT_RATES[1]  # [Hz] also on the way out; what may come in is checked where it comes in


def resample(pcm: np.ndarray, src: int, dst: int, *, quality: str = "HQ") -> np.ndarray:
    """float32 mono [T] at `src` Hz -> float32 [round(T * dst / src)] at `dst` Hz, aligned at sample 0."""
    pcm = _mono(pcm)
    _check_rates(src, dst)
    if src == dst or pcm.size == 0:
        return pcm.copy()
    wanted = round(pcm.size * dst / src)
    out = soxr.resample(pcm, src, dst, quality=quality)
    if out.size < wanted:  # soxr may round the last sample away; the length is part of the promise
        out = np.concatenate([out, np.zeros(wanted - out.size, dtype=np.float32)])
    return np.ascontiguousarray(out[:wanted], dtype=np.float32)


class StreamResampler:
    """The same for pieces of one stream: `push` returns what is ready (maybe nothing), `flush` the rest.

    The concatenation of all outputs equals the one-shot result, so sample k always means time k / dst. After `flush`
    the next `push` starts a new stream.
    """

    def __init__(self, src: int, dst: int, *, quality: str = "HQ") -> None:
        _check_rates(src, dst)
        self.src, self.dst = int(src), int(dst)
        self._quality = quality
        self._stream: soxr.ResampleStream | None = None

    def push(self, pcm: np.ndarray) -> np.ndarray:
        """float32 mono [n] at `src` -> float32 [m] at `dst`."""
        pcm = _mono(pcm)
        if self.src == self.dst or (pcm.size == 0 and self._stream is None):
            return pcm.copy()
        if self._stream is None:
            self._stream = soxr.ResampleStream(self.src, self.dst, 1, dtype="float32", quality=self._quality)
        return np.asarray(self._stream.resample_chunk(pcm), dtype=np.float32)

    def flush(self) -> np.ndarray:
        """The samples still inside the filter, float32 [m]; ends this stream."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        rest = self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        self._stream = None
        return np.asarray(rest, dtype=np.float32)


def _mono(pcm: np.ndarray) -> np.ndarray:
    pcm = np.asarray(pcm)
    if pcm.ndim != 1 or pcm.dtype.kind != "f":
        raise MediaError(f"resampling needs mono float samples [T], got {pcm.dtype} {list(pcm.shape)}")
    return np.ascontiguousarray(pcm, dtype=np.float32)


def _check_rates(src: int, dst: int) -> None:
    for rate in (src, dst):
        if not 0 < rate <= _GREATEST:
            raise MediaError(
                f"cannot resample from {src} Hz to {dst} Hz; rates must lie in 1 to {_GREATEST} Hz"
            )
