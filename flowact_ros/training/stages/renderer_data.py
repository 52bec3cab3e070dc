# SPDX-License-Identifier: Apache-2.0
"""Whole frames for the renderer, drawn as they are needed: a character's reference picture, and other motions of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import (
    NAMED,
    Identity,
    View,
    clamp_controls,
    feature_boxes,
    identity_from_seed,
    landmarks,
    render,
)
from flowact_ros.data.characters.anchors import anchors
from flowact_ros.data.clips import make_performance
from flowact_ros.data.poses import random_movement
from flowact_ros.models.codec.appearance import EYES, MOUTH, PARTS
from flowact_ros.models.codec.motion import CONTROL_NAMES, indices, neutral, normalise

_MOUTH, _EYES = sorted(MOUTH), sorted({*EYES[0], *EYES[1]})
_ROWS = indices("jaw", "lip_press", "smile", "lip_upper", "lip_lower", "teeth")  # what `teeth_nearly_shut` looks at
HANDS = [i for i, name in enumerate(CONTROL_NAMES) if name.startswith("hand")]
WEIGHTS = (
    ("face", 2.0),
    ("hand_left", 3.0),
    ("hand_right", 3.0),
    ("mouth", 6.0),
    ("eye_left", 5.0),
    ("eye_right", 5.0),
)
NAMED_SHARE = 0.35
OFTEN_SHARE = 1 / 3
CHARACTERS = 1_000_000  # training characters have seeds below this


@dataclass(frozen=True)
class Cast:
    """Whose pictures are drawn: characters of `seeds`, or, where they are those of training, often named ones.

    without: a style that is left out; often: one that at least `OFTEN_SHARE` of the drawn have
    """

    seeds: range = range(CHARACTERS)
    without: str | None = None
    often: str | None = None

    def draw(self, rng: np.random.Generator) -> Identity:
        wanted = self.often if self.often and rng.random() < OFTEN_SHARE else None
        while True:
            if self.seeds.stop <= CHARACTERS and rng.random() < NAMED_SHARE:
                who = NAMED[sorted(NAMED)[rng.integers(len(NAMED))]]
            else:
                who = identity_from_seed(int(rng.integers(self.seeds.start, self.seeds.stop)))
            if who.style != self.without and wanted in (None, who.style):
                return who


@dataclass(frozen=True)
class Batch:
    """R references and N frames of them. Pictures in [-1, 1], motion normalised.

    reference `[R, 3, H, W]`, own `[R, K]`, landmarks `[R, 3, 2]` in pixels; of a frame: whose int `[N]`, motion
    `[N, K]`, picture `[N, 3, H, W]`, weight `[N, 1, H, W]`, anchors `[N, P, 2, 2]`: points in the reference and where
    they are in the frame, (x, y) in pixels
    """

    reference: Tensor
    own: Tensor
    landmarks: Tensor
    whose: Tensor
    motion: Tensor
    picture: Tensor
    weight: Tensor
    anchors: Tensor


def far_from_rest(raw: Tensor) -> Tensor:
    """How far mouths `[N, K]` are from rest, `[N]`: laughs and wide vowels."""
    return normalise(raw)[:, _MOUTH].square().sum(1)


def eyes_far(raw: Tensor) -> Tensor:
    """How far eyes `[N, K]` are from rest, `[N]`: glances, wide and narrow lids, raised brows."""
    return normalise(raw)[:, _EYES].square().sum(1)


def teeth_nearly_shut(raw: Tensor) -> Tensor:
    """How much both rows of teeth show while they nearly touch, `[N]`: the seam between them is a pixel or two high."""
    jaw, press, smile, upper, lower, teeth = raw[:, _ROWS].unbind(1)
    return (1 - press) * (teeth + lower + 0.3 * upper + 0.3 * smile.clamp_min(0)) - 3 * jaw


class Motions:
    """Single frames of motion: wide random poses, and moments from a pool of performances, which is renewed."""

    def __init__(self, split: str, pool: int, seconds: float = 12.0) -> None:
        self.split, self.size, self.seconds = split, pool, seconds
        self.pool: list[np.ndarray] = []

    def stretch(self, rng: np.random.Generator, frames: int) -> Tensor:
        """Raw motion `[frames, K]` of consecutive moments of a performance."""
        self._renew(rng)
        clip = self.pool[rng.integers(len(self.pool))]
        start = rng.integers(len(clip) - frames + 1)
        return torch.from_numpy(clip[start : start + frames])

    def _renew(self, rng: np.random.Generator) -> None:
        if len(self.pool) < self.size or rng.random() < 0.02:
            self.pool.append(
                make_performance(int(rng.integers(1 << 30)), self.split, self.seconds).performance.controls
            )
            self.pool = self.pool[-self.size :]

    def draw(
        self,
        rng: np.random.Generator,
        frames: int,
        *,
        among: int = 1,
        score: Callable[[Tensor], Tensor] = far_from_rest,
    ) -> Tensor:
        """Raw motion `[frames, K]` of unrelated moments.

        among: 1: every second one is a random pose; else the one with the highest score of so many moments of a
        performance: what is hardest to paint is a hundredth of all moments.
        """
        self._renew(rng)
        rows = []
        for _ in range(frames):
            if among > 1 or rng.random() < 0.5:
                clip = self.pool[rng.integers(len(self.pool))]
                found = torch.from_numpy(clip[rng.integers(len(clip), size=among)])
                rows.append(found[score(found).argmax()])
            else:
                rows.append(random_movement(rng, 8)[rng.integers(8)])
        return clamp_controls(torch.stack(rows))


def reference_motion(rng: np.random.Generator, motions: Motions) -> Tensor:
    """Raw `[K]` of a reference picture: most are neutral, others look, smile or speak a little; none shows hands."""
    own = neutral(1)[0]
    if rng.random() < 0.25:
        other = motions.draw(rng, 1)[0]
        own = own + float(rng.uniform(0.2, 1.0)) * (other - own)
        own[HANDS] = neutral(1)[0, HANDS]
    return own


def draw_batch(
    rng: np.random.Generator, motions: Motions, size: int, *, references: int, frames: int, cast: Cast
) -> Batch:
    """References with `frames` frames of any motion each."""
    rows = []
    for _ in range(references):
        who = cast.draw(rng)
        raw = clamp_controls(torch.cat([reference_motion(rng, motions)[None], motions.draw(rng, frames)]))
        rows.append(_drawn(who, raw, size))
    pictures, weights, raws, places, points = (torch.stack(part) for part in zip(*rows))
    return Batch(
        reference=pictures[:, 0],
        own=normalise(raws[:, 0]),
        landmarks=places,
        whose=torch.arange(references).repeat_interleave(frames),
        motion=normalise(raws[:, 1:]).flatten(0, 1),
        picture=pictures[:, 1:].flatten(0, 1),
        weight=weights[:, 1:].flatten(0, 1),
        anchors=torch.stack([points[:, :1].expand(-1, frames, -1, -1), points[:, 1:]], 3).flatten(0, 1),
    )


def levels(who: Identity, raw: Tensor, size: int, view: View | None = None) -> Tensor:
    """Pictures in [-1, 1] of a character with motion in its own units."""
    return render(who, raw, size, view).float() / 127.5 - 1


def _drawn(who: Identity, raw: Tensor, size: int) -> tuple[Tensor, ...]:
    pictures = levels(who, raw, size)
    boxes = feature_boxes(who, raw, size)
    weight = torch.ones(len(raw), 1, size, size)
    for name, value in WEIGHTS:
        for i, (x0, y0, x1, y1) in enumerate(boxes[name].tolist()):
            part = weight[i, :, int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
            part.clamp_(min=value)
    return pictures, weight, raw, places_of(who, raw[:1], size), anchors(who, raw, size)


def places_of(who: Identity, raw: Tensor, size: int) -> Tensor:
    """Centres (x, y) of `PARTS` in pixels, `[3, 2]`, in the picture with motion `[1, K]` in its own units."""
    found = landmarks(who, raw, size)
    return torch.stack([found[name][0] for name in PARTS])
