# SPDX-License-Identifier: Apache-2.0
"""What experiments on spatial presets share: true latents of characters, and figures of who is seen.

Where latents are pictures, a stream can lose who it shows. Two measures tell, beside the truth through the same VAE and
a control of somebody else. *Likeness* is the cosine of a stretch's mean latent to the reference's: latents are
normalised over all characters, so that what is left of a mean is whose it is. *Background* is the fidelity, in dB to
the reference picture, of the pixels that never move in the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.data.characters import Identity, neutral
from flowact_ros.data.latents import PIECE, encoded, load_vae, pictures_at, pictures_of, still
from flowact_ros.engine.provenance import weights_hash
from flowact_ros.evaluation.experiments.material import DENOISER
from flowact_ros.models.checkpoint import RANDOM, read_card
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import ModelConfig, VideoConfig, video_of
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.lineage import run_state
from flowact_ros.training.state_files import STATE

STILL = 6 / 127.5  # a pixel never moves that stays so near to the reference in all frames (pictures are in [-1, 1])
LEAST = 0.02  # share of a picture that must never move for its background to be measured
BEST_DB = 60.0  # what equal pictures are given


@dataclass(frozen=True)
class Person:
    """A character at rest: the picture `[3, H, W]` in [-1, 1], and its latent `[P, C]`, which a stream begins with."""

    identity: Identity
    picture: Tensor
    latent: Tensor


@dataclass(frozen=True)
class PictureCodec:
    """The codec of a spatial preset, on the CPU and in float32: the truth is drawn and encoded there."""

    vae: VideoVAE
    video: VideoConfig

    @staticmethod
    def of(pipeline: Any) -> PictureCodec:
        """Of an `engine.spatial.SpatialPipeline`."""
        vae = VideoVAE(pipeline.vae.config)
        vae.load_state_dict({name: t.float().cpu() for name, t in pipeline.vae.state_dict().items()})
        return PictureCodec(vae.eval().requires_grad_(False), video_of(pipeline.config))

    def person(self, identity: Identity) -> Person:
        picture = pictures_of(identity, neutral(1), self.video)
        return Person(identity, picture[0], still(self.vae, picture)[0])

    def truth(self, identity: Identity, raw: Tensor) -> Tensor:
        """Latents `[N, P, C]` of motion `[4 N, K]`."""
        return encoded(self.vae, self.video, identity, raw)[0]

    def background(self, person: Person, raw: Tensor) -> Tensor:
        """Which pixels never move, bool `[H, W]`, in frames of motion `[T, K]`."""
        off = torch.zeros_like(person.picture[0])
        for part in raw.split(PIECE * FRAMES_PER_LATENT):
            apart = (pictures_of(person.identity, part, self.video) - person.picture).abs()
            off = torch.maximum(off, apart.amax((0, 1)))
        return off < STILL

    def background_db(self, tokens: Tensor, person: Person, where: Tensor, at: Sequence[int]) -> float:
        """Fidelity to the person's picture of the background in the pictures `at` of latents `[N, P, C]`; NaN where
        there is hardly any background.
        """
        if float(where.float().mean()) < LEAST:
            return math.nan
        pictures = pictures_at(self.vae, self.video, tokens[None], at)[0]
        error = float((pictures - person.picture)[:, :, where].square().mean())
        return min(BEST_DB, 10 * math.log10(4 / max(error, 1e-12)))


def check_vae(config: ModelConfig, weights: str | None, *denoisers: str) -> None:
    """Raises ValueError for denoisers (runs, folders or files) that learned latents of another VAE than the one in the
    folder `weights`: they would make mush. Random weights, and those in the package, are not looked at.
    """
    if weights is None or weights == RANDOM:
        return
    name = weights_hash([load_vae(Path(weights), video_of(config))])
    for source in (weights, *denoisers):
        path = Path(source)
        is_run = (path / STATE).is_file()
        card = run_state(path) if is_run else read_card(path / DENOISER if path.is_dir() else path)
        known = [part["vae"] for part in card.get("slices", []) if "vae" in part]
        if known and known[-1] != name:
            raise ValueError(f"{source} learned latents of the VAE {known[-1]}; the one in {weights} is {name}")


def likeness(tokens: Tensor, person: Person) -> float:
    """Cosine of the mean of latents `[N, P, C]` to a person's latent, over places and channels."""
    return float(F.cosine_similarity(tokens.mean(0).flatten(), person.latent.flatten(), 0))
