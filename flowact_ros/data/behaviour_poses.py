# SPDX-License-Identifier: Apache-2.0
"""The pose and the events that each kind of behaviour adds to the neutral one (see ``behaviours.body``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from flowact_ros.data.characters.controls import CONTROL_NAMES, neutral
from flowact_ros.data.motion import bump, drift, minimum_jerk, poses, step
from flowact_ros.timebase import FRAME_RATE

POINTS = 0.25  #: Share of gesturing hands that point with the first finger.
NEUTRAL = neutral(1)[0].numpy().astype(np.float64)


def column(name: str) -> int:
    """Column of a control."""
    return CONTROL_NAMES.index(name)


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of one kind; ``beats``: times of its stressed syllables in seconds of the whole clip."""

    kind: str
    start: int
    end: int
    beats: tuple[float, ...] = ()
    speaks: bool = False


class Track:
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

    def hand(
        self,
        side: str,
        place: tuple[float, float],
        raised: np.ndarray,
        angle: np.ndarray | float,
        opened: float,
        point: float = 0.0,
    ) -> None:
        """Bring a hand to ``place`` (canvas fractions) as far as ``raised`` [frames] (0..1) says."""
        self.add(f"hand_{side}_x", raised * (place[0] - NEUTRAL[column(f"hand_{side}_x")]))
        self.add(f"hand_{side}_y", raised * (place[1] - NEUTRAL[column(f"hand_{side}_y")]))
        self.add(f"hand_{side}_angle", raised * angle)
        self.add(f"hand_{side}_open", raised * opened)
        self.add(f"hand_{side}_point", raised * point)


def _idle(t: Track, span: Span, rng: np.random.Generator) -> None:
    t.add("smile", rng.uniform(0.05, 0.25))
    # The weight goes from one leg to the other.
    weight = poses(rng, t.frames, (2.5, 6.0), (0.8, 1.4), 0.8)
    t.add("shoulder_x", 0.3 * weight)
    t.add("head_x", 0.009 * weight)
    t.add("head_roll", -0.02 * weight)
    t.add("shoulder_y", -0.12 * np.abs(weight))
    if t.seconds > 3 and rng.random() < 0.4:  # a little sigh
        at = rng.uniform(0.5, t.seconds - 1.5)
        t.add("shoulder_y", 0.35 * bump(t.frames, at, 0.6, 0.1, 0.7))


def _nods(t: Track, rng: np.random.Generator, at: float, size: float, times: int, period: float) -> float:
    """``times`` downward nods from ``at`` on; returns when they end."""
    for i in range(times):
        dip = size * (0.75**i) * rng.uniform(0.8, 1.2)
        t.add("head_pitch", -dip * bump(t.frames, at + i * period, 0.42 * period, 0.0, 0.58 * period))
        t.add("head_y", 0.05 * dip * bump(t.frames, at + i * period, 0.42 * period, 0.0, 0.58 * period))
    return at + times * period


def _listening(t: Track, span: Span, rng: np.random.Generator) -> None:
    tilt = rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.13)
    t.add("head_roll", tilt)
    t.add("head_x", -0.08 * tilt)
    t.add("head_y", rng.uniform(0.004, 0.012))
    t.add("head_z", rng.uniform(0.3, 0.7))  # leaning in
    t.brows(rng.uniform(0.05, 0.25), rng.uniform(0.0, 0.15))
    t.add("smile", rng.uniform(0.05, 0.3))
    t.add("eye_wide", rng.uniform(0.0, 0.15))
    now = rng.uniform(0.4, 1.2)
    while now < t.seconds - 0.4:
        if rng.random() < 0.8:
            now = _nods(
                t, rng, now, rng.uniform(0.08, 0.16), int(rng.integers(1, 4)), rng.uniform(0.38, 0.55)
            )
        else:
            t.brows(rng.uniform(0.3, 0.6) * bump(t.frames, now, 0.15, rng.uniform(0.2, 0.6), 0.3))
            now += 0.8
        now += rng.uniform(0.8, 2.4)


