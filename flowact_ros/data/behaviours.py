# SPDX-License-Identifier: Apache-2.0
"""What head, eyes, brows, shoulders and hands do: idle, listening, thinking, speaking, reacting, greeting.

``body`` lays the kinds of a timeline over one continuous life (drift, breath, blinks, gaze): each kind adds its own pose and
events, and fades in with minimum jerk over 300 to 600 ms from the frame on which its instruction begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.data.characters.controls import CONTROL_LIMITS, CONTROL_NAMES
from flowact_ros.data.motion import blink_profile, blink_times, breath, bump, drift, minimum_jerk, poses, step
from flowact_ros.data.wordings import WORDINGS
from flowact_ros.timebase import FRAME_RATE

__all__ = ["CODES", "KINDS", "NEUTRAL", "WORDINGS", "Span", "body", "column", "limit"]

KINDS = tuple(WORDINGS)
# Number in the messages (IDLE LISTENING THINKING SPEAKING REACTING); a kind that speaks counts as SPEAKING.
CODES = {kind: 2 if kind.startswith("thinking") else 3 if kind.startswith("speaking") else 4 for kind in KINDS}
CODES.update(idle=0, listening=1)

NEUTRAL = np.zeros(len(CONTROL_NAMES))
for _name, _value in (("hand_left_x", 0.25), ("hand_left_y", 1.2), ("hand_right_x", 0.75), ("hand_right_y", 1.2)):
    NEUTRAL[CONTROL_NAMES.index(_name)] = _value
_LOW = np.array([CONTROL_LIMITS[name][0] for name in CONTROL_NAMES])
_HIGH = np.array([CONTROL_LIMITS[name][1] for name in CONTROL_NAMES])
EYE_TURN = 0.55  # [rad] an eye turned to gaze = 1


def column(name: str) -> int:
    """Column of a control."""
    return CONTROL_NAMES.index(name)


def limit(controls: np.ndarray) -> np.ndarray:
    """Controls [T, K] inside their limits, float32."""
    return np.clip(controls, _LOW, _HIGH).astype(np.float32)


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of one kind; ``beats``: times in seconds (of the whole clip) of its stressed syllables."""

    kind: str
    start: int
    end: int
    beats: tuple[float, ...] = ()
    speaks: bool = False


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
    "idle": _Life(1.0, 0.075, 0.55, 0.42, (0.9, 3.0), 4.0),
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
    """Controls float64 [frames, K] of everything but speech (mouth columns hold only what an expression does to them).

    ``spans`` tile [0, frames). Values may pass their limits; ``limit`` brings them back once the mouth is added.
    """
    weights = _weights(spans, frames, rng)
    out = np.tile(NEUTRAL, (frames, 1))
    _undercurrent(out, spans, weights, frames, rng)
    for span, weight in zip(spans, weights, strict=True):
        tail = np.flatnonzero(weight > 0)
        if len(tail) == 0:
            continue
        length = int(tail[-1]) + 1 - span.start
        track = _Track(length)
        _POSES[span.kind.partition("_")[0]](track, span, rng)
        out[span.start : span.start + length] += weight[span.start : span.start + length, None] * track.values
    _eyes(out, spans, weights, frames, rng)
    return out


