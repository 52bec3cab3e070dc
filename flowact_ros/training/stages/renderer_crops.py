# SPDX-License-Identifier: Apache-2.0
"""Crops for the renderer's painters: only what a painter sees is drawn, so that a step takes a third of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import Identity, View, clamp_controls, feature_boxes
from flowact_ros.models.codec.appearance import EYES, MOUTH, PARTS, crop, shares
from flowact_ros.models.codec.hands import LOWEST
from flowact_ros.models.codec.motion import control_index, indices, neutral, normalise
from flowact_ros.models.config import RendererConfig
from flowact_ros.training.stages.renderer_data import (
    Cast,
    Motions,
    eyes_far,
    far_from_rest,
    levels,
    places_of,
    reference_motion,
    teeth_nearly_shut,
)

_LIPS, _LIDS = sorted(MOUTH), sorted({*EYES[0], *EYES[1]})
_PAINTERS = (((0,), _LIPS), ((1, 2), _LIDS))  # of which `PARTS`, and what moves there
MISPLACED = 1.0  # [px] deviation of the crops' places; with 3, painters draw the mean of all places, which is a blur
# Of so many moments of a performance a frame in turn shows the one that is hardest to paint by this. Every second frame
# has eyes of a moment of their own: each painter sees its own controls alone, and eyes that laugh are narrow.
LIPS = ((1, far_from_rest), (6, far_from_rest), (6, teeth_nearly_shut), (12, teeth_nearly_shut))
LOOKS = ((1, eyes_far), None, (4, eyes_far), None)
FEATURE_WEIGHT = 4.0  # of the pixels of a mouth or an eye, against those around it in the crop
REACH = (92, 104)  # [px] from a hand's palm to the left and upper border of its view
HAND_VIEW = (184, 248)  # [px] width and height: a turned hand, and most of the forearm below it
_HAND = {
    side: indices(*(f"hand_{side}_{k}" for k in ("x", "y", "angle", "open", "point")))
    for side in ("left", "right")
}


@dataclass(frozen=True)
class Faces:
    """Crops of mouth, left and right eye of R references, and of N frames whose head is where the reference's is.

    Each painter's pictures show its own controls' movement alone: an eye that moves in the mouth's crop would be noise
    to a painter that is not told of it.

    references: `[R, 3, h, w]` each; own `[R, K]`; of a frame: whose int `[N]`, motion `[N, K]`, pictures
    `[N, 3, h, w]` and weights `[N, 1, h, w]`, which are 0 where the crop is not seen
    """

    references: tuple[Tensor, ...]
    own: Tensor
    whose: Tensor
    motion: Tensor
    pictures: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


@dataclass(frozen=True)
class RaisedHands:
    """N views of a raised hand, `[N, 3, h, w]` with their corners (x, y), and of what is behind it; R references.

    reference `[R, 3, H, W]`; whose int `[N]`; motion `[N, K]`, normalised
    """

    reference: Tensor
    whose: Tensor
    motion: Tensor
    corners: list[tuple[int, int]]
    behind: Tensor
    picture: Tensor


def draw_faces(
    rng: np.random.Generator,
    motions: Motions,
    config: RendererConfig,
    corners_of: Callable[[Tensor], Tensor],
    *,
    references: int,
    frames: int,
    cast: Cast,
) -> Faces:
    """Crops at `corners_of` landmarks `[1, 3, 2]`, which are off as those that are read from a picture are."""
    rows = []
    for _ in range(references):
        who = cast.draw(rng)
        own = reference_motion(rng, motions)[None]
        drawn = own.repeat(1 + frames, 1)
        for i in range(frames):
            among, score = LIPS[i % len(LIPS)]
            lips = eyes = motions.draw(rng, 1, among=among, score=score)[0]
            if (hard := LOOKS[i % len(LOOKS)]) is not None:
                eyes = motions.draw(rng, 1, among=hard[0], score=hard[1])[0]
            drawn[1 + i, _LIDS] = eyes[_LIDS]
            drawn[1 + i, _LIPS] = lips[_LIPS]  # a smile, which both painters see, is that of the lips
        drawn = clamp_controls(drawn)
        off = torch.from_numpy(rng.normal(0, MISPLACED, (len(PARTS), 2))).float()
        corners = corners_of((places_of(who, drawn[:1], config.size) + off)[None])
        seen = shares(corners, config)
        row: list[Tensor] = [normalise(drawn)]
        for parts, columns in _PAINTERS:
            raw = own.repeat(1 + frames, 1)
            raw[:, columns] = drawn[:, columns]
            row += _crops(who, raw, config, corners[0], parts, seen)
        rows.append(row)
    motion, *parts = (torch.stack(part) for part in zip(*rows))
    return Faces(
        references=tuple(part[:, 0] for part in parts[::2]),
        own=motion[:, 0],
        whose=torch.arange(references).repeat_interleave(frames),
        motion=motion[:, 1:].flatten(0, 1),
        pictures=tuple(part[:, 1:].flatten(0, 1) for part in parts[::2]),
        weights=tuple(part[:, 1:].flatten(0, 1) for part in parts[1::2]),
    )


def _crops(
    who: Identity, raw: Tensor, config: RendererConfig, corners: Tensor, parts: Sequence[int], seen: list[Tensor]
) -> list[Tensor]:
    """Pictures `[T, 3, h, w]` and weights `[T, 1, h, w]` in turn, of some `PARTS`, all at int `[3, 2]`."""
    places = corners[list(parts)]
    sizes = torch.tensor([config.crop_sizes[i] for i in parts]).flip(1)  # width and height
    (left, top), (right, bottom) = places.amin(0).tolist(), (places + sizes).amax(0).tolist()
    pictures = levels(who, raw, config.size, View(left, top, right - left, bottom - top))
    boxes = feature_boxes(who, raw, config.size)
    out = []
    for i, corner in zip(parts, places):
        size = config.crop_sizes[i]
        out.append(crop(pictures, (corner - torch.tensor([left, top])).expand(len(raw), 2), size))
        out.append(seen[i] * _weight(boxes[PARTS[i]] - corner.repeat(2), size))
    return out


def _weight(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`[T, 1, *size]`: more inside the boxes (x0, y0, x1, y1) `[T, 4]` of a feature."""
    down, across = (torch.arange(side) for side in size)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    inside = ((down >= y0) & (down <= y1))[:, None, :, None] & ((across >= x0) & (across <= x1))[:, None, None, :]
    return 1 + (FEATURE_WEIGHT - 1) * inside.float()


