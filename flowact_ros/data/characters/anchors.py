# SPDX-License-Identifier: Apache-2.0
"""Points of a character that can be followed from frame to frame: where the head, the body and the room really go."""

from __future__ import annotations

import torch
from torch import Tensor

from .body import torso
from .controls import Controls
from .identity import Identity
from .pose import Pose

#: Points of the frontal face (u, v), see `pose.Pose.turned`: eyes, nose, mouth, chin, brow, cheeks, temples, jaw.
FACE = (
    (-47, 2), (47, 2), (0, 0), (0, 34), (0, 71), (0, 112), (-22, 80), (22, 80), (0, -70), (-45, -45), (45, -45),
    (-66, 44), (66, 44), (-85, -15), (85, -15), (-55, 88), (55, 88),
)  # fmt: skip
#: Points around a feature, in its own frame: an eye and a mouth move as a whole with the head, and an error of a pixel
#: is seen there first.
AROUND = tuple((x, y) for x in (-26, 0, 26) for y in (-16, 0, 16))
#: Points of the torso: collar, chest and shoulders.
BODY = ((0, 40), (-60, 50), (60, 50), (-120, 70), (120, 70), (0, 90))
#: Points that never move.
ROOM = ((24, 24), (488, 24), (24, 200), (488, 200), (256, 16), (60, 110), (452, 110))


def anchors(identity: Identity, controls: Tensor, size: int = 512) -> Tensor:
    """Places (x, y) in pixels of `FACE`, `AROUND` the eyes and the mouth, `BODY` and `ROOM` in frames of these controls
    `[T, K]`: float `[T, P, 2]`.

    Where mouth and eyes go by themselves is left out: these are the movements of head and body.
    """
    pose = Pose(identity, Controls(controls))
    places = [pose.feature(u, v) for u, v in FACE]
    points = [torch.stack([p.x, p.y], -1) for p in places]
    for feature in (pose.eye(-1), pose.eye(1), pose.feature(0.0, identity.mouth_y, out=4.0)):
        points += [torch.stack(feature.point(float(u), float(v)), -1) for u, v in AROUND]
    base = torso(pose)
    points += [torch.stack(base.point(float(u), float(v)), -1) for u, v in BODY]
    points += [torch.tensor([x, y], dtype=torch.float32).expand(len(controls), 2) for x, y in ROOM]
    return torch.stack(points, 1) * (size / 512.0)
