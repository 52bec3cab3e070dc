# SPDX-License-Identifier: Apache-2.0
"""Points that are followed from frame to frame lie on what moves."""

from __future__ import annotations

import torch

from flowact_ros.data.characters import identity_from_seed, landmarks
from flowact_ros.data.characters.anchors import AROUND, BODY, FACE, ROOM, anchors
from flowact_ros.models.codec.motion import control_index, neutral

SIZE = 240


def test_points_around_features_move_with_them_and_the_room_stays() -> None:
    who = identity_from_seed(77)
    raw = neutral(3)
    raw[1, control_index("head_yaw")] = 0.4
    raw[2, control_index("head_roll")] = -0.25
    points = anchors(who, raw, SIZE)
    assert points.shape == (3, len(FACE) + 3 * len(AROUND) + len(BODY) + len(ROOM), 2)
    found = landmarks(who, raw, SIZE)
    middle = AROUND.index((0, 0))
    for i, name in enumerate(("eye_left", "eye_right", "mouth")):
        around = points[:, len(FACE) + i * len(AROUND) :][:, : len(AROUND)]
        assert float((around[:, middle] - found[name]).abs().max()) < 1.0, name
        assert float((around[1] - around[0]).norm(dim=1).min()) > 8.0, name  # the head has turned
    # A roll turns the points about each other; their distances stay.
    spread = torch.cdist(
        points[:, len(FACE) : len(FACE) + len(AROUND)], points[:, len(FACE) : len(FACE) + len(AROUND)]
    )
    assert torch.allclose(spread[2], spread[0], atol=0.05)
    assert bool((points[:, -len(ROOM) :] == points[:1, -len(ROOM) :]).all())
