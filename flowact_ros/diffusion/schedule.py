# SPDX-License-Identifier: Apache-2.0
"""Noise levels: which ones a chunk is denoised at, which ones training draws, and how much each of them counts.

sigma runs from 1 (pure noise) to 0 (clean); x_sigma = (1 - sigma) x + sigma noise, velocity = noise - x (rectified
flow). The list of steps is computed here and nowhere else: forgetting the time shift in one of training and inference
is a silent loss of quality.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.config import SchedulerConfig

PURE = 0.25  # share of training draws at pure noise: the first evaluation decides what few steps can show
CENTRE, SPREAD = 0.6, 1.2  # of the logit of the other draws
MATCHED = (0.02, 0.98)  # levels at which distributions are compared
CAP = 0.3  # the velocity's error weighs 1 / sigma^2, and below this level no more


def shift_time(u: Tensor, shift: float) -> Tensor:
    """Map uniform u in [0, 1] towards noise: shift u / (1 + (shift - 1) u) (Stable Diffusion 3, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def unshift_time(sigma: float, shift: float) -> float:
    """The u that `shift_time` maps to `sigma`."""
    return sigma / (shift - (shift - 1) * sigma)


def step_sigmas(config: SchedulerConfig, start: float = 1.0) -> tuple[float, ...]:
    """The `steps` noise levels of one chunk, from `start` (1: pure noise) downwards, and a final 0."""
    u = torch.linspace(unshift_time(start, config.shift), 0, config.steps + 1, dtype=torch.float64)
    return tuple(shift_time(u, config.shift).tolist())


def training_sigmas(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Noise levels `[B, chunks]` of chunks in flight together, rising with their order as in the diagonal layout.

    With one chunk it is the sequential layout.
    """
    sigmas = torch.sigmoid(SPREAD * torch.randn(shape, generator=generator) + CENTRE)
    pure = torch.rand(shape, generator=generator) < PURE
    return torch.where(pure, 1.0, sigmas).sort(1).values


def matching_sigmas(shape: tuple[int, int], shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels `[B, chunks]` at which two distributions are compared: uniform, then shifted, rising with order.

    Nearly clean and nearly pure levels are left out, as by the peers: one tells nothing, the other very loudly.
    """
    return shift_time(torch.rand(shape, generator=generator), shift).clamp(*MATCHED).sort(1).values


def velocity_weight(sigma: Tensor) -> Tensor:
    """By how much the squared error of predicted clean latents counts: that of the velocity, capped."""
    return sigma.clamp_min(CAP) ** -2


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """clean, noise `[B, S, P, C]`, sigma `[B, S]`."""
    level = sigma[..., None, None]
    return (1 - level) * clean + level * noise
