# SPDX-License-Identifier: Apache-2.0
"""The video VAE of the spatial presets: `flowact train vae --preset avatar_spatial_debug --run runs/vae --minutes 60`.

Clips of drawn characters, as they are needed: a movement of a performance, at the preset's size. Latents are kept near
unit size, and a little noise on them has the decoder draw sharply what a denoiser will give it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import Identity, feature_boxes
from flowact_ros.data.latents import fitted, pictures_of
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import VideoConfig
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.pictures import psnr, save_sheet
from flowact_ros.training.stages.renderer import HELDOUT, picture_loss
from flowact_ros.training.stages.renderer_data import WEIGHTS, Cast, Motions
from flowact_ros.training.world import moved

LATENTS = 3  # of a clip
NOISE = 0.1  # largest deviation of noise on latents
SIZE = 1e-3  # weight of the latents' mean square: they stay near unit size
MEASURED = 64  # clips that the latents' mean and deviation are measured on


def draw_clip(rng: np.random.Generator, motions: Motions, video: VideoConfig, cast: Cast) -> tuple[Tensor, Tensor]:
    """A clip `[T, 3, H, W]` in [-1, 1] of one character, and how much its pixels count `[T, 1, H, W]`."""
    who, raw = cast.draw(rng), motions.stretch(rng, LATENTS * FRAMES_PER_LATENT)
    return pictures_of(who, raw, video), fitted(_weights(who, raw, video.width), video)


def _weights(who: Identity, raw: Tensor, size: int) -> Tensor:
    weight, boxes = torch.ones(len(raw), 1, size, size), feature_boxes(who, raw, size)
    for name, value in WEIGHTS:
        for i, (x0, y0, x1, y1) in enumerate(boxes[name].tolist()):
            weight[i, :, int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].clamp_(min=value)
    return weight


class VAEStage:
    """A `Method` of the trainer."""

    def __init__(self, vae: VideoVAE, video: VideoConfig, *, clips: int = 4) -> None:
        """clips: of a batch"""
        self.module, self.video, self.clips = vae, video, clips
        self.motions = Motions("train", pool=48)
        self._held: tuple[Tensor, Tensor] | None = None

    def batch(self, generator: torch.Generator, iteration: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        return self._draw(rng, self.motions, [Cast()] * self.clips)

    def _draw(self, rng: np.random.Generator, motions: Motions, casts: list[Cast]) -> tuple[Tensor, Tensor]:
        clips, weights = zip(*(draw_clip(rng, motions, self.video, cast) for cast in casts))
        return torch.stack(clips), torch.stack(weights)

    def step(self, batch: tuple[Tensor, Tensor], iteration: int) -> dict[str, Tensor]:
        video, weight = batch
        latents, _ = self.module.encode(video)
        noise = NOISE * torch.rand(len(latents), 1, 1, 1, 1) * torch.randn(latents.shape)
        drawn, _ = self.module.decode(latents + noise.to(latents))
        picture = picture_loss(drawn.flatten(0, 1), video.flatten(0, 1), weight.flatten(0, 1))
        size = latents.square().mean()
        return {"loss": picture + SIZE * size, "picture": picture.detach(), "size": size.detach()}

    def sheet(self, module: VideoVAE, path: Path) -> dict[str, float]:
        """Rows of an unseen character: truth and drawn in turn; PSNR [dB] whole, of eyes and of mouths."""
        if self._held is None:
            rng, motions = np.random.default_rng(5), Motions("validation", pool=8)
            held = self._draw(rng, motions, [Cast(range(seed, seed + 1)) for seed in HELDOUT])
            self._held = moved(held, next(module.parameters()).device)
        video, weight = self._held
        drawn = module.decode(module.encode(video)[0])[0].clamp(-1, 1)
        at = np.linspace(0, video.shape[1] - 1, 4).astype(int)
        save_sheet([[x for k in at for x in (video[i, k], drawn[i, k])] for i in range(len(video))], path)
        pair, seen = (drawn.flatten(0, 1), video.flatten(0, 1)), weight.flatten(0, 1)
        values = dict(WEIGHTS)
        return {
            "psnr": psnr(*pair, torch.ones_like(seen)),
            "psnr_eyes": psnr(*pair, (seen == values["eye_left"]).float()),
            "psnr_mouth": psnr(*pair, (seen == values["mouth"]).float()),
        }


@torch.no_grad()
def normalised(vae: VideoVAE, video: VideoConfig) -> VideoVAE:
    """`vae` itself, with the mean and deviation of each latent channel measured on training clips: of its latents from
    now on they are 0 and 1."""
    rng, motions = np.random.default_rng(11), Motions("train", pool=8)
    vae.latent_mean.zero_(), vae.latent_std.fill_(1.0)
    every = [vae.encode(draw_clip(rng, motions, video, Cast())[0][None])[0] for _ in range(MEASURED)]
    values = torch.cat(every).transpose(1, 2).transpose(0, 1).flatten(1)  # [C, all the rest]
    vae.latent_mean.copy_(values.mean(1)), vae.latent_std.copy_(values.std(1).clamp_min(1e-3))
    return vae
