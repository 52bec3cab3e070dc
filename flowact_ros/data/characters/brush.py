# SPDX-License-Identifier: Apache-2.0
"""How a style lays on colour: the parts of a person say what they are, a brush says how it looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .canvas import Colour, Window, shade
from .identity import Identity


class Brush(ABC):
    """A soft brush: every shape is a gradient from its shadow to its light. Styles change what they do differently."""

    #: Soft lights and shadows are laid over shapes; parts skip what only ``glaze`` would paint.
    gradients = True
    #: Thickness of lash lines and brows, of the lines that draw nose and lips, and of the pupils' lights.
    lashes = 1.0
    lines = 0.0

    @abstractmethod
    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        """The backdrop, [3, size, size]."""

    def tint(
        self, window: Window, alpha: Tensor, dark: Sequence[float], light: Sequence[float], tone: Tensor
    ) -> None:
        """Cover ``alpha`` with colours from ``dark`` (tone 0) to ``light`` (tone 1)."""
        window.paint(alpha, window.mix(dark, light, tone.clamp(0.0, 1.0)))

    def fill(
        self,
        window: Window,
        d: Tensor,
        colour: Colour,
        tone: Tensor,
        dark: float = -0.30,
        light: float = 0.14,
    ) -> None:
        """Fill the inside of a signed distance with a colour, lit by ``tone``."""
        self.tint(window, window.canvas.cover(d), shade(colour, dark), shade(colour, light), tone)

    def glaze(self, window: Window, alpha: Tensor, colour: Sequence[float]) -> None:
        """A soft light or shadow over what is there."""
        window.paint(alpha, colour)

    def mark(self, window: Window, alpha: Tensor, colour: Sequence[float], strength: float) -> None:
        """A light or a patch of colour with a shape of its own."""
        window.paint(alpha * strength, colour)
