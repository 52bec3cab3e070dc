# SPDX-License-Identifier: Apache-2.0
"""What head, eyes, brows, shoulders and hands do: idle, listening, thinking, speaking, reacting, greeting.

``body`` lays the kinds of a timeline over one continuous life (drift, breath, blinks, gaze): each kind adds its own
pose and events, and fades in with minimum jerk over 300 to 600 ms from the frame on which its instruction begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.data.behaviour_poses import NEUTRAL, POSES, Span, Track, column
from flowact_ros.data.characters.controls import CONTROL_LIMITS, CONTROL_NAMES
from flowact_ros.data.motion import blink_profile, blink_times, breath, drift, poses, step
from flowact_ros.data.wordings import WORDINGS
from flowact_ros.timebase import FRAME_RATE
from flowact_ros.vocabulary import BEHAVIOURS, REACTING

__all__ = ["CODES", "KINDS", "NEUTRAL", "WORDINGS", "Span", "body", "column", "limit"]

KINDS = tuple(WORDINGS)
# Number of a kind's behaviour; a kind that is none by name is a reaction.
_NUMBERS = {name: number for number, name in enumerate(BEHAVIOURS)}
CODES = {kind: _NUMBERS.get(kind.partition("_")[0], _NUMBERS[REACTING]) for kind in KINDS}

_LOW = np.array([CONTROL_LIMITS[name][0] for name in CONTROL_NAMES])
_HIGH = np.array([CONTROL_LIMITS[name][1] for name in CONTROL_NAMES])
EYE_TURN = 0.55  # [rad] an eye turned to gaze = 1
HEAD_FOLLOWS = 0.17  # [rad] the head turns towards a look aside of gaze = 1


def limit(controls: np.ndarray) -> np.ndarray:
    """Controls [T, K] inside their limits, float32."""
    return np.clip(controls, _LOW, _HIGH).astype(np.float32)


@dataclass(frozen=True)
class _Life:
    """The constants of a kind's underlying movement."""

    sway: float  # how much the head drifts (1 = about 0.035 rad)
    turn: float  # [rad] spread of the head's resting places
    camera: float  # share of fixations on the viewer
    away: float  # spread of the other fixations
    fixation: tuple[float, float]  # [s]
    blink: float  # [s] mean distance of blinks


_LIVES = {
    "idle": _Life(1.0, 0.06, 0.55, 0.5, (0.9, 3.0), 4.0),
    "listening": _Life(0.7, 0.03, 0.93, 0.18, (1.5, 4.0), 4.4),
    "thinking": _Life(0.8, 0.03, 0.0, 0.0, (0.7, 1.8), 3.4),
    "speaking": _Life(1.3, 0.065, 0.80, 0.32, (0.8, 2.6), 3.2),
    "speaking_serious": _Life(0.7, 0.03, 0.92, 0.2, (1.5, 3.5), 4.2),
    "smile": _Life(0.8, 0.03, 0.95, 0.15, (1.2, 3.0), 4.2),
    "surprise": _Life(0.5, 0.02, 0.97, 0.1, (1.2, 3.0), 5.2),
    "laugh": _Life(0.9, 0.03, 0.85, 0.3, (0.8, 2.0), 3.5),
    "greeting": _Life(0.9, 0.04, 0.95, 0.15, (1.2, 3.0), 3.8),
}


def _life(kind: str) -> _Life:
    return _LIVES.get(kind) or _LIVES[kind.partition("_")[0]]


def body(spans: Sequence[Span], frames: int, rng: np.random.Generator) -> np.ndarray:
    """Controls float64 [frames, K] of everything but speech (the mouth does only what an expression does to it).

    ``spans`` tile [0, frames). Values may pass their limits: call ``limit`` when the mouth is added.
    """
    weights = _weights(spans, frames, rng)
    out = np.tile(NEUTRAL, (frames, 1))
    _undercurrent(out, spans, weights, frames, rng)
    for span, weight in zip(spans, weights, strict=True):
        tail = np.flatnonzero(weight > 0)
        if len(tail) == 0:
            continue
        length = int(tail[-1]) + 1 - span.start
        track = Track(length)
        POSES[span.kind.partition("_")[0]](track, span, rng)
        out[span.start : span.start + length] += weight[span.start : span.start + length, None] * track.values
    _eyes(out, spans, weights, frames, rng)
    return out


