# SPDX-License-Identifier: Apache-2.0
"""Figures of free-running latents of pictures against the truth of the same sound: does it live, and stay itself?

Latents are normalised over all characters, so that the mean over a clip says whose it is: its cosine to the truth's
mean, which should stay near 1, beside that to another clip's, which should not.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from flowact_ros.training.motion_figures import jump

SPREADS = ("spread", "speed", "acceleration")


def appearance(latents: Tensor) -> Tensor:
    """Of clips `[B, N, P, C]`: `[B, P C]`."""
    return latents.mean(1).flatten(1)


def figures(made: Tensor, truth: Tensor, chunk: int) -> dict[str, float]:
    """The row of latents `[B, N, P, C]`, made in chunks of `chunk`; ratios are to the truth.

    r: correlation in time with the truth, of all channels together; appearance: cosine to the truth, of whole clips, of
    their last quarters, and (a control) of the truth to the next clip's truth
    """
    a, b = (x - x.mean(1, keepdim=True) for x in (made, truth))
    known, last = appearance(truth), max(1, made.shape[1] // 4)
    return {
        "r": float((a * b).sum() / (a.square().sum() * b.square().sum() + 1e-9).sqrt()),
        "spread": float(made.std(1).mean() / truth.std(1).mean()),
        "speed": float(made.diff(dim=1).abs().mean() / truth.diff(dim=1).abs().mean()),
        "acceleration": float(made.diff(n=2, dim=1).abs().mean() / truth.diff(n=2, dim=1).abs().mean()),
        "jump": jump(made, chunk),
        "jump_truth": jump(truth, chunk),
        "appearance": float(F.cosine_similarity(appearance(made), known).mean()),
        "appearance_end": float(F.cosine_similarity(appearance(made[:, -last:]), known).mean()),
        "appearance_other": float(F.cosine_similarity(known.roll(1, 0), known).mean()),
    }


def spread_error(row: dict[str, float]) -> float:
    """How far the movement's size, speed and acceleration lie from the truth's: the mean of |log ratio|."""
    return sum(abs(math.log(max(row[name], 1e-6))) for name in SPREADS) / len(SPREADS)
