# SPDX-License-Identifier: Apache-2.0
"""The curves that movement is made of: minimum-jerk steps and bumps, smooth random drift, saccades, blinks, breath.

All run on the frame grid (25/s), take an explicit numpy generator, and return float64 arrays [frames].
"""

from __future__ import annotations

import numpy as np

from flowact_ros.timebase import FRAME_RATE


def minimum_jerk(x: np.ndarray | float) -> np.ndarray:
    """0 for x <= 0, 1 for x >= 1, between them the smoothest step (Flash & Hogan 1985)."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (x * (6.0 * x - 15.0) + 10.0)


def step(frames: int, at_s: float, rise_s: float) -> np.ndarray:
    """A step from 0 to 1 that starts at ``at_s`` and takes ``rise_s`` seconds."""
    return minimum_jerk((np.arange(frames) / FRAME_RATE - at_s) / max(rise_s, 1e-3))


def bump(frames: int, at_s: float, rise_s: float, hold_s: float, fall_s: float) -> np.ndarray:
    """Up to 1 in ``rise_s``, held, and down to 0 again."""
    return step(frames, at_s, rise_s) - step(frames, at_s + rise_s + hold_s, fall_s)


def drift(rng: np.random.Generator, frames: int, tau_s: float) -> np.ndarray:
    """Smooth random wandering of unit variance, noise under a Gaussian window of ``tau_s`` seconds."""
    sigma = max(tau_s * FRAME_RATE, 1.0)
    half = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    return np.convolve(rng.standard_normal(frames + 2 * half), kernel, mode="valid")


Range = tuple[float, float]


def poses(rng: np.random.Generator, frames: int, every_s: Range, move_s: Range, spread: float) -> np.ndarray:
    """A value that rests at random places (normal, ``spread``) and moves between them with minimum jerk."""
    out = np.zeros(frames)
    value = rng.normal(0.0, spread)
    out += value
    now = rng.uniform(*every_s)
    while now < frames / FRAME_RATE:
        goal = float(np.clip(rng.normal(0.0, spread), -2 * spread, 2 * spread))
        out += (goal - value) * step(frames, now, rng.uniform(*move_s))
        value = goal
        now += rng.uniform(*every_s)
    return out


def breath(rng: np.random.Generator, frames: int, period_s: float) -> np.ndarray:
    """Breathing in 0..1: in for two fifths of the cycle, out for three, every cycle a little different."""
    out = np.zeros(frames)
    times = np.arange(frames) / FRAME_RATE
    now = -rng.uniform(0.0, period_s)
    while now < frames / FRAME_RATE:
        length = period_s * rng.uniform(0.85, 1.15)
        depth = rng.uniform(0.75, 1.0)
        inside = (times >= now) & (times < now + length)
        phase = (times[inside] - now) / length
        out[inside] = depth * (minimum_jerk(phase / 0.4) - minimum_jerk((phase - 0.4) / 0.6))
        now += length
    return out


def blink_profile(frames: int, at_s: float, length_s: float = 0.15) -> np.ndarray:
    """One blink from ``at_s`` on: lids close in a third of ``length_s``, rest for a frame, and open."""
    times = (np.arange(frames) + 0.5) / FRAME_RATE - at_s
    close, hold = 0.34 * length_s, 0.045
    shape = minimum_jerk(times / close) - minimum_jerk((times - close - hold) / (length_s - close))
    return np.clip(shape, 0.0, 1.0)


def blink_times(rng: np.random.Generator, seconds: float, interval_s: np.ndarray) -> list[float]:
    """Times of blinks, 2 .. 6 s apart, some double; ``interval_s`` [frames]: the mean distance at every frame."""
    out: list[float] = []
    now = rng.uniform(0.2, 3.0)
    while now < seconds:
        out.append(now)
        mean = float(interval_s[min(int(now * FRAME_RATE), len(interval_s) - 1)])
        if rng.random() < 0.12:
            now += rng.uniform(0.32, 0.45)  # a second one right behind
        else:
            now += float(np.clip(rng.gamma(6.0, mean / 6.0), 1.8, 6.5))
    return out
