# SPDX-License-Identifier: Apache-2.0
"""The styles that a character can be drawn in. A new one is a file here with a ``STYLE``, named in ``STYLES``."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..canvas import Canvas
from ..identity import Identity
from ..pose import Pose
from . import flat, outlined, robot, soft


class Style(Protocol):
    """Draws whole characters; where everything lies is the shared geometry's business (``pose``)."""

    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        """What is behind a character, float [3, size, size] in 0..1."""
        ...

    def paint(self, canvas: Canvas, identity: Identity, pose: Pose) -> None:
        """Paint bust, head and hands over the background."""
        ...

    def eye_aspect(self, identity: Identity) -> float:
        """Height of an eye over its width."""
        ...


STYLES: dict[str, Style] = {
    "soft": soft.STYLE,
    "flat": flat.STYLE,
    "outlined": outlined.STYLE,
    "robot": robot.STYLE,
}
