# SPDX-License-Identifier: Apache-2.0
"""Whole frames for the renderer, drawn as they are needed: a character's reference picture, and other motions of it."""

from __future__ import annotations

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
from flowact_ros.models.codec.appearance import MOUTH, PARTS
from flowact_ros.models.codec.motion import CONTROL_NAMES, neutral, normalise

_MOUTH = sorted(MOUTH)
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
CHARACTERS = 1_000_000  # training characters have seeds below this


@dataclass(frozen=True)
class Cast:
    """Whose pictures are drawn: characters of `seeds`, or, where they are those of training, often named ones.

    without: a style that is left out
    """

    seeds: range = range(CHARACTERS)
    without: str | None = None

    def draw(self, rng: np.random.Generator) -> Identity:
        while True:
            if self.seeds.stop <= CHARACTERS and rng.random() < NAMED_SHARE:
                who = NAMED[sorted(NAMED)[rng.integers(len(NAMED))]]
            else:
                who = identity_from_seed(int(rng.integers(self.seeds.start, self.seeds.stop)))
            if who.style != self.without:
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


class Motions:
    """Single frames of motion: half of them wide random poses, half from a pool of performances, which is renewed."""

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

    def draw(self, rng: np.random.Generator, frames: int, *, among: int = 1) -> Tensor:
        """Raw motion `[frames, K]` of unrelated moments.

        among: of so many moments of performances the one whose mouth is farthest from rest is taken: laughs and wide
        vowels are a hundredth of all moments, and the hardest to paint.
        """
        self._renew(rng)
        rows = []
        for _ in range(frames):
            if rng.random() < 0.5:
                clip = self.pool[rng.integers(len(self.pool))]
                found = torch.from_numpy(clip[rng.integers(len(clip), size=among)])
                rows.append(found[normalise(found)[:, _MOUTH].square().sum(1).argmax()])
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
