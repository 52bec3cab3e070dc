# SPDX-License-Identifier: Apache-2.0
"""Noise levels: which ones a chunk is denoised at, and which ones training draws.

sigma runs from 1 (pure noise) to 0 (clean); x_sigma = (1 - sigma) x + sigma noise, velocity = noise - x (rectified
flow). The list of steps is computed here and nowhere else: forgetting the time shift in one of training and inference
is a silent loss of quality.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.config import SchedulerConfig

VISITED = 0.8  # share of training draws on the sampler's own levels


def shift_time(u: Tensor, shift: float) -> Tensor:
    """Map uniform u in [0, 1] towards noise: shift u / (1 + (shift - 1) u) (Stable Diffusion 3, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def step_sigmas(config: SchedulerConfig) -> tuple[float, ...]:
    """The `steps` noise levels of one chunk, from 1 downwards, and a final 0."""
    u = torch.linspace(1, 0, config.steps + 1, dtype=torch.float64)
    return tuple(shift_time(u, config.shift).tolist())


def training_sigmas(count: int, config: SchedulerConfig, generator: torch.Generator) -> Tensor:
    """`[count]` noise levels for diffusion forcing: each chunk its own, most on the levels that inference visits.

    The shipped sampler sees only `steps` levels; the other draws keep the whole path defined, for the many-step
    teacher and for memory refinement.
    """
    anywhere = shift_time(torch.rand(count, generator=generator), config.shift).clamp_min(0.02)
    visited = torch.tensor(step_sigmas(config)[:-1], dtype=torch.float32)
    chosen = visited[torch.randint(len(visited), (count,), generator=generator)]
    return torch.where(torch.rand(count, generator=generator) < VISITED, chosen, anywhere)


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """clean, noise `[B, S, C, h, w]`, sigma `[B, S]`."""
    level = sigma[..., None, None, None]
    return (1 - level) * clean + level * noise
