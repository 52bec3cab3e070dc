# SPDX-License-Identifier: Apache-2.0
"""The rows of `flowact eval quick` that motion alone gives, by the same functions, as columns of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.evaluation import rig_metrics as rig
from flowact_ros.evaluation.experiments.material import Material
from flowact_ros.evaluation.experiments.table import Figure, Row
from flowact_ros.evaluation.rig_metrics import Takes


@dataclass(frozen=True)
class MotionFigure:
    """A column and what it is of (generated takes, true ones)."""

    figure: Figure
    of: Callable[[Takes, Takes], float]


def _figure(
    key: str, name: str, of: Callable[[Takes, Takes], float], truth: float | None = 1.0, digits: int = 2
) -> MotionFigure:
    return MotionFigure(Figure(key, name, truth, digits), of)


def _correlation(column: str) -> Callable[[Takes, Takes], float]:
    return lambda made, true: rig.curve_correlation(made, true, column)


def _spread(column: str) -> Callable[[Takes, Takes], float]:
    return lambda made, true: rig.spread_ratio(made, true, column)


def _change(order: int) -> Callable[[Takes, Takes], float]:
    return lambda made, true: rig.change_ratio(made, true, order)


LIPS = (
    _figure("mouth_opening_correlation", "mouth opening, correlation", _correlation("opening")),
    _figure("mouth_width_correlation", "mouth width, correlation", _correlation("width")),
    _figure("mouth_rounding_correlation", "mouth rounding, correlation", _correlation("round")),
    _figure("mouth_opening_lag_s", "mouth opening, lag [s]", rig.opening_lag_s, truth=0.0, digits=3),
    _figure("closure_ratio", "p b m that close / truth", lambda a, b: rig.closure_ratio(a, b).value),
    _figure("opening_spread_ratio", "spread of the opening / truth", _spread("opening")),
    _figure("silence_movement_ratio", "lips in silence / truth", rig.silence_ratio, truth=None),
)
LIFE = (
    _figure("blink_rate_ratio", "blinks / truth", lambda a, b: rig.blink_ratio(a, b).value),
    _figure("lids_together", "blinks of both lids", lambda a, b: rig.lids_together(a)[0]),
    _figure("gaze_spread_ratio", "spread of the gaze / truth", rig.gaze_spread_ratio),
    _figure("saccade_rate_ratio", "saccades / truth", lambda a, b: rig.saccade_ratio(a, b).value),
    _figure("viewer_share_ratio", "eyes on the viewer / truth", rig.viewer_ratio),
    _figure("head_spread_ratio.yaw", "spread of yaw / truth", _spread("yaw")),
    _figure("head_spread_ratio.pitch", "spread of pitch / truth", _spread("pitch")),
    _figure("head_spread_ratio.roll", "spread of roll / truth", _spread("roll")),
    _figure("hand_presence_ratio", "frames with a hand / truth", lambda a, b: rig.hand_presence_ratio(a, b).value),
    _figure("hand_place_error", "place of hands, error", rig.hand_place_error, truth=0.0, digits=3),
)
SMOOTH = (
    _figure("motion_energy_ratio", "movement / truth", _change(1)),
    _figure("acceleration_ratio", "acceleration / truth", _change(2)),
    _figure("jerk_ratio", "jerk / truth", _change(3)),
    _figure("jump_ratio", "jump at chunks' ends / truth", rig.jump_ratio),
)
ALL = (*LIPS, *LIFE, *SMOOTH)
_SHORT = (
    "mouth_opening_correlation", "mouth_width_correlation", "blink_rate_ratio", "gaze_spread_ratio",
    "saccade_rate_ratio", "head_spread_ratio.yaw", "hand_presence_ratio", "acceleration_ratio", "jump_ratio",
)  # fmt: skip
SOME = tuple(f for f in ALL if f.figure.key in _SHORT)


def columns(figures: Iterable[MotionFigure]) -> list[Figure]:
    return [f.figure for f in figures]


def values(
    made: Sequence[Takes], true: Sequence[Takes], figures: Iterable[MotionFigure] = ALL
) -> dict[str, list[float]]:
    """By the figure's key, one value a seed, of takes by seed."""
    return {f.figure.key: [float(f.of(a, b)) for a, b in zip(made, true, strict=True)] for f in figures}


def row(name: str, material: Material, motion: np.ndarray, figures: Iterable[MotionFigure] = ALL) -> Row:
    """Of raw motion `[B, T, K]` of the material's clips."""
    return Row(name, values(material.takes(motion), material.truth(), figures))


def truth_again(material: Material, figures: Iterable[MotionFigure] = ALL) -> Row:
    """The ceiling: the truth performed once more."""
    return Row("truth performed again", values(material.again(), material.truth(), figures))