def _weights(spans: Sequence[Span], frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One weight [frames] a span, their sum 1 everywhere: a span fades in from its first frame and out with its successor."""
    rises = [np.ones(frames)]
    for span in spans[1:]:
        rise = min(rng.uniform(0.3, 0.6), max(0.12, (span.end - span.start) / FRAME_RATE))
        rises.append(step(frames, span.start / FRAME_RATE, rise))
    return [rise * (1.0 - rises[i + 1] if i + 1 < len(rises) else 1.0) for i, rise in enumerate(rises)]


class _Track:
    """Additions to the neutral pose for one span, with the time starting at its first frame."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.seconds = frames / FRAME_RATE
        self.values = np.zeros((frames, len(CONTROL_NAMES)))

    def add(self, name: str, value: np.ndarray | float) -> None:
        self.values[:, column(name)] += value

    def brows(self, value: np.ndarray | float, inner: np.ndarray | float = 0.0) -> None:
        self.add("brow_left", value)
        self.add("brow_right", value)
        self.add("brow_inner", inner)

    def hand(self, side: str, place: tuple[float, float], raised: np.ndarray, angle: np.ndarray | float, opened: float) -> None:
        """Bring a hand to ``place`` (canvas fractions) as far as ``raised`` [frames] (0..1) says."""
        self.add(f"hand_{side}_x", raised * (place[0] - NEUTRAL[column(f"hand_{side}_x")]))
        self.add(f"hand_{side}_y", raised * (place[1] - NEUTRAL[column(f"hand_{side}_y")]))
        self.add(f"hand_{side}_angle", raised * angle)
        self.add(f"hand_{side}_open", raised * opened)


def _undercurrent(
    out: np.ndarray, spans: Sequence[Span], weights: Sequence[np.ndarray], frames: int, rng: np.random.Generator
) -> None:
    sway = sum(w * _life(s.kind).sway for s, w in zip(spans, weights, strict=True))
    turn = sum(w * _life(s.kind).turn for s, w in zip(spans, weights, strict=True))
    yaw = sway * 0.032 * drift(rng, frames, 0.5) + turn * poses(rng, frames, (1.4, 4.5), (0.5, 1.0), 1.0)
    out[:, column("head_yaw")] += yaw
    out[:, column("head_pitch")] += sway * 0.022 * drift(rng, frames, 0.4) + 0.4 * turn * poses(rng, frames, (1.4, 4.5), (0.5, 1.0), 1.0)
    out[:, column("head_roll")] += sway * 0.022 * drift(rng, frames, 0.6) + 0.35 * yaw * rng.uniform(-0.4, 1.0)
    out[:, column("head_x")] += 0.05 * yaw + sway * 0.004 * drift(rng, frames, 0.8)
    air = breath(rng, frames, rng.uniform(3.0, 4.6))
    out[:, column("breath")] += air
    out[:, column("head_y")] += sway * 0.003 * drift(rng, frames, 0.8) - 0.003 * air
    out[:, column("shoulder_x")] += 0.9 * yaw + 0.10 * sway * drift(rng, frames, 1.0)
    out[:, column("shoulder_y")] += 0.12 * (air - 0.4) + 0.06 * sway * drift(rng, frames, 0.9)
    for name, size in (("brow_left", 0.05), ("brow_right", 0.05), ("brow_inner", 0.05), ("smile", 0.05), ("eye_wide", 0.05)):
        out[:, column(name)] += size * drift(rng, frames, 0.6)


def _eyes(
    out: np.ndarray, spans: Sequence[Span], weights: Sequence[np.ndarray], frames: int, rng: np.random.Generator
) -> None:
    """Gaze (fixations and saccades, the head's turn taken back while looking at the viewer) and blinks."""
    x, y, camera = np.zeros(frames), np.zeros(frames), np.ones(frames)
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
        if np.hypot(goal[0] - aim[0], goal[1] - aim[1]) > 0.5:
            saccades.append(now)
        aim = goal
        hold = rng.uniform(*life.fixation)
        following = spans[index + 1].start / FRAME_RATE + rng.uniform(0.05, 0.2) if index + 1 < len(spans) else np.inf
        now = min(now + hold, following)
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


def _idle(t: _Track, span: Span, rng: np.random.Generator) -> None:
    t.add("smile", rng.uniform(0.05, 0.25))
    if t.seconds > 3 and rng.random() < 0.4:  # a little sigh
        at = rng.uniform(0.5, t.seconds - 1.5)
        t.add("shoulder_y", 0.35 * bump(t.frames, at, 0.6, 0.1, 0.7))


def _nods(t: _Track, rng: np.random.Generator, at: float, size: float, times: int, period: float) -> float:
    """``times`` downward nods from ``at`` on; returns when they end."""
    for i in range(times):
        dip = size * (0.75**i) * rng.uniform(0.8, 1.2)
        t.add("head_pitch", -dip * bump(t.frames, at + i * period, 0.42 * period, 0.0, 0.58 * period))
        t.add("head_y", 0.05 * dip * bump(t.frames, at + i * period, 0.42 * period, 0.0, 0.58 * period))
    return at + times * period


def _listening(t: _Track, span: Span, rng: np.random.Generator) -> None:
    tilt = rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.13)
    t.add("head_roll", tilt)
    t.add("head_x", -0.08 * tilt)
    t.add("head_y", rng.uniform(0.006, 0.018))  # leaning in
    t.brows(rng.uniform(0.05, 0.25), rng.uniform(0.0, 0.15))
    t.add("smile", rng.uniform(0.05, 0.3))
    t.add("eye_wide", rng.uniform(0.0, 0.15))
    now = rng.uniform(0.4, 1.2)
    while now < t.seconds - 0.4:
        if rng.random() < 0.8:
            now = _nods(t, rng, now, rng.uniform(0.08, 0.16), int(rng.integers(1, 4)), rng.uniform(0.38, 0.55))
        else:
            t.brows(rng.uniform(0.3, 0.6) * bump(t.frames, now, 0.15, rng.uniform(0.2, 0.6), 0.3))
            now += 0.8
        now += rng.uniform(0.8, 2.4)