def _thinking(t: Track, span: Span, rng: np.random.Generator) -> None:
    side = rng.choice([-1.0, 1.0])
    t.add("head_yaw", side * rng.uniform(0.0, 0.1))
    t.add("head_pitch", rng.uniform(0.04, 0.14))
    t.add("head_roll", side * rng.uniform(0.02, 0.1))
    t.add("brow_left", rng.uniform(-0.25, 0.45))
    t.add("brow_right", rng.uniform(-0.25, 0.45))
    t.add("brow_inner", -rng.uniform(0.15, 0.5))
    t.add("eye_wide", -rng.uniform(0.0, 0.2))
    t.add("squint", rng.uniform(0.2, 0.55))
    t.add("smile", -rng.uniform(0.0, 0.2))
    t.add("smirk", rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.8))
    if t.seconds > 2 and rng.random() < 0.4:  # the jaw goes to and fro, as if tasting the answer
        at = rng.uniform(0.5, t.seconds - 1.2)
        t.add("jaw_x", rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.7) * bump(t.frames, at, 0.3, 0.3, 0.4))
    t.add("mouth_width", -rng.uniform(0.0, 0.25))
    if span.kind == "thinking_chin":
        hand = "right" if rng.random() < 0.7 else "left"
        sign = 1.0 if hand == "right" else -1.0
        rub = 0.008 * np.sin(2 * np.pi * 1.1 * np.arange(t.frames) / FRAME_RATE)
        rub *= drift(rng, t.frames, 0.7) > 0  # now and then
        raised = step(t.frames, 0.05, rng.uniform(0.45, 0.6))
        # The folded fingers touch the chin from below; the forearm comes from the side.
        place = (0.5 + sign * rng.uniform(0.025, 0.055), rng.uniform(0.72, 0.74))
        t.hand(hand, place, raised, -sign * rng.uniform(0.25, 0.5), rng.uniform(0.0, 0.12))
        t.add(f"hand_{hand}_y", raised * uniform_filter1d(rub, 5, mode="constant"))


def _speaking(t: Track, span: Span, rng: np.random.Generator) -> None:
    mood = span.kind.partition("_")[2]
    size = {"cheerful": 1.25, "serious": 0.6}.get(mood, 1.0)
    if mood == "cheerful":
        t.add("smile", rng.uniform(0.45, 0.7))
        t.add("cheek", rng.uniform(0.25, 0.5))
        t.add("squint", rng.uniform(0.0, 0.2))
        t.brows(rng.uniform(0.15, 0.35))
    elif mood == "serious":
        t.add("smile", -rng.uniform(0.1, 0.3))
        t.brows(-rng.uniform(0.15, 0.35), -rng.uniform(0.2, 0.45))
    else:
        t.add("smile", rng.uniform(0.0, 0.2))
    if span.beats:
        t.add("jaw_x", 0.1 * drift(rng, t.frames, 0.15))  # jaws do not move quite straight
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
            lift = size * rng.uniform(0.3, 0.7)
            t.brows(lift * bump(t.frames, beat - 0.15, 0.14, rng.uniform(0.1, 0.35), 0.3))
        last = beat
    if mood == "gestures" or (mood in ("", "cheerful") and rng.random() < 0.25):
        _gestures(t, beats, rng, lively=mood == "gestures")


def _gestures(t: Track, beats: Sequence[float], rng: np.random.Generator, *, lively: bool) -> None:
    """Hands come up into the picture, beat on the stressed syllables and sink again."""
    first = min(beats, default=0.3)
    until = max(beats, default=t.seconds) if lively else first + rng.uniform(1.0, 2.0)
    both = rng.random() < (0.6 if lively else 0.3)
    for side in ("left", "right") if both else (rng.choice(["left", "right"]),):
        sign = -1.0 if side == "left" else 1.0
        rise_at = max(0.0, first - 0.45) + rng.uniform(0, 0.1)
        raised = bump(t.frames, rise_at, 0.45, max(0.3, until - first + 0.2), 0.55)
        place = (0.5 + sign * rng.uniform(0.22, 0.33), rng.uniform(0.78, 0.88))
        point = rng.uniform(0.85, 1.0) if rng.random() < POINTS else 0.0
        t.hand(side, place, raised, sign * rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.0), point)
        t.add(f"hand_{side}_x", raised * 0.012 * drift(rng, t.frames, 0.4))
        for beat in beats:
            down = rng.uniform(0.03, 0.07) * bump(t.frames, beat - 0.2, 0.18, 0.0, 0.12)
            up = rng.uniform(0.02, 0.05) * bump(t.frames, beat - 0.04, 0.12, 0.0, 0.25)
            t.add(f"hand_{side}_y", raised * (up - down))
            turn = sign * rng.uniform(0.0, 0.25) * bump(t.frames, beat - 0.1, 0.15, 0.05, 0.3)
            t.add(f"hand_{side}_angle", raised * turn)


