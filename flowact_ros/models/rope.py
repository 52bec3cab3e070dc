# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding over any number of axes: time in frames, and rows and columns where a latent has them.

Times are those of the moving window: its first new frame is 0, memory lies before it. A stream that has run for hours
sees the positions it was trained with. Keys are therefore cached un-rotated and rotated on read.
"""

from __future__ import annotations

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]  # tables for `rotate`, each [N, D]


def token_positions(first_frames: Tensor, places: Tensor) -> Tensor:
    """Positions `[S * P, A]` of the tokens of slots that begin at `first_frames` `[S]`, slot by slot.

    places: `[P, A]`, where a slot's tokens lie relative to its first frame; axis 0 is time in frames
    """
    start = torch.zeros(len(first_frames), 1, places.shape[1], device=places.device)
    start[:, 0, 0] = first_frames.to(places)
    return (start + places).flatten(0, 1)


def rotation(positions: Tensor, axes: tuple[int, ...], theta: float) -> Rotary:
    """positions `[N, A]` -> tables `[N, D]`, D = sum(axes): cosine twice, sine with its sign."""
    angles = []
    for axis, width in enumerate(axes):
        frequency = theta ** -(
            torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
        )
        angles.append(positions[..., axis : axis + 1] * frequency)
    angle = torch.cat(angles, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate channel pairs (i, i + D/2) of x `[..., N, D]` by the tables."""
    cos, sin = (part.to(x.dtype) for part in rotary)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
