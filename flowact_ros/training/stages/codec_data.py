# SPDX-License-Identifier: Apache-2.0
"""Pairs of frames of prepared footage, for the codec: one of a shot is the reference, others are to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import clamp_controls
from flowact_ros.data.clips import make_performance
from flowact_ros.data.footage_store import Shot
from flowact_ros.data.poses import random_movement
from flowact_ros.models.codec.motion import CONTROLS
from flowact_ros.models.config import RendererConfig
from flowact_ros.training.stages.renderer import NOISE
from flowact_ros.training.stages.renderer_data import Motions

NOISY = 0.25  # share of frames whose motion has noise: they must stay sharp under a denoiser's
HELD = 0.2  # share of each shot, its end, that is kept for the figures
FACE, EYES, MOUTH = 2.0, 5.0, 6.0  # weights of pixels, as of drawn characters


@dataclass(frozen=True)
class Pairs:
    """R references and N frames of the same shots. Pictures in [-1, 1].

    reference `[R, 3, H, W]`, landmarks `[R, 3, 2]` in pixels; of a frame: whose int `[N]`, picture `[N, 3, H, W]`,
    places `[N, 3, 2]`, weight `[N, 1, H, W]` and noise `[N, K]` for its motion
    """

    reference: Tensor
    landmarks: Tensor
    whose: Tensor
    picture: Tensor
    places: Tensor
    weight: Tensor
    noise: Tensor


class Poses(Motions):
    """Motion of drawn characters of which every draw depends on its generator alone, as resuming needs."""

    def draw(self, rng: np.random.Generator, frames: int) -> Tensor:
        """Raw motion `[frames, K]` of unrelated moments; half of them are wide random poses."""
        rows = []
        for _ in range(frames):
            if rng.random() < 0.5:
                clip = performed(int(rng.integers(self.size)), self.split, self.seconds)
                rows.append(torch.from_numpy(clip[rng.integers(len(clip))]))
            else:
                rows.append(random_movement(rng, 8)[rng.integers(8)])
        return clamp_controls(torch.stack(rows))


@cache
def performed(number: int, split: str, seconds: float) -> np.ndarray:
    """Controls `[T, K]` of one performance."""
    return make_performance(number, split, seconds).performance.controls


def trained_on(shot: Shot) -> int:
    """Frames of a shot, its first ones, that training sees."""
    return max(1, len(shot) - round(HELD * len(shot)))


def draw_pairs(
    rng: np.random.Generator, shots: Sequence[Shot], config: RendererConfig, *, references: int, frames: int
) -> Pairs:
    """Any frames of the part that is trained on; long shots are drawn more often."""
    lengths = np.array([trained_on(shot) for shot in shots])
    rows = []
    for _ in range(references):
        which = int(rng.choice(len(shots), p=lengths / lengths.sum()))
        rows.append((shots[which], rng.integers(lengths[which], size=1 + frames)))
    noise = NOISE * rng.random((references * frames, 1)) * (rng.random((references * frames, 1)) < NOISY)
    return _pairs(rows, config, noise * rng.standard_normal((references * frames, CONTROLS)))


def held_pairs(shots: Sequence[Shot], config: RendererConfig, *, references: int, frames: int) -> Pairs:
    """Frames of the ends of the longest shots, evenly spread; the reference is the shot's first frame."""
    longest = sorted(shots, key=len, reverse=True)[:references]
    rows = []
    for shot in longest:
        first = min(trained_on(shot), len(shot) - 1)
        rows.append((shot, np.concatenate([[0], np.linspace(first, len(shot) - 1, frames).round().astype(int)])))
    return _pairs(rows, config, np.zeros((len(rows) * frames, CONTROLS)))


def _pairs(rows: Sequence[tuple[Shot, np.ndarray]], config: RendererConfig, noise: np.ndarray) -> Pairs:
    pictures = torch.stack([picture(shot, int(index)) for shot, every in rows for index in every])
    places = torch.stack([torch.from_numpy(shot.places[every]) for shot, every in rows])
    each = places.shape[1] - 1
    pictures = pictures.unflatten(0, (len(rows), 1 + each))
    now = places[:, 1:].flatten(0, 1)
    return Pairs(
        reference=pictures[:, 0],
        landmarks=places[:, 0],
        whose=torch.arange(len(rows)).repeat_interleave(each),
        picture=pictures[:, 1:].flatten(0, 1),
        places=now,
        weight=weights(now, config),
        noise=torch.from_numpy(noise).float(),
    )


def picture(shot: Shot, index: int) -> Tensor:
    """A frame `[3, H, W]` in [-1, 1]."""
    return torch.from_numpy(shot.picture(index).copy()).float() / 127.5 - 1


def boxes(places: Tensor, config: RendererConfig) -> Tensor:
    """Mouth, left and right eye as (x0, y0, x1, y1) `[N, 3, 4]` in pixels: half the size of the painters' crops."""
    half = places.new_tensor(config.crop_sizes).flip(1) / 4  # (w, h) of half a box
    return torch.cat([places - half, places + half], 2).clamp(0, config.size)


def weights(places: Tensor, config: RendererConfig) -> Tensor:
    """How much pixels count, `[N, 1, H, W]`: more in the face around `places` `[N, 3, 2]`, most in mouth and eyes."""
    weight = torch.ones(len(places), 1, config.size, config.size)
    mouth, left, right = places.unbind(1)
    apart = (right - left).norm(dim=1, keepdim=True)
    middle = (mouth + left + right) / 3
    face = torch.cat([middle - 1.2 * apart, middle + 1.2 * apart], 1)[:, None].clamp(0, config.size)
    every = torch.cat([face, boxes(places, config)], 1)
    for value, part in zip((FACE, MOUTH, EYES, EYES), every.unbind(1)):
        for i, (x0, y0, x1, y1) in enumerate(part.round().int().tolist()):
            weight[i, :, y0:y1, x0:x1] = value
    return weight