def _smile(t: Track, span: Span, rng: np.random.Generator) -> None:
    amount = rng.uniform(0.75, 1.0)
    t.add("smile", amount)
    t.add("cheek", 0.8 * amount)
    t.add("eye_wide", -rng.uniform(0.0, 0.2))
    t.add("squint", rng.uniform(0.15, 0.4))
    t.add("smirk", rng.normal(0, 0.15))
    t.brows(rng.uniform(0.05, 0.25))
    t.add("head_roll", rng.normal(0, 0.05))
    if rng.random() < 0.5:
        _nods(t, rng, rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.1), 1, 0.5)


def _surprise(t: Track, span: Span, rng: np.random.Generator) -> None:
    shock = 0.45 + 0.55 * (1.0 - step(t.frames, rng.uniform(0.7, 1.2), 0.9))  # strongest at first
    t.brows(rng.uniform(0.8, 1.0) * shock, 0.3 * shock)
    t.add("eye_wide", rng.uniform(0.7, 1.0) * shock)
    t.add("jaw", rng.uniform(0.25, 0.4) * shock)
    t.add("mouth_round", rng.uniform(0.2, 0.4) * shock)
    t.add("head_pitch", rng.uniform(0.05, 0.12) * shock)
    t.add("head_y", -0.012 * shock)
    t.add("head_z", -rng.uniform(0.5, 0.9) * shock)  # leaning back
    t.add("shoulder_y", 0.4 * shock)


def _laugh(t: Track, span: Span, rng: np.random.Generator) -> None:
    times = np.arange(t.frames) / FRAME_RATE
    amount = 0.55 + 0.45 * (1.0 - step(t.frames, rng.uniform(1.2, 2.0), 1.0))
    shake = np.sin(2 * np.pi * rng.uniform(3.6, 4.6) * times + rng.uniform(0, 6.28))
    t.add("smile", rng.uniform(0.85, 1.0) * (0.6 + 0.4 * amount))
    t.add("cheek", 0.95 * amount)
    t.add("jaw", amount * (rng.uniform(0.26, 0.36) + 0.07 * shake))
    t.add("lip_upper", 0.35 * amount)
    t.add("teeth", 0.8 * amount)
    t.add("eye_wide", -rng.uniform(0.4, 0.7) * amount)
    t.add("squint", rng.uniform(0.4, 0.7) * amount)
    t.brows(rng.uniform(0.15, 0.4) * amount)
    t.add("shoulder_y", 0.28 * amount * (0.6 + shake))
    t.add("head_pitch", rng.uniform(-0.02, 0.14) * amount + 0.012 * amount * shake)
    t.add("head_y", 0.004 * amount * shake)


def _greeting(t: Track, span: Span, rng: np.random.Generator) -> None:
    t.add("smile", rng.uniform(0.5, 0.8))
    t.add("cheek", rng.uniform(0.3, 0.55))
    t.add("squint", rng.uniform(0.05, 0.25))
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
    place = (0.5 + sign * rng.uniform(0.33, 0.38), rng.uniform(0.60, 0.70))
    t.hand(side, place, raised, sign * 0.1 + 0.4 * swing, 1.0)
    t.add(f"hand_{side}_x", raised * 0.02 * swing)


POSES = {
    "idle": _idle,
    "listening": _listening,
    "thinking": _thinking,
    "speaking": _speaking,
    "smile": _smile,
    "surprise": _surprise,
    "laugh": _laugh,
    "greeting": _greeting,
}
