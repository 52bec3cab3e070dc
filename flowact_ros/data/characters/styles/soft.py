# SPDX-License-Identifier: Apache-2.0
"""Soft-shaded people: gradients, soft shadows, a glow behind the head."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import sdf
from ..brush import Brush
from ..identity import Identity
from ..person import Person


def backdrop(identity: Identity, size: int, device: torch.device) -> Tensor:
    """A gradient, a large soft disc behind the head, darker corners; [3, size, size]."""
    line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (512.0 / size)
    x, y = line[None, :], line[:, None]
    top = torch.tensor(identity.back_top, device=device).view(3, 1, 1)
    bottom = torch.tensor(identity.back_bottom, device=device).view(3, 1, 1)
    picture = top + (bottom - top) * sdf.smoothstep(y + 0.12 * x, 0.0, 560.0)
    disc = sdf.cover(sdf.circle(x - 256.0, y - 232.0, 205.0), 26.0)
    picture = picture + (1.0 - picture) * (disc * (0.30 if sum(identity.back_top) > 1.5 else 0.10))
    corners = sdf.smoothstep(torch.sqrt(((x - 256.0) / 380.0) ** 2 + ((y - 230.0) / 380.0) ** 2), 0.55, 1.25)
    return (picture * (1.0 - 0.16 * corners)).clamp(0.0, 1.0)


class SoftBrush(Brush):
    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        return backdrop(identity, size, device)


STYLE = Person(SoftBrush())
