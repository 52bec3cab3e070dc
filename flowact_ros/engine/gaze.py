# SPDX-License-Identifier: Apache-2.0
"""Where the character looks, when it is told to: the one thing that is rendered and did not come from the sampler.

Generated motion keeps its blinks, nods and small movements; its gaze is moved towards a target. The eyes jump there in
two or three frames, the head follows in about half a second and takes over a part of the angle, while the eyes turn
back by as much. Functions of raw motion, a state and a target: no clock, no networks. The denoiser never sees the
result: its memory holds the motion that it made itself, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.timebase import FRAME_RATE

Pair = tuple[float, float]

#: [rad] to the side and up: the character turns so far to look at the edge of its screen.
EDGE: Pair = (0.5, 0.35)
#: [rad] an eye turned to gaze = 1: that of the motion that the model has learned.
EYE_TURN = 0.55
EYE_MOST = 0.95  # of gaze: the iris stays in the picture of the eye
#: [rad] farther the head is not turned for a target: the renderer draws ragged edges there, where hair and face part.
HEAD_MOST: Pair = (0.15, 0.09)
#: Of the angle beyond HEAD_FROM; the eyes do the rest. As in the motion that the model has learned.
HEAD_SHARE: Pair = (0.35, 0.25)
HEAD_FROM = 0.06  # [rad] for less the head does not turn
HEAD_RATE = 9.0  # [1/s] of a critically damped follow: nine tenths of the way after 0.43 s
SACCADE = 0.25  # [rad] an eye turns in a frame at most: 360° a second
RELEASE = 0.8  # of the eyes' turn is left after a frame without a target
OWN = 0.35  # of the generated wandering of the eyes is left while they look at a target
ENGAGE, RELAX = 0.34, 0.08  # of that change, in a frame

_COLUMNS = ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
_STEP = 1.0 / FRAME_RATE
_DECAY = math.exp(-HEAD_RATE * _STEP)


@dataclass(frozen=True)
class Gaze:
    """How far the look is on its way, [rad] to the picture's right and up.

    aim: turn of the look, eyes and head together; head: the head's part; speed: [rad/s] of the head; hold: how much
    the eyes' own wandering is held back, 0 .. 1.
    """

    aim: Pair = (0.0, 0.0)
    head: Pair = (0.0, 0.0)
    speed: Pair = (0.0, 0.0)
    hold: float = 0.0


REST = Gaze()


def columns_of(names: Sequence[str]) -> tuple[int, int, int, int] | None:
    """Columns of gaze and head in motion whose controls are `names`; None if it has none."""
    return tuple(names.index(name) for name in _COLUMNS) if set(_COLUMNS) <= set(names) else None  # type: ignore[return-value]


def turn(
    motion: np.ndarray, gaze: Gaze, target: Pair | None, columns: tuple[int, int, int, int]
) -> tuple[np.ndarray, Gaze]:
    """Raw motion float32 [T, K] with the look turned towards `target`, and where the gaze is then.

    target: in halves of the screen from its middle, to the right as the viewer sees it and up; None: the look returns
    to the generated one. At rest and without a target the motion is returned as it is.
    """
    if target is None and gaze == REST:
        return motion, gaze
    out = motion.copy()
    for frame in out:
        gaze = _next(gaze, target)
        for axis in (0, 1):
            eye, head = columns[axis], columns[2 + axis]
            own_head, own = float(frame[head]), float(frame[eye]) * EYE_TURN
            # Own extremes of the sampler stay: it is what was turned that must not go beyond.
            turned = _within(own_head + gaze.head[axis], max(HEAD_MOST[axis], abs(own_head)))
            share = 1.0 - (1.0 - OWN) * gaze.hold  # of the own movement that stays
            look = share * (own + own_head) + gaze.aim[axis]  # where the eyes point, head and eyes together
            most = max(EYE_MOST, abs(float(frame[eye])))
            frame[head], frame[eye] = turned, _within((look - turned) / EYE_TURN, most)
    return out, gaze


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _next(gaze: Gaze, target: Pair | None) -> Gaze:
    """A frame later."""
    aim, head, speed = zip(*(_axis(gaze, target, axis) for axis in (0, 1)))
    change = ENGAGE if target is not None else -RELAX
    hold = min(max(gaze.hold + change, 0.0), 1.0)
    state = Gaze(aim, head, speed, hold)
    if target is None and hold == 0.0 and all(abs(x) < 1e-3 for x in (*aim, *head, *speed)):
        return REST
    return state


def _axis(gaze: Gaze, target: Pair | None, axis: int) -> tuple[float, float, float]:
    """Aim, head and speed of the head, a frame later."""
    aim, head, speed = gaze.aim[axis], gaze.head[axis], gaze.speed[axis]
    wanted = 0.0 if target is None else math.atan(target[axis] * math.tan(EDGE[axis]))
    beyond = max(0.0, abs(wanted) - HEAD_FROM)
    goal = math.copysign(min(HEAD_SHARE[axis] * beyond, HEAD_MOST[axis]), wanted)
    # A critically damped spring, exactly over one frame.
    away = head - goal
    pull = (speed + HEAD_RATE * away) * _STEP
    head, speed = goal + (away + pull) * _DECAY, (speed - HEAD_RATE * pull) * _DECAY
    if target is None:
        aim *= RELEASE
    else:
        # No farther than an eye can turn: the rest comes with the head.
        reach = EYE_MOST * EYE_TURN
        wanted = head + _within(wanted - head, reach)
        aim += _within(wanted - aim, SACCADE)
    return aim, head, speed
