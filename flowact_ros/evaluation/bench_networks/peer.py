# SPDX-License-Identifier: Apache-2.0
"""The peer: a block-sequential rollout of 1.3 B parameters and four steps, of the kind of Self-Forcing.

Blocks of three latents are denoised one after the other, bidirectional inside and causal between them; a pass over the
clean block fills a cache of keys and values, of which a window of 21 latents (the block itself included) is looked at
(arXiv 2506.08009 and the sizes of its published code: width 1536, 30 blocks, 12 heads, 1560 tokens a latent at
832 x 480, steps 1000, 750, 500, 250 under shift 5).

It is a configuration of this project's own denoiser in the same rollout, so that kernels, precision and runtime are
alike, and what differs is what is compared: tokens a latent, how much is remembered, and how many steps are taken. Its
blocks have single streams, no cross-attention to 512 tokens of text and a slightly smaller MLP: about a tenth fewer
operations a token than the published network, which favours the peer. Decoders are left out of the comparison, which
does so too: the peer's is the larger one. Against it is that its keys are joined and rotated for every pass, as ours
are, where the published code writes rotated ones into a buffer; and that its passes are compiled but not captured as
graphs, though kernels of thousands of tokens take longer than their launches. The share of the matrix rate that either
reaches is printed beside the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowact_ros.diffusion.kv_cache import Cache, join
from flowact_ros.diffusion.memory import Predict
from flowact_ros.evaluation.bench_networks.work import Bank
from flowact_ros.models.config import (
    DiTConfig,
    MemoryConfig,
    ModelConfig,
    SchedulerConfig,
    VAEConfig,
    VideoConfig,
)
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT

WINDOW = 21  # latents that a block looks at, itself included
STEM_PATCH = 2  # latents of stride 8 in patches of 2 x 2 are tokens of stride 16; 16 channels in a patch are 64


@dataclass(frozen=True, eq=False)
class BlockCache:
    """Keys and values of the blocks before, as `sampler.rollout` asks for a memory. caches: a block each, oldest first.

    latents: committed so far; window: latents that a block looks at
    """

    caches: tuple[Cache, ...] = ()
    latents: int = 0
    window: int = WINDOW

    def predictor(self, model: DiT, condition: Condition, guidance: float | None = None) -> Predict:
        """The `predict` of a block under the blocks before it. guidance is what the peer has none of."""
        if guidance is not None:
            raise ValueError("the peer is not taught to imitate guidance")
        return _predictor(model, self.caches, condition)[0]

    def commit(self, model: DiT, latents: Tensor, condition: Condition) -> BlockCache:
        """The cache after a pass over the clean block `[B, S, P, C]`."""
        size = latents.shape[1]
        own = _predictor(model, self.caches, condition)[1](latents)
        kept = (*self.caches, own)[-(self.window // size - 1) :]
        return replace(self, caches=kept, latents=self.latents + size)


def _predictor(model: DiT, caches: tuple[Cache, ...], condition: Condition):
    """What predicts a block, and what makes the cache of a clean one."""
    slots, device = condition.audio.shape[1], condition.audio.device
    first = len(caches) * slots * FRAMES_PER_LATENT
    at = torch.arange(slots, dtype=torch.float32, device=device) * FRAMES_PER_LATENT
    before = torch.arange(first // FRAMES_PER_LATENT, dtype=torch.float32, device=device) * FRAMES_PER_LATENT - first
    past = join(list(caches)) if caches else None
    windows = model.windows(at, before if caches else None)

    def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
        return model(noisy, sigma, condition, windows, past)[0]

    def cache(clean: Tensor) -> Cache:
        return model(clean, clean.new_zeros(clean.shape[:2]), condition, windows, past)[1]

    return predict, cache


def start(model: DiT, reference: Tensor) -> Bank:
    """`work.Start`: the peer begins with nothing, and has no reference."""
    return BlockCache()


def peer_at(ours: ModelConfig, *, own_latents: bool, small: bool = False) -> ModelConfig:
    """The peer for pictures of the size of `ours`, at latents of stride 8 in patches of two, or at those of `ours`.

    small: two narrow blocks: what its path does, on a CPU
    """
    video = _video(ours, own_latents)
    sizes = {"width": 1536, "heads": 12, "single_blocks": 30, "rope_axes": (44, 42, 42)}
    if small:
        sizes = {"width": 48, "heads": 1, "single_blocks": 2, "rope_axes": (16, 16, 16)}
    dit = DiTConfig(
        channels=video.vae.latent_channels, grid=video.grid, double_blocks=0, mlp_ratio=6, rope_theta=10_000.0,
        audio_dim=ours.dit.audio_dim, text_dim=ours.dit.text_dim, text_tokens=ours.dit.text_tokens,
        guidance_embed=False, **sizes,
    )  # fmt: skip
    blocks = WINDOW // ours.schedule.chunk_latents
    return ModelConfig(
        name="peer", video=video, dit=dit, memory=MemoryConfig(long_term=blocks - 1),
        schedule=SchedulerConfig(steps=4, shift=5.0, chunk_latents=ours.schedule.chunk_latents),
    )  # fmt: skip


def ours_at_peer_latents(ours: ModelConfig) -> ModelConfig:
    """`ours` on the latents of the peer."""
    video = _video(ours, own_latents=True)
    return replace(ours, video=video, dit=replace(ours.dit, grid=video.grid, channels=video.vae.latent_channels))


def _video(ours: ModelConfig, own_latents: bool) -> VideoConfig:
    if ours.video is None:
        raise ValueError(f"preset {ours.name} denoises motion; the peer denoises pictures")
    if not own_latents:
        return ours.video
    return replace(ours.video, vae=VAEConfig(stem_patch=STEM_PATCH, latent_channels=64))
