# SPDX-License-Identifier: Apache-2.0
"""Statistics of motion: what training motion is like, and how far other motion is from it. Pure functions of arrays.

Here, below engine, training and evaluation, so that the live watch, tables and experiments measure alike. Motion
is raw, float `[T, K]` in the order of `CONTROL_NAMES`, 25 frames a second; a row of NaN is a frame that was not made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flowact_ros.models.codec.motion import CONTROL_NAMES, CONTROLS, RIG, control_index
from flowact_ros.timebase import FRAME_RATE

WINDOW = 10 * FRAME_RATE  # frames whose means and spreads are compared
SHUT, OPEN = 0.5, 0.3  # a blink begins above the first and ends below the second
SMOOTHED = 3  # frames over which opening and loudness are averaged before they are compared
VOICED = 0.1  # of the effective value of the loudest speech: a frame at least so loud is speech, not a pause
SILENCE = 1e-3  # effective value, -60 dB: never speech
UNSURE = 0.1  # squared scales: controls that go together exactly in training may be so far apart
_LEAST_SPREAD = 0.05  # added to deviations before their logarithm, for what rests

_NEUTRAL = np.array([control.neutral for control in RIG])
_SCALE = np.array([control.scale for control in RIG])
#: What speech moves: it rests for as long as nobody speaks.
MOUTH = (
    "jaw",
    "jaw_x",
    "mouth_width",
    "mouth_round",
    "lip_upper",
    "lip_lower",
    "lip_press",
    "teeth",
    "tongue",
)
#: What always moves. Hands do not: they rest, or they are up, for as long as a behaviour lasts.
BODY = tuple(name for name in CONTROL_NAMES if name not in MOUTH and not name.startswith("hand_"))
_BODY = [control_index(name) for name in BODY]
_JAW, _PRESS = control_index("jaw"), control_index("lip_press")
_LIDS = [control_index("blink_left"), control_index("blink_right")]


class MetricError(ValueError):
    """Inputs that do not fit together, with their sizes."""


# ---------------------------------------------------------------- training motion


@dataclass(frozen=True, eq=False)
class MotionStatistics:
    """What the motion that a denoiser learned from is like, in the controls' scales (`motion.RIG`).

    mean `[K]`, covariance `[K, K]`: of frames; acceleration `[K]`: mean size of second differences; opening: deviation
    of the mouth's opening. Raises MetricError for wrong shapes and values that are not finite.
    """

    mean: np.ndarray
    covariance: np.ndarray
    acceleration: np.ndarray
    opening: float

    def __post_init__(self) -> None:
        shapes = [a.shape for a in (self.mean, self.acceleration, self.covariance)]
        if shapes != [(CONTROLS,), (CONTROLS,), (CONTROLS, CONTROLS)]:
            raise MetricError(f"statistics have shapes {shapes}; [{CONTROLS}] and a square of it are needed")
        if not all(
            np.isfinite(a).all() for a in (self.mean, self.acceleration, self.covariance, self.opening)
        ):
            raise MetricError("statistics hold a NaN or an infinity; every value must be finite")

    @cached_property
    def whitening(self) -> np.ndarray:
        """Inverse of the covariance of the body's controls, `UNSURE` added to their variances."""
        body = self.covariance[np.ix_(_BODY, _BODY)]
        return np.linalg.inv(body + UNSURE * np.eye(len(_BODY)))

    def save(self, path: Path) -> None:
        """As JSON with the controls' names."""
        card = {
            "controls": CONTROL_NAMES,
            "opening": round(self.opening, 5),
            "mean": _rounded(self.mean),
            "acceleration": _rounded(self.acceleration),
            "covariance": [_rounded(row) for row in self.covariance],
        }
        path.write_text(json.dumps(card) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> MotionStatistics:
        """Raises MetricError, with the file's name, for one that is not of this rig."""
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            if tuple(card["controls"]) != CONTROL_NAMES:
                raise MetricError("its controls are not those of this rig")
            arrays = {name: np.array(card[name], float) for name in ("mean", "covariance", "acceleration")}
            return MotionStatistics(opening=float(card["opening"]), **arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise MetricError(
                f"{path}: {error}; measure it anew with `flowact eval statistics FOLDER --out {path}`"
            ) from error


def measure(performances: np.ndarray) -> MotionStatistics:
    """The statistics of performances `[N, T, K]`. Raises MetricError for less than a window in all."""
    frames = performances.reshape(-1, CONTROLS).astype(np.float32)
    if len(frames) < WINDOW or performances.shape[1] < 3:
        raise MetricError(
            f"performances {list(performances.shape)}; {WINDOW} frames or more in all are needed, 3 or more each"
        )
    scaled = _scaled(frames)
    # By performance: all differences at once would take gigabytes.
    accelerations = [np.abs(np.diff(_scaled(motion), 2, axis=0)).mean(0) for motion in performances]
    return MotionStatistics(
        scaled.mean(0), np.cov(scaled.T), np.mean(accelerations, axis=0), float(opening(frames).std())
    )


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(x), 5) for x in values]


