# SPDX-License-Identifier: Apache-2.0
"""Stage 0: the causal VAE, on crops of rendered snippets.

    flowact data snippets --count 1500 --out runs/data/snippets
    flowact data clips --count 200 --seconds 6 --jpeg --out runs/data/clips
    flowact data snippets --count 24 --split validation --out runs/data/snippets_validation
    flowact train vae --data runs/data/snippets runs/data/clips --heldout runs/data/snippets_validation --run runs/vae

Crops keep the cost down; half of them are centred on an eye or on the mouth, whose pixels also weigh more. The latent
is disturbed by a little noise, so that the decoder forgives the denoiser's errors and the latent's scale is set.

`flowact train refine` goes on with the shipped VAE, both halves of it, under an anchor: latents that wander from where
the shipped encoder puts them cost something, so a denoiser trained on the old latents only has to be fine-tuned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowact_ros.data.store import StoredClip, read_clips
from flowact_ros.models.checkpoint import CheckpointError, load_weights, read_card
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.vae import VAE
from flowact_ros.training.losses import box_mask, psnr, reconstruction

PIECE = 8  # frames a crop: two latents, so that the state between them is trained
GROWN = re.compile(r"\.stages\.|^corrector\.")  # what may be new in a preset: it starts by changing nothing
FEATURES = slice(0, 3)  # mouth and eyes within `BOX_NAMES`


class VAEMethod:
    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        crop: int = 192,
        batch: int = 8,
        noise: float = 0.05,
        penalty: float = 1e-3,
        edges: float = 0.5,
        edges_from: int = 2000,
        on_features: float = 0.6,
        mouths: float = 1 / 3,
        off_centre: float = 0.35,
        feature_weight: float = 2.0,
        squares: float = 2.0,
        anchor: float = 0.0,
        decoder_only: bool = False,
    ) -> None:
        self.module = VAE(config.vae)
        self.on_features, self.feature_weight, self.decoder_only = on_features, feature_weight, decoder_only
        self.mouths = mouths  # share among the features that crops are centred on
        self.squares, self.off_centre = squares, off_centre
        self.anchor, self.anchored = anchor, None  # the VAE whose latents are held
        if decoder_only:  # latents that a denoiser was trained on must not move any more
            self.module.encoder.requires_grad_(False)
        self.data, self.crop, self.batch_size = data, crop, batch
        self.noise, self.penalty, self.edges, self.edges_from = noise, penalty, edges, edges_from
        self.clips: list[StoredClip] = []
        self.heldout = read_clips(heldout)
        self.draws = 0

    def continue_from(self, path: Path) -> dict[str, Any]:
        """Take over the VAE at `path`, which may have fewer blocks, and hold its latents; return its card.

        Added blocks start at zero (`ResBlock`), so the first step computes what the old network does.
        """
        before, card = load_grown(path, self.module)
        if self.anchor:
            self.anchored = before.eval().requires_grad_(False)
        return card

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops `[B, 8, 3, c, c]` in [-1, 1] and pixel weights `[B, 8, 1, c, c]`."""
        if self.draws % 100 == 0:  # rendering may still be going on beside us
            self.clips = read_clips(*self.data)
        self.draws += 1
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        crops, weights = [], []
        for _ in range(self.batch_size):
            clip = self.clips[rng.integers(len(self.clips))]
            frames, boxes = clip.array("frames"), torch.from_numpy(np.array(clip.array("boxes")))
            size, c = frames.shape[-1], self.crop
            first = int(rng.integers(0, len(frames) - PIECE + 1))
            piece = slice(first, first + PIECE)
            if rng.random() < self.on_features:
                box = boxes[first, 0 if rng.random() < self.mouths else rng.integers(1, 3)].numpy()
                middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
                centre = middle + rng.uniform(-self.off_centre, self.off_centre, 2) * c
            else:
                centre = rng.uniform(0, size, 2)
            # any pixel offset: the encoder must not rely on where the grid of 32 falls
            x, y = (int(np.clip(v - c / 2, 0, size - c)) for v in centre)
            crops.append(torch.from_numpy(np.array(frames[piece, :, y : y + c, x : x + c])))
            shift = torch.tensor([x, y, x, y], dtype=torch.float32)
            inside = box_mask(boxes[piece, FEATURES] - shift, c, c).any(1)
            weights.append(1.0 + self.feature_weight * inside.float())
        video, weight = torch.stack(crops).float() / 127.5 - 1.0, torch.stack(weights).unsqueeze(2)
        for dimension in (1, -1):  # backwards in time, mirrored
            if rng.random() < 0.5:
                video, weight = video.flip(dimension), weight.flip(dimension)
        return video, weight

    def step(self, batch: tuple[Tensor, Tensor], iteration: int) -> dict[str, Tensor]:
        video, weight = batch
        with torch.set_grad_enabled(not self.decoder_only):
            latents, _ = self.module.encode(video)
        noisy = latents + self.noise * torch.randn_like(latents)
        output = self.module.decode(noisy)[0].float()
        edges = self.edges if iteration >= self.edges_from else 0.0
        loss = reconstruction(output, video, weight, edges, self.squares)
        loss = loss + self.penalty * latents.float().square().mean()
        error = (output.detach() - video).square()
        inside = (weight > 1).expand_as(error)
        of_features = (error * inside).sum() / inside.sum().clamp_min(1)
        figures = {
            "psnr": 10 * torch.log10(4.0 / error.mean()),
            "feature_psnr": 10 * torch.log10(4.0 / of_features.clamp_min(1e-10)),
            "latent_std": latents.detach().float().std(),
        }
        if self.anchored is not None:
            with torch.no_grad():
                before, _ = self.anchored.to(video.device).encode(video)
            moved = (latents - before).float().square().mean()
            loss = loss + self.anchor * moved
            figures["moved"] = moved.detach()
        return {"loss": loss, **figures}

    @torch.no_grad()
    def sheet(self, module: VAE, path: Path) -> dict[str, float]:
        rows, whole, features = [], [], []
        device = next(module.parameters()).device
        for clip in self.heldout[:12]:
            video = torch.from_numpy(np.array(clip.array("frames")[:4])).float().unsqueeze(0) / 127.5 - 1.0
            output = module.decode(module.encode(video.to(device))[0])[0].clamp(-1, 1).cpu()
            whole.append(psnr(output, video))
            boxes = torch.from_numpy(np.array(clip.array("boxes")[:4, FEATURES]))
            mask = box_mask(boxes, *video.shape[-2:]).any(1)
            error = (output - video).square().mean(2)[0][mask].mean()
            features.append(float(10 * torch.log10(4.0 / error)))
            if len(rows) < 4:
                rows.append(torch.cat([video[0, 3], output[0, 3]], -1))
        grid = torch.cat(rows, -2)
        picture = ((grid + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(path)
        return {"psnr": sum(whole) / len(whole), "feature_psnr": sum(features) / len(features)}


def load_grown(path: Path, module: VAE) -> tuple[VAE, dict[str, Any]]:
    """Load the VAE at `path` into `module`, whose stages may be deeper; return that VAE as it is, and its card.

    Raises CheckpointError when anything but whole blocks and the corrector is missing.
    """
    sizes = read_card(path).get("config") or {}
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    before = VAE(replace(module.config, **{"corrector_widths": (), **sizes}))
    card = load_weights(path, before, kind="vae", config=before.config)
    try:
        missing, unexpected = module.load_state_dict(before.state_dict(), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} has other widths than this preset: {error}") from None
    foreign = [name for name in (*missing, *unexpected) if name in unexpected or not GROWN.search(name)]
    if foreign:
        raise CheckpointError(f"{path.name} cannot grow into this preset: {foreign[0]} has no counterpart")
    return before, card


@torch.no_grad()
def measure_latents(module: VAE, clips: list[StoredClip]) -> None:
    """Set `latent_mean` and `latent_std` of `module` from `clips`, so that latents have mean 0 and deviation 1."""
    module.latent_mean.zero_()
    module.latent_std.fill_(1.0)
    values = []
    for clip in clips:
        video = torch.from_numpy(np.array(clip.array("frames")[:8])).float().unsqueeze(0) / 127.5 - 1.0
        values.append(module.encode(video.to(module.latent_mean.device))[0].transpose(1, 2).flatten(2)[0])
    stacked = torch.cat(values, 1)
    module.latent_mean.copy_(stacked.mean(1))
    module.latent_std.copy_(stacked.std(1))
