# SPDX-License-Identifier: Apache-2.0
"""Figures of free-running motion against the truth of the same sound: what says whether a denoiser is alive.

Loss does not: the mean of all movements has the lowest. Correlations say whether the lips are right, ratios of
deviation whether it moves as much as people do, and the jump at chunk ends whether it is one movement.
"""

from __future__ import annotations

import math

from torch import Tensor

from flowact_ros.models.codec.motion import CONTROL_NAMES, control_index, denormalise
from flowact_ros.timebase import FRAME_RATE

LIPS = {"jaw": "jaw", "width": "mouth_width", "round": "mouth_round", "press": "lip_press"}
SPREADS = {
    "jaw": "jaw", "yaw": "head_yaw", "pitch": "head_pitch", "roll": "head_roll", "gaze": "gaze_x",
    "brow": "brow_left", "smile": "smile", "hand": "hand_right_y",
}  # fmt: skip
FEW = 0.5  # [1/min] added to both rates of blinks: none at all is bad, not infinitely bad
CLOSED = 0.5  # lids closed by more than this are a blink


def correlation(made: Tensor, truth: Tensor) -> float:
    """Mean over clips of the correlation in time of `[B, T]`; clips in which the truth does not move are left out."""
    moves = truth.std(1) > 1e-3
    a, b = (x[moves] - x[moves].mean(1, keepdim=True) for x in (made, truth))
    return float(((a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-9).sqrt()).mean())


def blinks_a_minute(raw: Tensor) -> float:
    """Closings of the lids in raw motion `[B, T, K]`."""
    closed = raw[..., control_index("blink_left")] > CLOSED
    starts = (closed[:, 1:] & ~closed[:, :-1]).sum()
    return float(starts) / (raw.shape[0] * raw.shape[1] / FRAME_RATE / 60)


def jump(motion: Tensor, chunk: int) -> float:
    """Movement across the ends of chunks of `chunk` frames, over movement anywhere."""
    steps = motion.diff(dim=1).abs()
    return float(steps[:, chunk - 1 :: chunk].mean() / steps.mean())


def figures(made: Tensor, truth: Tensor, chunk: int) -> dict[str, float]:
    """The table's row for normalised motion `[B, T, K]`."""
    column = {name: i for i, name in enumerate(CONTROL_NAMES)}
    out = {
        f"r_{short}": correlation(made[..., column[name]], truth[..., column[name]])
        for short, name in LIPS.items()
    }
    for short, name in SPREADS.items():
        out[f"std_{short}"] = float(made[..., column[name]].std() / truth[..., column[name]].std())
    out["blinks"], out["blinks_truth"] = (blinks_a_minute(denormalise(x)) for x in (made, truth))
    out["jump"], out["jump_truth"] = jump(made, chunk), jump(truth, chunk)
    out["speed"] = float(made.diff(dim=1).abs().mean() / truth.diff(dim=1).abs().mean())
    out["acceleration"] = float(made.diff(n=2, dim=1).abs().mean() / truth.diff(n=2, dim=1).abs().mean())
    return out


def spread_error(row: dict[str, float]) -> float:
    """How far spreads, blinks, speed and acceleration lie from the truth: the mean of |log ratio|.

    What a checkpoint of a distilled model is chosen by; twice and half as much count alike. Without the acceleration,
    trembling would pass for life.
    """
    ratios = [row[name] for name in (*(f"std_{short}" for short in SPREADS), "speed", "acceleration")]
    ratios.append((row["blinks"] + FEW) / (row["blinks_truth"] + FEW))
    return sum(abs(math.log(max(ratio, 1e-6))) for ratio in ratios) / len(ratios)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows of figures under one heading, for people."""
    names = list(next(iter(rows.values())))
    width = max(len(row) for row in rows)
    lines = [" ".join([" " * width, *(f"{name:>12}" for name in names)])]
    lines += [" ".join([f"{row:<{width}}", *(f"{rows[row][n]:12.3f}" for n in names)]) for row in rows]
    return "\n".join(lines)
