# SPDX-License-Identifier: Apache-2.0
"""Tiny latents for tests, of a spatial preset with a small denoiser: one channel follows the sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flowact_ros.engine.provenance import weights_hash
from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import ModelConfig, preset, video_of

SMALL = {"dit": {"width": 48, "heads": 1, "single_blocks": 1, "rope_axes": [16, 16, 16]}}
SET = ("--preset", "avatar_spatial_debug", "--set", "dit.width=48", "dit.heads=1", "dit.single_blocks=1")


def small() -> ModelConfig:
    return preset("avatar_spatial_debug", SMALL)


def latents(folder: Path, count: int = 3, length: int = 24, seed: int = 0) -> Path:
    """A folder as of `flowact data latents`; seed: of the VAE, whose weights are random."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    video = video_of(small())
    vae = VideoVAE(video.vae)
    save_weights(folder / "vae.safetensors", vae, kind="vae", config=video, card={}, dtype=torch.float32)
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((count, length, 1, 1)).astype(np.float32)
    who = rng.standard_normal((count, 1, 16, 32)).astype(np.float32)
    made = who + 0.1 * rng.standard_normal((count, length, 16, 32)).astype(np.float32)
    made[..., 0] = loud[..., 0]
    np.savez(
        folder / "0000000.npz",
        latents=made.astype(np.float16),
        stills=(made + 0.5).astype(np.float16),
        neutral=who[:, 0].astype(np.float16),
        sound=np.broadcast_to(loud, (count, length, 4, 384)).astype(np.float16),
        text=np.tile(np.arange(count)[:, None] % 2, (1, length)).astype(np.int16),
        texts=np.array(["idle", "speaking"]),
        vectors=rng.standard_normal((2, 1, 384)).astype(np.float16),
        heard_by=np.array("embedded"),
        vae=np.array(weights_hash([vae])),
    )
    return folder
