# SPDX-License-Identifier: Apache-2.0
"""Losses and the figures logged beside them: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FLAT = 1e-4  # below this square a distance has no edge


def reconstruction(
    output: Tensor, target: Tensor, weight: Tensor, edges: float, squares: float = 2.0
) -> Tensor:
    """Weighted L1 + `squares` MSE of pictures in [-1, 1], plus `edges` times the L1 of their differences along rows and
    columns.

    output, target: `[B, T, 3, H, W]`; weight: `[B, T, 1, H, W]`
    """
    error = output - target
    loss = (weight * (error.abs() + squares * error.square())).mean()
    if edges > 0:
        dx = (error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]
        dy = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
        loss = loss + edges * (dx.mean() + dy.mean())
    return loss


def psnr(output: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio [dB] of pictures in [-1, 1] (peak to peak 2)."""
    error = (output.detach().clamp(-1, 1) - target).square().mean().clamp_min(1e-10)
    return float(10 * torch.log10(4.0 / error))


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """boxes `[..., 4]` (x0 y0 x1 y1, pixels) -> bool masks `[..., H, W]`."""
    y = torch.arange(height, device=boxes.device)[:, None]
    x = torch.arange(width, device=boxes.device)
    x0, y0, x1, y1 = (boxes[..., i, None, None] for i in range(4))
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def flow_matching(velocity: Tensor, clean: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square error against the rectified-flow target v = noise - clean (mean over all but batch)."""
    return (weight * (velocity - (noise - clean)).square()).mean()


def latent_error(predicted: Tensor, clean: Tensor) -> Tensor:
    """Root mean square error of latents, for logs."""
    return F.mse_loss(predicted.float(), clean.float()).sqrt()


def energy_score(samples: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Energy score of two samples a row (Gneiting and Raftery 2007, eq. 22), once by cell and once of the whole.

    samples: `[2, B, S, C, h, w]`; truth: `[B, S, C, h, w]`; weight: `[B, S, h, w]`, mean 1.
    The distance of a cell is that of its C channels, weighted over the cells; the distance of the whole runs over all
    latents of the chunk, which makes a sample fit together.
    Returns the score (a mean, least for samples distributed as the truth) and the distance between the samples over
    that from the truth, which is then 1.
    """

    def distances(difference: Tensor) -> tuple[Tensor, Tensor]:
        squares = difference.square().mean(-3)  # [..., S, h, w]
        whole = (weight * squares).mean((-1, -2, -3))
        return (weight * root(squares)).mean(), root(whole).mean()

    def root(mean: Tensor) -> Tensor:
        return (mean + FLAT).sqrt() - FLAT**0.5

    away = [distances(sample - truth) for sample in samples]
    apart = distances(samples[0] - samples[1])
    scores = [(a + b) / 2 - c / 2 for a, b, c in zip(*away, apart)]
    return scores[0] + scores[1], 2 * apart[1] / (away[0][1] + away[1][1])
