# SPDX-License-Identifier: Apache-2.0
"""What the live watch makes of long motion: false alarms of healthy streams, and how soon planted faults are found.

Both the truth and the shipped model are healthy by definition here: their own statistics say how far limits must be.
A fault is planted into either, again and again along the streams, and the watch sees the minute before it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.engine import watch
from flowact_ros.engine.watch import Watch
from flowact_ros.evaluation.long_motion import Long
from flowact_ros.models.codec import motion_statistics as statistics
from flowact_ros.models.codec.motion import CONTROL_NAMES, RIG, control_index
from flowact_ros.models.codec.motion_statistics import BODY, MOUTH, WINDOW, MotionStatistics
from flowact_ros.timebase import FRAME_RATE

SPARE_S = 5.0  # a fault must be found within its window and so many seconds
BEFORE_S = 60  # of the stream are seen before a fault
EVERY_S = 120  # between the places where a fault is planted
WALKED = 2.0  # scales that a drifting control ends beside itself
WALK_S = 2.0
TREMBLE = 0.1  # scales: deviation of what trembling adds to every frame
DELAY_S = 4.0  # of lips that belong to other sound

_SCALES = np.array([control.scale for control in RIG])
_BODY = np.isin(CONTROL_NAMES, BODY)
_MOUTH = [control_index(name) for name in MOUTH]
_LIDS = [control_index("blink_left"), control_index("blink_right")]

Plant = Callable[
    [np.ndarray, int, np.random.Generator], np.ndarray
]  # motion, frame, rng -> motion with the fault


def _drift(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    """Every control walks to a place beside its own and stays there."""
    walk = np.clip((np.arange(len(motion)) - at) / (WALK_S * FRAME_RATE), 0.0, 1.0)[:, None]
    return motion + walk * rng.choice([-WALKED, WALKED], len(CONTROL_NAMES)) * _SCALES * _BODY


def _tremble(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0.0, TREMBLE, motion.shape) * _SCALES * _BODY
    noise[:at] = 0.0
    return motion + noise


def _stare(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    """The lids go on moving, and never close."""
    out = motion.copy()
    out[at:, _LIDS] = np.minimum(out[at:, _LIDS], 0.3)
    return out


def _mute(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    out = motion.copy()
    out[at:, _MOUTH] = out[at, _MOUTH]
    return out


def _freeze(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    out = motion.copy()
    out[at:] = out[at]
    return out


def _other_sound(motion: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    out = motion.copy()
    late = round(DELAY_S * FRAME_RATE)
    out[at:, _MOUTH] = motion[at - late : len(motion) - late, _MOUTH]
    return out


@dataclass(frozen=True)
class Fault:
    """plant: puts it into motion; alarms: any of them finds it; window_s: of the figure that must find it."""

    plant: Plant
    alarms: tuple[str, ...]
    window_s: float


FAULTS: dict[str, Fault] = {
    "drift": Fault(_drift, (watch.DRIFT,), WINDOW / FRAME_RATE),
    "trembling": Fault(_tremble, (watch.JITTER,), watch.JITTER_FRAMES / FRAME_RATE),
    "no blinks": Fault(_stare, (watch.NO_BLINK,), watch.LONGEST_WITHOUT_BLINK_S),
    "still lips": Fault(_mute, (watch.STILL_LIPS,), WINDOW / FRAME_RATE),
    "frozen face": Fault(
        _freeze, (watch.DRIFT, watch.STILL_LIPS, watch.NO_BLINK), watch.LONGEST_WITHOUT_BLINK_S
    ),
    "lips of other sound": Fault(_other_sound, (watch.LIPS_OFF,), watch.SOUND_FRAMES / FRAME_RATE),
}


def figures_of(stream: Long, training: MotionStatistics) -> list[watch.MotionFigures]:
    """What the watch says, once a second."""
    looking, out = Watch(training, recover=False), []
    for k, (motion, power) in enumerate(zip(stream.motion, stream.power)):
        looking.frame(motion, float(power))
        if (k + 1) % FRAME_RATE == 0:
            out.append(looking.figures)
    return out


def false_alarms(streams: Sequence[Long], training: MotionStatistics) -> dict[str, object]:
    """Alarms raised in healthy streams, and the worst value of each figure."""
    seen = [figures_of(stream, training) for stream in streams]
    raised: dict[str, int] = {}
    for figures in seen:
        for before, now in zip([watch.MotionFigures(), *figures], figures):
            for alarm in set(now.alarms) - set(before.alarms):
                raised[alarm] = raised.get(alarm, 0) + 1
    flat = [f for figures in seen for f in figures]
    worst = {
        "drift": np.nanmax([f.drift for f in flat]),
        "jitter": np.nanmax([f.jitter for f in flat]),
        "without_blink_s": np.nanmax([f.without_blink_s for f in flat]),
        "lip_movement": np.nanmin([f.lip_movement for f in flat]),
        "lip_sound": np.nanmin([f.lip_sound for f in flat]),
    }
    minutes = sum(len(s.motion) for s in streams) / FRAME_RATE / 60
    rounded = {name: round(float(value), 3) for name, value in worst.items()}
    return {"minutes": round(minutes, 1), "alarms": raised, "worst": rounded}


def planted(
    streams: Sequence[Long], training: MotionStatistics, seed: int = 0
) -> dict[str, dict[str, object]]:
    """By fault: how many were planted, found within the window and `SPARE_S`, and seconds until they were found.

    Faults of the lips are planted where speech enough for the figure follows within the window.
    """
    rng = np.random.default_rng(seed)
    out: dict[str, dict[str, object]] = {}
    for name, fault in FAULTS.items():
        taken = [
            seconds
            for stream in streams
            for at in range(BEFORE_S * FRAME_RATE, len(stream.motion) - FRAME_RATE * 60, EVERY_S * FRAME_RATE)
            if (seconds := _found(stream, at, fault, training, rng)) is not None
        ]
        within = [t for t in taken if t <= fault.window_s + SPARE_S]
        out[name] = {
            "planted": len(taken), "found": len(within), "within_s": fault.window_s + SPARE_S,
            "median_s": float(np.median(taken)) if taken else None, "longest_s": max(taken, default=None),
        }  # fmt: skip
    return out


def _found(
    stream: Long, at: int, fault: Fault, training: MotionStatistics, rng: np.random.Generator
) -> float | None:
    """Seconds until a fault planted at frame `at` is found (infinity: not at all), or None where nothing is said."""
    first, last = at - BEFORE_S * FRAME_RATE, at + round((fault.window_s + 2 * SPARE_S) * FRAME_RATE)
    part = Long(stream.motion[first:last], stream.power[first:last])
    begin = at - first
    if set(fault.alarms) <= {watch.STILL_LIPS, watch.LIPS_OFF}:
        sounds = statistics.voiced(part.power, float(part.power.max()))
        spoken = sounds[begin : begin + round(fault.window_s * FRAME_RATE)].sum()
        if spoken < watch.SOUND_VOICED:
            return None
    broken = Long(fault.plant(part.motion, begin, rng), part.power)
    for second, figures in enumerate(figures_of(broken, training), 1):
        if second * FRAME_RATE > begin and set(figures.alarms) & set(fault.alarms):
            return second - begin / FRAME_RATE
    return float("inf")