def _thinking(t: _Track, span: Span, rng: np.random.Generator) -> None:
    side = rng.choice([-1.0, 1.0])
    t.add("head_yaw", side * rng.uniform(0.08, 0.2))
    t.add("head_pitch", rng.uniform(0.04, 0.14))
    t.add("head_roll", side * rng.uniform(0.02, 0.1))
    t.add("brow_left", rng.uniform(-0.25, 0.45))
    t.add("brow_right", rng.uniform(-0.25, 0.45))
    t.add("brow_inner", -rng.uniform(0.15, 0.5))
    t.add("eye_wide", -rng.uniform(0.0, 0.3))
    t.add("smile", -rng.uniform(0.0, 0.2))
    t.add("mouth_width", -rng.uniform(0.0, 0.25))
    if span.kind == "thinking_chin":
        hand = "right" if rng.random() < 0.7 else "left"
        sign = 1.0 if hand == "right" else -1.0
        rub = 0.012 * np.sin(2 * np.pi * (1.1 * np.arange(t.frames) / FRAME_RATE)) * (drift(rng, t.frames, 0.7) > 0)
        raised = step(t.frames, 0.05, rng.uniform(0.45, 0.6))
        t.hand(hand, (0.5 + sign * rng.uniform(0.05, 0.09), rng.uniform(0.80, 0.84)), raised, -sign * rng.uniform(0.3, 0.6), 0.25)
        t.add(f"hand_{hand}_y", raised * np.convolve(rub, np.ones(5) / 5, mode="same"))


def _speaking(t: _Track, span: Span, rng: np.random.Generator) -> None:
    mood = span.kind.partition("_")[2]
    size = {"cheerful": 1.25, "serious": 0.6}.get(mood, 1.0)
    if mood == "cheerful":
        t.add("smile", rng.uniform(0.45, 0.7))
        t.add("cheek", rng.uniform(0.25, 0.5))
        t.brows(rng.uniform(0.15, 0.35))
    elif mood == "serious":
        t.add("smile", -rng.uniform(0.1, 0.3))
        t.brows(-rng.uniform(0.15, 0.35), -rng.uniform(0.2, 0.45))
    else:
        t.add("smile", rng.uniform(0.0, 0.2))
    beats = [b - span.start / FRAME_RATE for b in span.beats]
    last = -1.0
    for beat in beats:
        if beat - last < 0.3:
            continue
        if rng.random() < 0.75:
            dip = size * rng.uniform(0.03, 0.10)
            t.add("head_pitch", -dip * bump(t.frames, beat - 0.12, 0.16, 0.02, 0.28))
            t.add("head_roll", size * rng.normal(0, 0.015) * bump(t.frames, beat - 0.12, 0.2, 0.1, 0.4))
        if rng.random() < 0.3:
            t.brows(size * rng.uniform(0.3, 0.7) * bump(t.frames, beat - 0.15, 0.14, rng.uniform(0.1, 0.35), 0.3))
        last = beat
    if mood == "gestures" or (mood in ("", "cheerful") and rng.random() < 0.12):
        _gestures(t, beats, rng, lively=mood == "gestures")


def _gestures(t: _Track, beats: Sequence[float], rng: np.random.Generator, *, lively: bool) -> None:
    """Hands come up into the picture, beat on the stressed syllables and sink again."""
    first = min(beats, default=0.3)
    until = max(beats, default=t.seconds) if lively else first + rng.uniform(1.0, 2.0)
    both = rng.random() < (0.6 if lively else 0.3)
    for side in ("left", "right") if both else (rng.choice(["left", "right"]),):
        sign = -1.0 if side == "left" else 1.0
        raised = bump(t.frames, max(0.0, first - 0.45) + rng.uniform(0, 0.1), 0.45, max(0.3, until - first + 0.2), 0.55)
        place = (0.5 + sign * rng.uniform(0.22, 0.33), rng.uniform(0.78, 0.88))
        t.hand(side, place, raised, sign * rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.0))
        t.add(f"hand_{side}_x", raised * 0.012 * drift(rng, t.frames, 0.4))
        for beat in beats:
            down = rng.uniform(0.03, 0.07) * bump(t.frames, beat - 0.2, 0.18, 0.0, 0.12)
            up = rng.uniform(0.02, 0.05) * bump(t.frames, beat - 0.04, 0.12, 0.0, 0.25)
            t.add(f"hand_{side}_y", raised * (up - down))
            t.add(f"hand_{side}_angle", raised * sign * rng.uniform(0.0, 0.25) * bump(t.frames, beat - 0.1, 0.15, 0.05, 0.3))


