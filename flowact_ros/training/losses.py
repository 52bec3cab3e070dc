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


def distance(difference: Tensor, weight: Tensor) -> Tensor:
    """How far latents lie from the truth: the norm of each cell's channels, weighted, plus that of the whole chunk.

    difference: `[B, S, C, h, w]`; weight: `[B, S, h, w]`, mean 1. Norms, not squares: few cells far off count for what
    they are, and what is nearly right is still made right.
    """
    squares = difference.square().mean(2)

    def root(mean: Tensor) -> Tensor:
        return (mean + FLAT).sqrt() - FLAT**0.5

    return (weight * root(squares)).mean() + root((weight * squares).mean((1, 2, 3))).mean()
