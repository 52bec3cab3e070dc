# SPDX-License-Identifier: Apache-2.0
"""Outlined people, as in comics: dark contours around every part, and light and shadow with a hard edge between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import sdf
from ..canvas import Colour, Window, blend, shade
from ..identity import Identity, rgb
from ..person import Person
from .flat import FlatBrush, crisp

INK = rgb("#20161c")
#: A contour reaches this far out of and into the shape that it surrounds.
OUT, IN = 1.3, 2.3


class OutlinedBrush(FlatBrush):
    lashes = 1.25
    lines = 1.0
    shadow, dark, light = 0.34, 0.16, 0.78

    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (512.0 / size)
        x, y = line[None, :], line[:, None]
        wall = torch.tensor(identity.back_bottom, device=device).view(3, 1, 1)
        spot = torch.tensor(identity.back_top, device=device).view(3, 1, 1)
        # Dots that grow downwards, as printed shades do.
        across, down = (x + y) / 15.0, (x - y) / 15.0
        dots = torch.cos(across * 3.1416) * torch.cos(down * 3.1416)
        shade_of = sdf.smoothstep(y, 120.0, 620.0)
        print_ = sdf.smoothstep(dots.abs(), 0.93 - 0.45 * shade_of, 1.0 - 0.45 * shade_of)
        picture = spot + (wall - spot) * (0.25 + 0.75 * print_ * sdf.smoothstep(y, 100.0, 300.0))
        return picture.clamp(0.0, 1.0)

    def fill(
        self,
        window: Window,
        d: Tensor,
        colour: Colour,
        tone: Tensor,
        dark: float = -0.30,
        light: float = 0.14,
    ) -> None:
        cover = window.canvas.cover
        window.paint(cover(d - OUT), ink(colour))
        self.tint(window, cover(d + IN), shade(colour, dark), shade(colour, light), tone)

    def mark(self, window: Window, alpha: Tensor, colour: Sequence[float], strength: float) -> None:
        window.paint(crisp(alpha, 0.45) * (0.85 * strength), colour)


def ink(colour: Sequence[float]) -> Colour:
    """The contour of a part: dark, with a hint of the part's own colour."""
    return blend(INK, shade(colour, -0.75), 0.45)


STYLE = Person(OutlinedBrush())