def _smile(t: _Track, span: Span, rng: np.random.Generator) -> None:
    amount = rng.uniform(0.75, 1.0)
    t.add("smile", amount)
    t.add("cheek", 0.8 * amount)
    t.add("eye_wide", -rng.uniform(0.1, 0.3))
    t.brows(rng.uniform(0.05, 0.25))
    t.add("head_roll", rng.normal(0, 0.05))
    if rng.random() < 0.5:
        _nods(t, rng, rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.1), 1, 0.5)


def _surprise(t: _Track, span: Span, rng: np.random.Generator) -> None:
    shock = 0.45 + 0.55 * (1.0 - step(t.frames, rng.uniform(0.7, 1.2), 0.9))  # strongest at first
    t.brows(rng.uniform(0.8, 1.0) * shock, 0.3 * shock)
    t.add("eye_wide", rng.uniform(0.7, 1.0) * shock)
    t.add("jaw", rng.uniform(0.25, 0.4) * shock)
    t.add("mouth_round", rng.uniform(0.2, 0.4) * shock)
    t.add("head_pitch", rng.uniform(0.05, 0.12) * shock)
    t.add("head_y", -0.012 * shock)
    t.add("shoulder_y", 0.4 * shock)


def _laugh(t: _Track, span: Span, rng: np.random.Generator) -> None:
    times = np.arange(t.frames) / FRAME_RATE
    amount = 0.55 + 0.45 * (1.0 - step(t.frames, rng.uniform(1.2, 2.0), 1.0))
    shake = np.sin(2 * np.pi * rng.uniform(3.6, 4.6) * times + rng.uniform(0, 6.28))
    t.add("smile", rng.uniform(0.85, 1.0) * (0.6 + 0.4 * amount))
    t.add("cheek", 0.95 * amount)
    t.add("jaw", amount * (rng.uniform(0.26, 0.36) + 0.07 * shake))
    t.add("lip_upper", 0.35 * amount)
    t.add("teeth", 0.8 * amount)
    t.add("eye_wide", -rng.uniform(0.5, 0.8) * amount)
    t.brows(rng.uniform(0.15, 0.4) * amount)
    t.add("shoulder_y", 0.28 * amount * (0.6 + shake))
    t.add("head_pitch", rng.uniform(-0.02, 0.14) * amount + 0.012 * amount * shake)
    t.add("head_y", 0.004 * amount * shake)


def _greeting(t: _Track, span: Span, rng: np.random.Generator) -> None:
    t.add("smile", rng.uniform(0.5, 0.8))
    t.add("cheek", rng.uniform(0.3, 0.55))
    t.brows(rng.uniform(0.15, 0.3))
    t.brows(0.5 * bump(t.frames, 0.1, 0.2, 0.4, 0.4))
    t.add("head_roll", rng.normal(0, 0.05))
    _nods(t, rng, rng.uniform(0.3, 0.6), rng.uniform(0.06, 0.12), 1, 0.5)
    side = "right" if rng.random() < 0.7 else "left"
    sign = 1.0 if side == "right" else -1.0
    wave_s = float(np.clip(t.seconds - 0.9, 0.8, rng.uniform(1.6, 2.6)))
    raised = bump(t.frames, 0.05, 0.5, wave_s, 0.5)
    swing = np.sin(2 * np.pi * rng.uniform(1.7, 2.3) * np.arange(t.frames) / FRAME_RATE)
    swing *= minimum_jerk((np.arange(t.frames) / FRAME_RATE - 0.4) / 0.3)
    t.hand(side, (0.5 + sign * rng.uniform(0.33, 0.38), rng.uniform(0.60, 0.70)), raised, sign * 0.1 + 0.4 * swing, 1.0)
    t.add(f"hand_{side}_x", raised * 0.02 * swing)


_POSES = {
    "idle": _idle,
    "listening": _listening,
    "thinking": _thinking,
    "speaking": _speaking,
    "smile": _smile,
    "surprise": _surprise,
    "laugh": _laugh,
    "greeting": _greeting,
}
