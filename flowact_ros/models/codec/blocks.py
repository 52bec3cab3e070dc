# SPDX-License-Identifier: Apache-2.0
"""Parts that the codec's networks share: residual blocks, stride changes without blur, and warping."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def spread(x: Tensor, factor: int) -> Tensor:
    """Pixel shuffle `[N, C f f, h, w]` -> `[N, C, f h, f w]`, in plain memory order: for channels last, which
    convolutions give, `F.pixel_shuffle` takes many times as long in torch. That of a runtime takes half as long.
    """
    if torch.jit.is_tracing():
        return F.pixel_shuffle(x, factor)
    n, channels, height, width = x.shape
    parts = x.permute(0, 2, 3, 1).reshape(n, height, width, channels // factor**2, factor, factor)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(n, channels // factor**2, height * factor, width * factor)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a skip; with `condition` the middle is scaled and shifted by a vector `[N, M]`."""

    def __init__(self, width: int, condition: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        self.modulation = nn.Linear(condition, 2 * width) if condition else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        h = self.first(F.silu(x))
        if self.modulation is not None:
            scale, shift = self.modulation(vector)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.second(F.silu(h))


class Down(nn.Module):
    """Half the size: four pixels become one, with four times the channels mixed to `outputs`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """Twice the size: one pixel becomes four."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return spread(self.mix(x), 2).contiguous(memory_format=torch.channels_last)


def mlp(inputs: int, width: int, layers: int = 2) -> nn.Sequential:
    """Linear layers with SiLU behind each."""
    sizes = [inputs, *[width] * layers]
    return nn.Sequential(*(m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.SiLU())))


def positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres of the pixels as (x, y) in [-1, 1], `[2, height, width]`."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    return torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)])


def warp(x: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample `x` `[N, C, H, W]` at its own places plus `flow` `[N, 2, h, w]` (x, y; 2 is the whole picture).

    One `x` `[1, C, H, W]` may serve all N; it is not copied, which for features at stride 4 takes as long as sampling.
    """
    grid = (positions(flow.shape[2], flow.shape[3], flow.device) + flow).permute(0, 2, 3, 1)
    how = {"mode": mode, "padding_mode": "border", "align_corners": False}
    _, *others = x.split(1)
    if others:
        return F.grid_sample(x, grid, **how)
    return torch.cat([F.grid_sample(x, places, **how) for places in grid.split(1)])


def spread_flow(flow: Tensor, weights: Tensor) -> Tensor:
    """`flow` `[N, 2, h, w]` at twice the size: each place is a convex combination of the 3 x 3 nearest cells.

    weights: logits `[N, 36, h, w]`, four places of a cell by nine cells. What moves apart keeps a sharp edge between
    two cells, where interpolation would smear it over both (RAFT, arXiv 2003.12039, section 3.3).
    """
    height, width = flow.shape[2:]
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    shares = torch.softmax(weights.float().unflatten(1, (4, 9)), 2)
    finer = torch.zeros_like(flow)[:, None]
    for i in range(9):
        row, column = divmod(i, 3)
        cell = padded[:, None, :, row : row + height, column : column + width]
        finer = finer + shares[:, :, i, None] * cell
    finer = finer.unflatten(1, (2, 2)).permute(0, 3, 4, 1, 5, 2)  # [N, 2, h, 2, w, 2]
    return finer.reshape(flow.shape[0], 2, 2 * height, 2 * width)


def median_flow(flow: Tensor) -> Tensor:
    """`flow` `[N, 2, h, w]`, each of its numbers the median of the 5 x 5 around it; the border is repeated.

    Where two parts meet, single cells follow the wrong one, which gives outlines teeth. A median takes such cells away
    and keeps the edge (Sun, Roth, Black: Secrets of optical flow estimation, CVPR 2010, section 4).
    """
    padded = F.pad(flow, (2, 2, 2, 2), mode="replicate")
    return torch.stack([frame.unfold(1, 5, 1).unfold(2, 5, 1).flatten(3).median(3).values for frame in padded])


def interpolating() -> Tensor:
    """Logits `[36]` by which `spread_flow` interpolates bilinearly."""
    line = torch.tensor([[0.25, 0.75, 1e-4], [1e-4, 0.75, 0.25]])
    return (line[:, None, :, None] * line[None, :, None, :]).flatten().log()


def bounded(flow: Tensor, limit: float) -> Tensor:
    """The same flow for small values, never beyond `limit`: without a bound training diverges."""
    return limit * torch.tanh(flow / limit)
