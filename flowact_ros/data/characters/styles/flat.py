# SPDX-License-Identifier: Apache-2.0
"""Flat people, as in vector graphics: every part has its colour and one crisp shadow, and there are no gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import sdf
from ..brush import Brush
from ..canvas import Window, blend
from ..identity import Identity
from ..person import Person


def crisp(alpha: Tensor, half: float = 0.3) -> Tensor:
    """A soft spot as a patch with an edge, where its coverage is ``half``."""
    return sdf.smoothstep(alpha, half - 0.03, half + 0.03)


class FlatBrush(Brush):
    gradients = False
    lashes = 0.85
    #: Tone below which a part is in its shadow, and how far shadow and light reach towards the darkest and lightest.
    shadow, dark, light = 0.31, 0.40, 0.74

    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (512.0 / size)
        x, y = line[None, :], line[:, None]
        wall = torch.tensor(blend(identity.back_top, identity.back_bottom, 0.55), device=device).view(3, 1, 1)
        spot = torch.tensor(blend(identity.back_top, identity.back_bottom, 0.05), device=device).view(3, 1, 1)
        disc = sdf.cover(sdf.circle(x - 256.0, y - 250.0, 212.0), 1.5 * 512.0 / size)
        return (wall + (spot - wall) * disc).clamp(0.0, 1.0)

    def tint(
        self, window: Window, alpha: Tensor, dark: Sequence[float], light: Sequence[float], tone: Tensor
    ) -> None:
        lit = sdf.smoothstep(tone, self.shadow - 0.012, self.shadow + 0.012)
        window.paint(alpha, window.mix(blend(dark, light, self.dark), blend(dark, light, self.light), lit))

    def glaze(self, window: Window, alpha: Tensor, colour: Sequence[float]) -> None:
        """Nothing: there are no soft lights."""

    def mark(self, window: Window, alpha: Tensor, colour: Sequence[float], strength: float) -> None:
        window.paint(crisp(alpha) * (0.7 * strength), colour)


STYLE = Person(FlatBrush())
