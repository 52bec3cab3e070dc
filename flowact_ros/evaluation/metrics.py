# SPDX-License-Identifier: Apache-2.0
"""Measures of curves against each other and against sound: pure functions of arrays.

Curves are float `[T]` at 25/s, sound float32 at 24 kHz. None of them means anything alone: every figure is read beside
the truth's and beside a control that must fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.models.codec.motion_statistics import MetricError as MetricError
from flowact_ros.models.codec.motion_statistics import correlation as correlation
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE


@dataclass(frozen=True)
class Lag:
    """Where the cross-correlation is highest. seconds > 0: the first curve comes after the second."""

    seconds: float
    correlation: float


def best_lag(pairs: Sequence[tuple[np.ndarray, np.ndarray]], most_s: float = 0.4) -> Lag:
    """Lag of the first curves against the second over all pairs together, to a fraction of a frame (parabolic peak).

    NaN seconds when a curve does not move.
    """
    reach = round(most_s * FRAME_RATE)
    values = []
    for lag in range(-reach, reach + 1):
        xy = xx = yy = 0.0
        for a, b in pairs:
            count = len(a) - abs(lag)
            if len(a) != len(b) or count < 2:
                raise MetricError(
                    f"curves of {len(a)} and {len(b)} frames; two equal, longer than {reach + 1}, are needed"
                )
            x = np.asarray(a[max(lag, 0) : max(lag, 0) + count], np.float64)
            y = np.asarray(b[max(-lag, 0) : max(-lag, 0) + count], np.float64)
            x, y = x - x.mean(), y - y.mean()
            xy, xx, yy = xy + float(x @ y), xx + float(x @ x), yy + float(y @ y)
        values.append(xy / np.sqrt(xx * yy) if xx * yy > 1e-20 else 0.0)
    k = int(np.argmax(values))
    if not any(values):
        return Lag(float("nan"), 0.0)
    shift = 0.0
    if 0 < k < len(values) - 1:
        before, peak, after = values[k - 1 : k + 2]
        bend = before - 2 * peak + after
        shift = 0.5 * (before - after) / bend if bend < -1e-12 else 0.0
    return Lag(float(k - reach + shift) / FRAME_RATE, float(values[k]))


def loudness(pcm: np.ndarray, frames: int, window_s: float = 0.08) -> np.ndarray:
    """Loudness around the middle of each frame, float `[frames]`: root of the effective value (Stevens' law)."""
    half = round(window_s * SAMPLE_RATE / 2)
    power = np.concatenate([[0.0], np.cumsum(np.asarray(pcm, np.float64) ** 2)])
    middle = ((np.arange(frames) + 0.5) * SAMPLE_RATE / FRAME_RATE).astype(int)
    low, high = np.clip(middle - half, 0, len(pcm)), np.clip(middle + half, 0, len(pcm))
    mean = np.maximum(power[high] - power[low], 0.0) / (2 * half)
    return mean**0.25


def settled(quiet: np.ndarray, least_s: float = 0.3) -> np.ndarray:
    """Stretches of `quiet` bool `[T]` of `least_s` or more, without 0.2 s at their start and 0.12 s at their end."""
    out = np.zeros(len(quiet), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= round(least_s * FRAME_RATE):
            first = start + (5 if start > 0 else 0)
            last = end - (3 if end < len(quiet) else 0)
            out[first:last] = True
    return out