# ---------------------------------------------------------------- figures of a stretch of motion


def drift(motion: np.ndarray, training: MotionStatistics) -> float:
    """Distance of a window's mean pose from training motion's (Mahalanobis), in deviations a control.

    Of a frame of training motion it would be about 1, of the mean of ten seconds it is less; a pose whose controls do
    not go together is farther off than one that the training holds, however wide.
    """
    off = (_scaled(_made(motion)).mean(0) - training.mean)[_BODY]
    return float(np.sqrt(off @ training.whitening @ off / len(off)))


def jitter(motion: np.ndarray, training: MotionStatistics) -> float:
    """Acceleration ÷ that of training motion: the median over controls, which one gesture or blink does not move."""
    change = np.abs(np.diff(_scaled(motion), 2, axis=0))
    change = change[np.isfinite(change).all(1)]
    if not len(change):
        return float("nan")
    return float(np.median((change.mean(0) / np.maximum(training.acceleration, 1e-6))[_BODY]))


def opening(motion: np.ndarray) -> np.ndarray:
    """How far the mouth is open `[T]`, 0 … 1, without regard to whose it is."""
    return motion[:, _JAW] * (1.0 - motion[:, _PRESS])


def lids(motion: np.ndarray) -> np.ndarray:
    """The more closed of the two lids `[T]`, so that a wink counts once."""
    return motion[:, _LIDS].max(1)


def voiced(power: np.ndarray, loudest: float) -> np.ndarray:
    """bool `[T]`: frames that sound, by their mean squares `[T]` and that of the loudest speech."""
    return power > max(VOICED**2 * loudest, SILENCE**2)


def lip_movement(motion: np.ndarray, training: MotionStatistics) -> float:
    """Deviation of the mouth's opening in frames of speech ÷ that of training motion."""
    return float(opening(_made(motion)).std() / max(training.opening, 1e-6))


def lip_sound(motion: np.ndarray, power: np.ndarray) -> float:
    """Correlation of the mouth's opening and loudness; power: mean squares of the frames' sound `[T]`.

    Loudness is the root of the effective value (Stevens' law). 0 where lips or sound do not change.
    """
    there = np.isfinite(motion).all(1)
    curves = (opening(motion)[there], power[there] ** 0.25)
    kernel = np.ones(SMOOTHED) / SMOOTHED
    return correlation(*(np.convolve(curve, kernel, "valid") for curve in curves))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 when one of them does not move."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise MetricError(f"curves are {list(a.shape)} and {list(b.shape)}; two equal [T] are needed")
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 0.0 if scale < 1e-12 else float((a * b).sum() / scale)


@dataclass(frozen=True)
class Blink:
    """Frames [start, end) in which a lid is shut; `peak`: where most."""

    start: int
    end: int
    peak: int


def lid_blinks(lid: np.ndarray) -> list[Blink]:
    """Closures of one lid `[T]`, with hysteresis: a flutter around one level is no second blink."""
    out: list[Blink] = []
    start = None
    for k, value in enumerate(lid):
        if start is None and value > SHUT:
            start = k
        elif start is not None and value < OPEN:
            out.append(Blink(start, k, start + int(np.argmax(lid[start:k]))))
            start = None
    if start is not None:
        out.append(Blink(start, len(lid), start + int(np.argmax(lid[start:]))))
    return out


# ---------------------------------------------------------------- two sets of windows


def window_features(motion: np.ndarray) -> np.ndarray:
    """Means and logarithms of spreads of the body's controls in windows of `WINDOW` frames, one a second `[N, F]`."""
    scaled = _scaled(motion)
    windows = [scaled[at : at + WINDOW] for at in range(0, len(scaled) - WINDOW + 1, FRAME_RATE)]
    return np.stack([np.concatenate([_means(w)[_BODY], _log_spreads(w)[_BODY]]) for w in windows])


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features `[N, F]`, each taken for a normal distribution (Dowson & Landau 1982).

    |m_a - m_b|² + trace(C_a + C_b - 2 (C_a C_b)^½), whose last trace is that of the root of C_a^½ C_b C_a^½.
    """
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise MetricError(
            f"features are {list(a.shape)} and {list(b.shape)}; [N, F] with 2 rows or more are needed"
        )
    apart = a.mean(0) - b.mean(0)
    first, second = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2.0 * shared)


def _scaled(motion: np.ndarray) -> np.ndarray:
    return (np.asarray(motion, np.float64) - _NEUTRAL) / _SCALE


def _made(motion: np.ndarray) -> np.ndarray:
    """Without the frames that were not made."""
    return motion[np.isfinite(motion).all(1)]


def _means(scaled: np.ndarray) -> np.ndarray:
    return scaled.mean(0)


def _log_spreads(scaled: np.ndarray) -> np.ndarray:
    return np.log(scaled.std(0) + _LEAST_SPREAD)
