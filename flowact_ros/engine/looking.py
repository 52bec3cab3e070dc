# SPDX-License-Identifier: Apache-2.0
"""What the character is to look at now: the last point that was given, until it is old, or what a policy finds."""

from __future__ import annotations

import math
import random

import numpy as np

from flowact_ros.engine.gaze import Pair

FOLLOW = "follow"  # looks at points that are given, else as the model has it
WANDER = "wander"  # the same, and while it neither is given a point nor speaks it looks about by itself
VIEWER = "viewer"  # as the model has it, mostly at the viewer: points that are given do not count
POLICIES = (FOLLOW, WANDER, VIEWER)

MOST = 10.0  # halves of the screen: farther away is the same direction, nearly
JUMP = 0.3  # halves of the screen: what moved farther is looked at at once, not with the next step
JUMP_S = 1.0  # but not more often than this: frames are made anew for it
WANDER_LATENTS = 15  # 2.4 s: whole steps


class Looking:
    """Under the stream's lock; `policy` and `timeout_s` may be changed by anybody, at any time."""

    def __init__(self, policy: str = FOLLOW, *, timeout_s: float = 3.0, seed: int = 0) -> None:
        """timeout_s: how long a point counts. Raises ValueError for a policy that does not exist."""
        if policy not in POLICIES:
            raise ValueError(f"gaze is {policy!r}: one of {', '.join(POLICIES)} is needed")
        self.policy, self.timeout_s, self._seed = policy, timeout_s, seed
        self._point: Pair | None = None
        self._given = -math.inf
        self._used: Pair | None = None  # in the newest step
        self._jumped = -math.inf

    def give(self, x: float, y: float, now: float) -> bool:
        """A point in halves of the screen. True if it is so far from the one looked at that frames made ahead are to
        be made anew. Raises ValueError for what is no number."""
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"the point to look at is ({x}, {y}): finite numbers are needed")
        if self.policy == VIEWER:
            return False
        # As a record will have it: replaying one gives the same frames.
        self._point = (_single(x), _single(y))
        self._given = now
        far = self._used is None or math.dist(self._used, self._point) > JUMP
        if not far or now - self._jumped < JUMP_S:
            return False
        self._jumped = now
        return True

    def release(self) -> None:
        """The point is looked at no longer."""
        self._point, self._given = None, -math.inf

    def target(self, now: float, latent: int, speaking: bool) -> Pair | None:
        """What the step from `latent` on is to look at. Asked once a step."""
        self._given = min(self._given, now)  # a clock that was set back
        if self.policy == VIEWER or now - self._given > self.timeout_s:
            self._point = None
        target = self._point
        if target is None and self.policy == WANDER and not speaking:
            target = wander(self._seed, latent)
        self._used = target
        return target


def wander(seed: int, latent: int) -> Pair | None:
    """Somewhere in the room, the same for the latents of a fixation; None for one on the viewer."""
    rng = random.Random(f"{seed} {latent // WANDER_LATENTS}")
    if rng.random() < 0.4:
        return None
    return _single(rng.uniform(-0.9, 0.9)), _single(rng.uniform(-0.4, 0.3))


def _single(value: float) -> float:
    return float(np.float32(min(max(value, -MOST), MOST)))
