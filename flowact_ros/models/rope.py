# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding over three axes: time slot, row, column.

Positions are those of the moving window (reference 0, memory, then the stream), never absolute: a stream that has
run for hours sees the positions it was trained with. Keys are therefore cached un-rotated and rotated on read.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_positions(slots: Tensor, grid: tuple[int, int], condition_tokens: int) -> Tensor:
    """Positions `[S, condition_tokens + rows * cols, 3]` of the tokens of slots at time positions `slots` `[S]`.

    Condition tokens (text, audio) sit at their slot's time, in the middle of the picture.
    """
    rows, cols = grid
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    picture = torch.stack([row.flatten(), col.flatten()], -1).to(slots.device, torch.float32)
    middle = torch.tensor([(rows - 1) / 2, (cols - 1) / 2], device=slots.device).expand(condition_tokens, 2)
    place = torch.cat([middle, picture])  # [P, 2]
    time = slots.to(torch.float32)[:, None, None].expand(-1, len(place), 1)
    return torch.cat([time, place.expand(len(slots), -1, -1)], -1)


def rotation(positions: Tensor, axes: tuple[int, int, int], theta: float) -> tuple[Tensor, Tensor]:
    """positions `[..., 3]` -> tables `[..., D]` for `rotate`, D = sum(axes): cosine twice, sine with its sign."""
    angles = []
    for axis, width in enumerate(axes):
        frequency = theta ** -(torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
        angles.append(positions[..., axis : axis + 1] * frequency)
    angle = torch.cat(angles, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel pairs (i, i + D/2) of x `[..., D]` by tables that broadcast to it; computed in x's dtype."""
    cos, sin = (part.to(x.dtype) for part in rotary)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
