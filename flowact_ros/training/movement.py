# SPDX-License-Identifier: Apache-2.0
"""What a latent's noise stands for in training: how the character happens to move, as numbers that are N(0, 1).

Head, gaze, lids, brows, smile, shoulders and hands move in ways that neither sound nor text tell. The renderer knows
these numbers (for footage, a face tracker does); seen as ranks among all moments of the same behaviour they are normal
and say nothing about the behaviour itself, so that live they can be drawn from noise that is correlated in time
(`engine.sampler.chunk_noise`; a noise prior of that kind for video: Ge et al. 2023, arXiv 2305.10474).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.behaviours import WORDINGS
from flowact_ros.data.characters import control_index
from flowact_ros.timebase import FRAMES_PER_LATENT

MOVEMENTS: dict[str, tuple[str, ...]] = {  # number of the code -> controls of which it is the mean
    "yaw": ("head_yaw",),
    "pitch": ("head_pitch",),
    "roll": ("head_roll",),
    "x": ("head_x",),
    "y": ("head_y",),
    "gaze x": ("gaze_x",),
    "gaze y": ("gaze_y",),
    "lids": ("blink_left", "blink_right"),
    "brows": ("brow_left", "brow_right"),
    "smile": ("smile",),
    "shoulders x": ("shoulder_x",),
    "shoulders y": ("shoulder_y",),
    "breath": ("breath",),
    "left hand": ("hand_left_y",),
    "right hand": ("hand_right_y",),
}
KINDS = tuple(WORDINGS)  # of behaviour
LARGEST = 2.7  # beyond it a rank is luck


def movements(controls: np.ndarray) -> Tensor:
    """controls `[T, K]` -> `[T // 4, D]`: each number's mean over a latent's frames."""
    count = len(controls) // FRAMES_PER_LATENT
    frames = torch.from_numpy(np.array(controls[: count * FRAMES_PER_LATENT], np.float32)).unflatten(0, (count, -1))
    means = frames.mean(1)
    return torch.stack([means[:, [control_index(c) for c in names]].mean(1) for names in MOVEMENTS.values()], 1)


def kind_of(wording: str) -> int:
    """Number in KINDS of the behaviour that an instruction asks for. Raises ValueError for one of no clip's."""
    for number, kind in enumerate(KINDS):
        if wording in WORDINGS[kind]:
            return number
    raise ValueError(f"no behaviour is worded {wording!r}; clips are made of those in data.wordings")


def normal_scores(values: Sequence[Tensor], kinds: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """`[N, D]` of each clip -> codes `[N, D]`: normal quantiles of the ranks among latents of the same kind.

    Equal values (lids that are simply open) get ranks at random among themselves.
    """
    flat, kind = torch.cat(list(values)).double(), torch.cat(list(kinds))
    flat = flat + 1e-6 * torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codes = torch.zeros(flat.shape, dtype=torch.float64)
    for k in kind.unique():
        rows = (kind == k).nonzero()[:, 0]
        ranks = flat[rows].argsort(0).argsort(0).double()
        codes[rows] = torch.special.ndtri((ranks + 0.5) / len(rows)).clamp(-LARGEST, LARGEST)
    return list(codes.float().split([len(v) for v in values]))


def decays(codes: Sequence[Tensor], lag: int = 2) -> list[float]:
    """`schedule.code_decay` for these codes: per number, the decay whose noise has their correlation at `lag`."""
    pairs = [torch.stack([z[:-lag], z[lag:]]) for z in codes if len(z) > lag]
    before, after = torch.cat(pairs, 1)
    correlation = (before * after).mean(0) / (0.5 * (before.square() + after.square()).mean(0)).clamp_min(1e-6)
    grid = torch.linspace(0.0, 0.97, 98)
    expected = grid**lag * (1 + lag * (1 - grid**2) / (1 + grid**2))
    return [round(float(grid[(expected - c).abs().argmin()]), 2) for c in correlation]
