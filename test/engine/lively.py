# SPDX-License-Identifier: Apache-2.0
"""Motion that is alive by construction, with its speech: for tests of what watches motion."""

from __future__ import annotations

import numpy as np

from flowact_ros.models.codec.motion import CONTROLS, RIG, control_index
from flowact_ros.models.codec.motion_statistics import MOUTH, MotionStatistics, measure

_NEUTRAL = np.array([c.neutral for c in RIG])
_SCALE = np.array([c.scale for c in RIG])


def live(seconds: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(raw motion `[T, K]`, mean squares of the speech `[T]`): swaying, a blink every 3 s, 5 of 8 s spoken."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(25 * seconds)) / 25
    rates, phases = rng.uniform(0.1, 0.6, (2, CONTROLS)), rng.uniform(0, 2 * np.pi, (2, CONTROLS))
    motion = _NEUTRAL + 0.7 * _SCALE * sum(
        np.sin(2 * np.pi * r * t[:, None] + p) for r, p in zip(rates, phases)
    )
    spoken = (t + rng.uniform(0, 8)) % 8 < 5
    syllables = np.repeat(rng.uniform(0.1, 1.0, len(t) // 4 + 1), 4)[: len(t)] * spoken
    for name in MOUTH:
        motion[:, control_index(name)] = 0.0
    motion[:, control_index("jaw")] = 0.8 * syllables
    shut = (t + rng.uniform(0, 3)) % 3 < 0.16
    for name in ("blink_left", "blink_right"):
        motion[:, control_index(name)] = 0.9 * shut
    return motion.astype(np.float32), (0.2 * syllables) ** 2


def training() -> MotionStatistics:
    """Statistics of such motion."""
    return measure(np.stack([live(12.0, seed)[0] for seed in range(100, 130)]))
