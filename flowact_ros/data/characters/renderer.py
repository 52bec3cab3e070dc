# SPDX-License-Identifier: Apache-2.0
"""Frames of a character, the boxes of its features, and its true mouth opening."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import eyes, hands
from .canvas import Canvas, Placement, View
from .controls import CharacterError, Controls, check_controls, neutral
from .identity import Identity, check_identity
from .pose import FACE_H, Pose
from .styles import STYLES

#: Frames painted together at 512 pixels on a processor: enough to hide the cost of a call, few enough to stay in
#: its cache. Small pictures go in larger batches of as many pixels.
BATCH, LARGEST_BATCH = 2, 32
_SMALLEST, _LARGEST = 32, 4096


@lru_cache(maxsize=4)
def _background(identity: Identity, size: int, device: torch.device) -> Tensor:
    return STYLES[identity.style].background(identity, size, device)


def render(identity: Identity, controls: Tensor, size: int = 512, view: View | None = None) -> Tensor:
    """Paint a character, or what a `view` of the picture shows of it, which takes less time.

    controls: float [T, K] in the order of ``CONTROL_NAMES``, on any device. Returns uint8 [T, 3, size, size] (RGB), or
    [T, 3, view.height, view.width], on the same device. Raises CharacterError for controls of a wrong shape, not
    finite or out of limits, for an identity that cannot be drawn, for a size outside 32..4096 pixels, and for a view
    that is not inside the picture.
    """
    values = _checked(identity, controls, size)
    view = view or View(0, 0, size, size)
    if not (0 <= view.x < view.x + view.width <= size and 0 <= view.y < view.y + view.height <= size):
        raise CharacterError(f"{view} is not inside a picture of {size} pixels")
    style = STYLES[identity.style]
    frames = torch.empty(len(values), 3, view.height, view.width, dtype=torch.uint8, device=values.device)
    batch = LARGEST_BATCH
    if values.device.type == "cpu":
        batch = min(LARGEST_BATCH, max(BATCH, round(BATCH * 512.0**2 / (view.width * view.height))))
    with torch.inference_mode():
        backdrop = _background(identity, size, values.device)
        for start in range(0, len(values), batch):
            part = values[start : start + batch]
            canvas = Canvas(backdrop, len(part), view)
            style.paint(canvas, identity, Pose(identity, Controls(part)))
            frames[start : start + batch] = canvas.pixels.mul_(255.0).add_(0.5).clamp_(0.0, 255.0)
    return frames


def neutral_picture(identity: Identity, size: int) -> np.ndarray:
    """The character at rest, uint8 [size, size, 3]: its reference picture."""
    return render(identity, neutral(1), size=size)[0].permute(1, 2, 0).contiguous().numpy()


def _checked(identity: Identity, controls: Tensor, size: int) -> Tensor:
    check_identity(identity)
    if isinstance(size, bool) or not isinstance(size, int) or not _SMALLEST <= size <= _LARGEST:
        raise CharacterError(
            f"size is {size!r}; a whole number of pixels in {_SMALLEST}..{_LARGEST} is needed"
        )
    return check_controls(controls)


def feature_boxes(identity: Identity, controls: Tensor, size: int = 512) -> dict[str, Tensor]:
    """Boxes (x0, y0, x1, y1) in pixels, float [T, 4], of "mouth", "eye_left", "eye_right", "face",
    "hand_left" and "hand_right".

    Boxes are clipped to the picture; the box of a hand that is out of it is empty (all zeros). The mouth's box
    holds the lips in every shape up to the widest opening of its frame; an eye's box holds the lids and lashes.
    Errors as ``render``.
    """
    pose = Pose(identity, Controls(_checked(identity, controls, size)))
    shape = pose.mouth_shape
    skew = shape.skew.abs()
    boxes = {
        "mouth": _box(
            pose.mouth,
            shape.half_width + shape.shear.abs() + 8.0,
            shape.rise + shape.upper + skew + 12.0,
            shape.drop + shape.lower + skew + 12.0,
        )
    }
    for name, side in (("eye_left", -1), ("eye_right", 1)):
        reach = eyes.EYE_HALF * identity.eye_size + 7.0
        tall = reach * STYLES[identity.style].eye_aspect(identity) + 5.0
        boxes[name] = _box(pose.eye(side), reach * pose.one, tall * pose.one, tall * pose.one)
    bottom = FACE_H + identity.chin + pose.chin_drop + 6.0
    boxes["face"] = _box(
        pose.head, (pose.width + 6.0) * pose.one, 104.0 * pose.one, bottom + 14.0 * pose.sin_pitch.abs()
    )
    for name, side in (("hand_left", -1), ("hand_right", 1)):
        boxes[name] = hands.hand_box(pose, side)
    boxes = {name: (box * (size / 512.0)).clamp(0.0, float(size)) for name, box in boxes.items()}
    for box in boxes.values():
        box[(box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])] = 0.0
    return boxes


def landmarks(identity: Identity, controls: Tensor, size: int = 512) -> dict[str, Tensor]:
    """Centres (x, y) in pixels, float [T, 2], of "mouth", "eye_left" and "eye_right".

    They are the features' own anchors, so that opening the mouth or moving the gaze does not move them; they are not
    clipped to the picture. Errors as ``render``.
    """
    pose = Pose(identity, Controls(_checked(identity, controls, size)))
    places = {"mouth": pose.mouth, "eye_left": pose.eye(-1), "eye_right": pose.eye(1)}
    return {name: torch.stack([p.x, p.y], dim=-1) * (size / 512.0) for name, p in places.items()}


def _box(place: Placement, half: Tensor, up: Tensor, down: Tensor) -> Tensor:
    corners = [place.point(u, v) for u in (-half, half) for v in (-up, down)]
    xs, ys = torch.stack([p[0] for p in corners]), torch.stack([p[1] for p in corners])
    return torch.stack([xs.amin(0), ys.amin(0), xs.amax(0), ys.amax(0)], dim=-1)


def mouth_opening(identity: Identity, controls: Tensor) -> Tensor:
    """Height of the gap between the inner lips in the mouth's middle, as drawn: fraction of the canvas, float [T]."""
    pose = Pose(identity, Controls(_checked(identity, controls, 512)))
    return pose.mouth_shape.gap * pose.mouth.sy / 512.0
