# SPDX-License-Identifier: Apache-2.0
"""A batch of pictures painted part by part, each part only inside its own box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import sdf

UNITS = 512.0
Colour = tuple[float, float, float]


def per_frame(value: Tensor) -> Tensor:
    """[B] -> [B, 1, 1], to be used with pixel grids."""
    return value[:, None, None]


@dataclass(frozen=True)
class Placement:
    """Where a part lies, per frame: origin (units), rotation, and scale of its own axes; all [B]."""

    x: Tensor
    y: Tensor
    cos: Tensor
    sin: Tensor
    sx: Tensor
    sy: Tensor

    def point(self, u: Tensor | float, v: Tensor | float) -> tuple[Tensor, Tensor]:
        """Canvas position of the part's own point (u, v)."""
        a, b = u * self.sx, v * self.sy
        return self.x + a * self.cos - b * self.sin, self.y + a * self.sin + b * self.cos

    def bounds(self, left: float, top: float, right: float, bottom: float) -> tuple[Tensor, ...]:
        """Upright box (x0, y0, x1, y1), each [B], around the part's own box."""
        corners = [self.point(u, v) for u in (left, right) for v in (top, bottom)]
        xs = torch.stack([c[0] for c in corners])
        ys = torch.stack([c[1] for c in corners])
        return xs.amin(0), ys.amin(0), xs.amax(0), ys.amax(0)


@dataclass(frozen=True)
class Gradient:
    """Colours that follow an amount: ``start + amount * change``; evaluated one frame at a time."""

    start: Tensor
    change: Tensor
    amount: Tensor

    def of(self, frame: int) -> Tensor:
        return self.start + self.amount[frame] * self.change


class Window:
    """A box of the canvas, the same size in every frame but placed freely; paints into the canvas."""

    def __init__(self, canvas: Canvas, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> None:
        view, scale = canvas.view, canvas.scale
        edges = torch.stack([x0, y0, x1, y1]).mul(scale).tolist()
        self.canvas = canvas
        self.width = min(view.width, int(max(b - a for a, b in zip(edges[0], edges[2]))) + 3)
        self.height = min(view.height, int(max(b - a for a, b in zip(edges[1], edges[3]))) + 3)
        self.left = [min(max(int(a) - 1, view.x), view.x + view.width - self.width) for a in edges[0]]
        self.top = [min(max(int(a) - 1, view.y), view.y + view.height - self.height) for a in edges[1]]
        device = canvas.pixels.device
        left = torch.tensor(self.left, dtype=torch.float32, device=device)
        top = torch.tensor(self.top, dtype=torch.float32, device=device)
        across = torch.arange(self.width, dtype=torch.float32, device=device) + 0.5
        down = torch.arange(self.height, dtype=torch.float32, device=device) + 0.5
        #: Canvas coordinates of the pixel centres, [B, 1, w] and [B, h, 1].
        self.x = (left[:, None, None] + across[None, None, :]) / scale
        self.y = (top[:, None, None] + down[None, :, None]) / scale

    def local(self, place: Placement) -> tuple[Tensor, Tensor]:
        """Pixel centres in the part's own units, each [B, h, w]."""
        dx, dy = self.x - per_frame(place.x), self.y - per_frame(place.y)
        cos, sin = per_frame(place.cos), per_frame(place.sin)
        u = dx * (cos / per_frame(place.sx)) + dy * (sin / per_frame(place.sx))
        v = dy * (cos / per_frame(place.sy)) - dx * (sin / per_frame(place.sy))
        return u, v

    def paint(self, alpha: Tensor, colour: Sequence[float] | Gradient) -> None:
        """Lay a colour or a gradient over the canvas where ``alpha`` [B, h, w] covers."""
        pixels, view = self.canvas.pixels, self.canvas.view
        alpha = alpha.expand(len(self.left), self.height, self.width)
        flat = None if isinstance(colour, Gradient) else pixels.new_tensor(colour).view(3, 1, 1)
        # Frame by frame: the boxes differ, and one frame's box stays in the processor's cache.
        for i, (left, top) in enumerate(zip(self.left, self.top)):
            x, y = left - view.x, top - view.y
            target = pixels[i, :, y : y + self.height, x : x + self.width]
            target.lerp_(colour.of(i) if flat is None else flat, alpha[i])

    def mix(self, first: Sequence[float], second: Sequence[float], amount: Tensor) -> Gradient:
        """Colours going from ``first`` (amount 0) to ``second`` (amount 1), to be painted."""
        a = amount.new_tensor(first).view(3, 1, 1)
        return Gradient(
            a,
            amount.new_tensor(second).view(3, 1, 1) - a,
            amount.expand(len(self.left), self.height, self.width),
        )


class View(NamedTuple):
    """A part of a picture, in pixels: what is painted of it."""

    x: int
    y: int
    width: int
    height: int


class Canvas:
    """Float pictures [B, 3, height, width] in 0..1 of a view of a background [3, size, size]."""

    def __init__(self, background: Tensor, frames: int, view: View) -> None:
        self.view = view
        self.scale = background.shape[-1] / UNITS
        seen = background[:, view.y : view.y + view.height, view.x : view.x + view.width]
        self.pixels = seen[None].repeat(frames, 1, 1, 1)
        #: Width of an antialiased edge in canvas units.
        self.edge = 1.5 / self.scale

    def window(self, place: Placement, left: float, top: float, right: float, bottom: float) -> Window:
        """The window around a part's own box."""
        return Window(self, *place.bounds(left, top, right, bottom))

    def open(
        self, place: Placement, left: float, top: float, right: float, bottom: float
    ) -> tuple[Window, Tensor, Tensor]:
        """Window around a part's own box and the pixel centres in the part's own units."""
        window = self.window(place, left, top, right, bottom)
        u, v = window.local(place)
        return window, u, v

    def cover(self, d: Tensor) -> Tensor:
        """Antialiased coverage of a signed distance."""
        return sdf.cover(d, self.edge)


def shade(colour: Sequence[float], amount: float) -> Colour:
    """Lighter (amount > 0) or darker (amount < 0) relative of a colour.

    Shadows of warm colours (skin, wood, brass) turn warmer and richer, those of grey and blue ones stay cool.
    """
    r, g, b = colour
    if amount >= 0:
        return (r + (1 - r) * amount, g + (1 - g) * amount, b + (1 - b) * amount)
    k = -amount
    warm = min(1.0, max(0.0, (r - b) / 0.22))
    return (
        r * (1 - (0.98 - 0.20 * warm) * k),
        g * (1 - (0.94 + 0.06 * warm) * k),
        b * (1 - (0.84 + 0.12 * warm) * k),
    )


def blend(a: Sequence[float], b: Sequence[float], t: float) -> Colour:
    """Colour between ``a`` (t = 0) and ``b`` (t = 1)."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)