def _weights(spans: Sequence[Span], frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One weight [frames] a span: it fades in from its first frame and out with its successor; their sum is 1."""
    rises = [np.ones(frames)]
    for span in spans[1:]:
        rise = min(rng.uniform(0.3, 0.6), max(0.12, (span.end - span.start) / FRAME_RATE))
        rises.append(step(frames, span.start / FRAME_RATE, rise))
    return [rise * (1.0 - rises[i + 1] if i + 1 < len(rises) else 1.0) for i, rise in enumerate(rises)]


def _undercurrent(
    out: np.ndarray,
    spans: Sequence[Span],
    weights: Sequence[np.ndarray],
    frames: int,
    rng: np.random.Generator,
) -> None:
    sway = sum(w * _life(s.kind).sway for s, w in zip(spans, weights, strict=True))
    turn = sum(w * _life(s.kind).turn for s, w in zip(spans, weights, strict=True))
    yaw = sway * 0.032 * drift(rng, frames, 0.5) + turn * poses(rng, frames, (1.4, 4.5), (0.5, 1.0), 1.0)
    out[:, column("head_yaw")] += yaw
    pitch = sway * 0.022 * drift(rng, frames, 0.4)
    out[:, column("head_pitch")] += pitch + 0.4 * turn * poses(rng, frames, (1.4, 4.5), (0.5, 1.0), 1.0)
    out[:, column("head_roll")] += sway * 0.022 * drift(rng, frames, 0.6) + 0.35 * yaw * rng.uniform(
        -0.4, 1.0
    )
    out[:, column("head_z")] += sway * (0.12 * drift(rng, frames, 1.2) - 0.5 * pitch)
    out[:, column("head_x")] += 0.05 * yaw + sway * 0.004 * drift(rng, frames, 0.8)
    air = breath(rng, frames, rng.uniform(3.0, 4.6))
    out[:, column("breath")] += air
    out[:, column("head_y")] += sway * 0.003 * drift(rng, frames, 0.8) - 0.003 * air
    out[:, column("shoulder_x")] += 0.9 * yaw + 0.10 * sway * drift(rng, frames, 1.0)
    out[:, column("shoulder_y")] += 0.12 * (air - 0.4) + 0.06 * sway * drift(rng, frames, 0.9)
    for name in ("brow_left", "brow_right", "brow_inner", "smile", "smirk", "eye_wide"):
        out[:, column(name)] += 0.05 * drift(rng, frames, 0.6)


def _eyes(
    out: np.ndarray,
    spans: Sequence[Span],
    weights: Sequence[np.ndarray],
    frames: int,
    rng: np.random.Generator,
) -> None:
    """Gaze (fixations and saccades; the head follows a look aside, and its turn is taken back while looking at the
    viewer) and blinks of both lids.
    """
    x, y, camera = np.zeros(frames), np.zeros(frames), np.ones(frames)
    turn, nod = np.zeros(frames), np.zeros(frames)
    aim, now, saccades = (0.0, 0.0, 1.0), 0.0, []
    side = rng.choice([-1.0, 1.0])
    index = 0
    while now < frames / FRAME_RATE:
        while index + 1 < len(spans) and now * FRAME_RATE >= spans[index + 1].start:
            index += 1
        kind, life = spans[index].kind, _life(spans[index].kind)
        if kind.startswith("thinking"):
            side = -side if rng.random() < 0.35 else side
            goal = (side * rng.uniform(0.25, 0.8), rng.uniform(0.45, 0.85), 0.3)
        elif rng.random() < life.camera:
            goal = (rng.normal(0, 0.03), rng.normal(0, 0.03), 1.0)
        else:
            goal = (rng.normal(0, life.away), rng.normal(-0.05, 0.5 * life.away), 0.6)
        move = step(frames, now, 0.05 + 0.04 * rng.random())
        for track, a, b in zip((x, y, camera), aim, goal, strict=True):
            track += (b - a) * move
        follow = HEAD_FOLLOWS * step(frames, now + 0.06, rng.uniform(0.4, 0.6))
        turn += follow * (goal[0] - aim[0])
        nod += 0.5 * follow * (goal[1] - aim[1])
        if np.hypot(goal[0] - aim[0], goal[1] - aim[1]) > 0.5:
            saccades.append(now)
        aim = goal
        hold = rng.uniform(*life.fixation)
        now += hold
        if index + 1 < len(spans):  # a new behaviour moves the eyes soon
            now = min(now, spans[index + 1].start / FRAME_RATE + rng.uniform(0.05, 0.2))
    out[:, column("head_yaw")] += turn
    out[:, column("head_pitch")] += nod
    out[:, column("gaze_x")] += x - camera * out[:, column("head_yaw")] / EYE_TURN
    out[:, column("gaze_y")] += y - camera * out[:, column("head_pitch")] / EYE_TURN
    interval = sum(w * _life(s.kind).blink for s, w in zip(spans, weights, strict=True))
    times = blink_times(rng, frames / FRAME_RATE, np.asarray(interval))
    for at in saccades:  # large gaze shifts often come with a blink
        if rng.random() < 0.3 and all(abs(at - other) > 1.0 for other in times):
            times.append(at - 0.03)
    for at in times:
        lids = blink_profile(frames, at, rng.uniform(0.13, 0.19))
        for name in ("blink_left", "blink_right"):
            out[:, column(name)] = np.maximum(out[:, column(name)], lids)