def draw_hands(
    rng: np.random.Generator,
    motions: Motions,
    config: RendererConfig,
    *,
    references: int,
    frames: int,
    cast: Cast,
) -> RaisedHands:
    """Frames with one raised hand each, with and without that hand."""
    pictures, rows = [], []
    for r in range(references):
        who = cast.draw(rng)
        pictures.append(levels(who, clamp_controls(reference_motion(rng, motions)[None]), config.size)[0])
        for raw, side in (_raised(rng, motions.draw(rng, 1)) for _ in range(frames)):
            lowered = raw.clone()
            lowered[:, _HAND[side]] = neutral(1)[:, _HAND[side]]
            place = (raw[0, _HAND[side][:2]] * config.size).int()
            extent = [min(wanted, config.size) for wanted in HAND_VIEW]
            corner = [min(max(int(p) - reach, 0), config.size - e) for p, reach, e in zip(place, REACH, extent)]
            view = View(*corner, *extent)
            shown, behind = levels(who, torch.cat([raw, lowered]), config.size, view)
            rows.append((torch.tensor(r), normalise(raw)[0], (view.x, view.y), behind, shown))
    whose, motion, corners, behind, shown = zip(*rows)
    return RaisedHands(
        torch.stack(pictures), torch.stack(whose), torch.stack(motion), list(corners), torch.stack(behind),
        torch.stack(shown),
    )  # fmt: skip


def _raised(rng: np.random.Generator, raw: Tensor) -> tuple[Tensor, str]:
    """Motion `[1, K]` with one hand up, and its side: a performance's where it has one, else anywhere."""
    side = str(rng.choice(["left", "right"]))
    other = "right" if side == "left" else "left"
    if raw[0, control_index(f"hand_{side}_y")] > LOWEST - 0.1:
        x = rng.uniform(0.08, 0.54)
        point = rng.choice([0.0, 1.0, rng.random()], p=[0.6, 0.2, 0.2])
        pose = [x if side == "left" else 1 - x, rng.uniform(0.56, 1.12), rng.uniform(-0.9, 0.9), rng.random(), point]
        raw[0, _HAND[side]] = torch.tensor(pose, dtype=raw.dtype)
    raw[0, _HAND[other]] = neutral(1)[0, _HAND[other]]
    return clamp_controls(raw), side
