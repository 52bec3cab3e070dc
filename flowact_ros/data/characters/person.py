# SPDX-License-Identifier: Apache-2.0
"""A person, part by part from back to front, laid on with the brush of a style."""

from __future__ import annotations

import torch
from torch import Tensor

from . import body, eyes, hair, hands, head, mouth
from .brush import Brush
from .canvas import Canvas
from .identity import Identity
from .pose import Pose


class Person:
    """A style of drawing people (see ``styles.Style``)."""

    def __init__(self, brush: Brush) -> None:
        self.brush = brush

    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        return self.brush.background(identity, size, device)

    def eye_aspect(self, identity: Identity) -> float:
        return identity.eye_aspect

    def paint(self, canvas: Canvas, identity: Identity, pose: Pose) -> None:
        brush = self.brush
        hair.paint_back(brush, canvas, identity, pose)
        body.paint_neck(brush, canvas, identity, pose)
        body.paint_clothes(brush, canvas, identity, pose)
        hair.paint_hanging(brush, canvas, identity, pose)
        head.paint_ears(brush, canvas, identity, pose)
        head.paint_skin(brush, canvas, identity, pose)
        # The upper lip of a mouth wide open comes before the nose.
        head.paint_nose(brush, canvas, identity, pose)
        head.paint_beard(brush, canvas, identity, pose)
        mouth.paint_mouth(brush, canvas, identity, pose)
        for side in (-1, 1):
            eyes.paint_eye(brush, canvas, identity, pose, side)
        hair.paint_front(brush, canvas, identity, pose)
        for side in (-1, 1):
            eyes.paint_brow(brush, canvas, identity, pose, side)
        head.paint_glasses(canvas, identity, pose)
        for side in (-1, 1):
            hands.paint_hand(brush, canvas, pose, side, identity.skin, identity.cloth)
