# SPDX-License-Identifier: Apache-2.0
"""Painters of what moves in itself: the mouth and the eyes of a reference picture, and hands, which it lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.blocks import Down, Residual, Up, bounded, mlp, spread, warp

STEM = 4  # pixels a side that become one feature
UNSEEN = 3.0  # a part that was not learned yet begins nearly transparent
FEATHER = 8  # [px] over which a painted crop goes over into the picture around it


def feather(height: int, width: int) -> Tensor:
    """Weights `[height, width]`: 1 inside, falling to 0 at the border."""
    lines = []
    for size in (height, width):
        edge = torch.minimum(torch.arange(size), torch.arange(size).flip(0)).float()
        line = ((edge + 0.5) / FEATHER).clamp(max=1)
        lines.append(line * line * (3 - 2 * line))
    return lines[0][:, None] * lines[1][None, :]


class CropPainter(nn.Module):
    """A crop of the reference and the controls of a part -> the same crop with that part moved.

    The head stays where it is in the reference. A small flow moves what is there (lips, lids, the iris), a mask says
    where paint replaces it (teeth, the inside of the mouth, a closed lid).
    """

    def __init__(self, size: tuple[int, int], controls: int, widths: tuple[int, int], hidden: int) -> None:
        super().__init__()
        fine, coarse = widths
        self.size = size
        self.stem = nn.Conv2d(3 * STEM**2, fine, 3, padding=1)
        self.fine = Residual(fine)
        self.down = Down(fine, coarse)
        self.coarse = Residual(coarse)
        self.place = nn.Parameter(0.02 * torch.randn(1, coarse, size[0] // 8, size[1] // 8))
        self.vector = mlp(controls + coarse, hidden, 3)
        self.move = nn.ModuleList(Residual(coarse, hidden) for _ in range(3))
        self.up = Up(coarse, fine)
        self.merge = nn.Conv2d(2 * fine, fine, 1)
        self.draw = nn.ModuleList(Residual(fine, hidden) for _ in range(2))
        self.flow = nn.Conv2d(fine, 2, 3, padding=1)
        self.paint = nn.Conv2d(fine, 4 * STEM**2, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.bias)

    def features(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Features of reference crops `[N, 3, *size]` at strides 4 and 8: once a reference."""
        fine = self.fine(self.stem(F.pixel_unshuffle(crop, STEM)))
        return fine, self.coarse(self.down(fine))

    def forward(self, crop: Tensor, fine: Tensor, coarse: Tensor, controls: Tensor) -> Tensor:
        """`crop` `[N, 3, *size]` of the reference with its part moved; controls: `[N, k]` normalised."""
        vector = self.vector(torch.cat([controls, coarse.mean((2, 3))], 1))
        h = coarse + self.place
        for block in self.move:
            h = block(h, vector)
        h = self.merge(torch.cat([self.up(h), fine], 1))
        for block in self.draw:
            h = block(h, vector)
        flow = F.interpolate(bounded(self.flow(h).float(), 0.4), scale_factor=float(STEM), mode="bilinear")
        paint, mask = spread(self.paint(F.silu(h)), STEM).split([3, 1], 1)
        moved = warp(crop, flow)
        return moved + torch.sigmoid(mask - 1) * (paint - moved)


class SpritePainter(nn.Module):
    """Controls and an identity vector -> a picture with coverage `[N, 4, height, width]` of a part the reference lacks.

    It is painted in the part's own frame; where it goes is geometry, not learned (`models.codec.hands`).
    """

    def __init__(self, size: tuple[int, int], inputs: int, widths: tuple[int, int], hidden: int) -> None:
        super().__init__()
        fine, coarse = widths
        height, width = size
        self.vector = mlp(inputs, hidden, 3)
        self.place = nn.Parameter(0.1 * torch.randn(1, coarse, height // 8, width // 8))
        self.move = nn.ModuleList(Residual(coarse, hidden) for _ in range(4))
        self.up = Up(coarse, fine)
        self.draw = nn.ModuleList(Residual(fine, hidden) for _ in range(3))
        self.paint = nn.Conv2d(fine, 4 * STEM**2, 3, padding=1)
        self.register_buffer("covers", torch.tensor([False, False, False, True])[:, None, None], persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs `[N, k]` -> colours in [-1, 1] and coverage in 0 .. 1."""
        vector = self.vector(inputs)
        h = self.place.expand(inputs.shape[0], -1, -1, -1)
        for block in self.move:
            h = block(h, vector)
        h = self.up(h)
        for block in self.draw:
            h = block(h, vector)
        drawn = spread(self.paint(F.silu(h)), STEM)
        return torch.where(self.covers, torch.sigmoid(drawn - UNSEEN), drawn)  # splitting and joining takes longer
