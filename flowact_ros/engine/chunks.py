# SPDX-License-Identifier: Apache-2.0
"""A piece of speech as somebody pushed it, checked."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowact_ros.engine.interfaces import AudioError
from flowact_ros.engine.losses import IntakeCounts
from flowact_ros.timebase import INPUT_RATES

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Chunk:
    """A checked chunk: pcm float32 [n], finite, within [-1, 1], at `rate` Hz; came: clock time at which it did."""

    pcm: np.ndarray
    rate: int
    first: int | None
    sequence: int | None
    last: bool
    came: float = 0.0

    @property
    def numbers(self) -> tuple[int | None, int | None]:
        return self.first, self.sequence

    @cached_property
    def digest(self) -> int:
        """Of its sound: equal for equal samples."""
        return zlib.crc32(self.pcm.tobytes())


def check_chunk(
    pcm: np.ndarray,
    sample_rate: int,
    first_sample: int | None,
    sequence: int | None,
    last: bool,
    counts: IntakeCounts,
) -> Chunk:
    """pcm float [n] or int16 [n] -> Chunk. Raises AudioError with one line; bad samples become silence."""
    rate, first, number = _whole(sample_rate), _whole(first_sample), _whole(sequence)
    if rate is None or not INPUT_RATES[0] <= rate <= INPUT_RATES[1]:
        raise AudioError(
            f"sample rate is {sample_rate!r}: a whole number in [{INPUT_RATES[0]}, {INPUT_RATES[1]}] Hz is needed"
        )
    for name, given, value in (("first_sample", first_sample, first), ("sequence", sequence, number)):
        if given is not None and (value is None or value < 0):
            raise AudioError(f"{name} is {given!r}: a whole number >= 0 is needed")
    try:
        pcm = np.asarray(pcm)
    except ValueError as error:
        raise AudioError(f"audio is no array: {error}") from None
    if pcm.ndim != 1:
        raise AudioError(f"audio has shape {list(pcm.shape)}: one channel, shape [samples], is needed")
    if pcm.dtype == np.int16:
        pcm = pcm.astype(np.float32) / 32768.0
    elif pcm.dtype.kind != "f":
        raise AudioError(f"audio has type {pcm.dtype}: float32 in [-1, 1] or int16 is needed")
    finite = np.isfinite(pcm)
    if not finite.all():
        bad = int(pcm.size - finite.sum())
        if not counts.bad_samples:
            _LOG.warning("audio holds %d NaN or infinite samples: they became silence", bad)
        counts.bad_samples += bad
        pcm = np.where(finite, pcm, 0.0)
    return Chunk(np.array(pcm, np.float32), rate, first, number, bool(last))  # a copy: buffers are used again


def _whole(value: object) -> int | None:
    """The whole number that it is, if it is one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return None
