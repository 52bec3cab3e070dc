# SPDX-License-Identifier: Apache-2.0
"""The denoiser: a multimodal diffusion transformer over slots of motion tokens (paper, section 2.1).

A window is a row of slots: reference, long-term memory, short-term memory, stream. Every slot is one latent of P tokens
(embedded: the motion of four frames, one token a frame, normalised by `codec.motion.normalise`) with its noise level,
its sound (a feature a frame) and its text. The network predicts the clean latent (the loss is on the velocity).

Sound and text reach a token on two ways. They are tokens beside the motion in the double-stream blocks, as in the
paper; and the frame's own sound with its two neighbours, and the text, modulate the motion token of that frame in every
block, the shortest path from a phoneme to the lips (GAIA: better than cross-attention alone).

The reference slot holds the reference picture's own motion and nothing else. It has no identity token: how the people
of the corpus move does not depend on who they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.config import ModelConfig
from flowact_ros.models.layers import (
    DoubleStreamBlock,
    KeyValue,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    Window,
    timestep_embedding,
)
from flowact_ros.models.rope import rotation, token_positions
from flowact_ros.timebase import FRAMES_PER_LATENT

KIND = "denoiser"  # of its weights
GUIDANCE_SCALE = 100.0  # guidance runs from 1 to about 10, a noise level from 0 to 1 under a scale of 1000


@dataclass(frozen=True)
class Condition:
    """What slots are made from: sound `[B, S, 4, 384]`, a feature a frame, and text `[B, S, text_tokens, 384]`."""

    audio: Tensor
    text: Tensor

    def slots(self, start: int, stop: int) -> Condition:
        return Condition(self.audio[:, start:stop], self.text[:, start:stop])

    @staticmethod
    def cat(parts: list[Condition]) -> Condition:
        """One after the other in time."""
        return Condition(torch.cat([p.audio for p in parts], 1), torch.cat([p.text for p in parts], 1))


@dataclass(frozen=True)
class Windows:
    """Attention's windows of one forward pass: over condition and motion tokens (double-stream blocks), and over
    motion tokens alone (single-stream blocks).
    """

    joint: Window
    motion: Window


def with_neighbours(audio: Tensor) -> Tensor:
    """Sound `[B, S, F, D]` -> each frame's with those before and after it `[B, S, F, 3 D]`; repeated at the ends."""
    frames = audio.flatten(1, 2)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    after = torch.cat([frames[:, 1:], frames[:, -1:]], 1)
    return torch.cat([before, frames, after], -1).unflatten(1, audio.shape[1:3])


class DiT(nn.Module):
    """See the module docstring. Sizes come from `ModelConfig`; the ports are 384 wide (Whisper tiny, MiniLM)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.dit
        self.motion_in = nn.Linear(c.channels, c.width)
        self.time_in = MLPEmbedder(256, c.width)
        self.guidance_in = MLPEmbedder(256, c.width) if c.guidance_embed else None
        self.sound_in = MLPEmbedder(3 * c.audio_dim, c.width)
        self.prompt_in = MLPEmbedder(c.text_dim, c.width)
        if c.double_blocks:
            self.audio_in = nn.Linear(c.audio_dim, c.width)
            self.text_in = nn.Linear(c.text_dim, c.width)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.single_blocks)
        )
        self.last = LastLayer(c.width, c.channels)
        frames = torch.arange(FRAMES_PER_LATENT, dtype=torch.float32)[:, None]
        middle = torch.full((c.text_tokens, 1), (FRAMES_PER_LATENT - 1) / 2)
        self.register_buffer("motion_places", frames, persistent=False)  # [P, A]
        self.register_buffer(
            "joint_places", torch.cat([middle, frames, frames]), persistent=False
        )  # [Q + P, A]

    def windows(self, at: Tensor, cached_at: Tensor | None = None, mask: Tensor | None = None) -> Windows:
        """Rotations and masks of slots whose first frames are `at` `[S]`, under cached slots at `cached_at` `[M]`.

        mask: slot mask bool `[S, M + S]`, or None when everything may be seen
        """
        every = at if cached_at is None else torch.cat([cached_at, at])
        return Windows(
            self._window(self.joint_places, at, every, mask),
            self._window(self.motion_places, at, every, mask),
        )

    def _window(self, places: Tensor, at: Tensor, every: Tensor, mask: Tensor | None) -> Window:
        c = self.config.dit
        queries, keys = (rotation(token_positions(x, places), c.rope_axes, c.rope_theta) for x in (at, every))
        if mask is not None:
            mask = mask.to(places.device).repeat_interleave(len(places), 0).repeat_interleave(len(places), 1)
        return Window(queries, keys, mask)

    def forward(
        self,
        noisy: Tensor,
        sigma: Tensor,
        condition: Condition,
        windows: Windows,
        past: list[KeyValue] | None = None,
        guidance: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Predict clean latents.

        noisy:    `[B, S, P, C]` latents at noise level sigma `[B, S]`, which is in [0, 1]; 0 is clean
        windows:  from `windows()`; past: per layer, the un-rotated keys and values of cached slots
        guidance: `[B]` scale of classifier-free guidance to imitate (1 = none), or None for 1
        Returns clean `[B, S, P, C]` and this window's own keys and values per layer.
        """
        slot_vec = self.time_in(timestep_embedding(sigma, 256).to(noisy.dtype)) + self.prompt_in(
            condition.text.mean(2)
        )
        if self.guidance_in is not None:
            scale = torch.ones_like(sigma[:, 0]) if guidance is None else guidance
            slot_vec = (
                slot_vec
                + self.guidance_in(timestep_embedding(scale, 256, GUIDANCE_SCALE).to(noisy.dtype))[:, None]
            )
        slot_vec = slot_vec[:, :, None]  # [B, S, 1, d]
        vec = F.silu(slot_vec + self.sound_in(with_neighbours(condition.audio)))  # [B, S, P, d]
        slot_vec = F.silu(slot_vec)

        x = self.motion_in(noisy)
        layers = iter(past or [None] * (len(self.double_blocks) + len(self.single_blocks)))
        made: list[KeyValue] = []
        if self.double_blocks:
            tokens = torch.cat([self.text_in(condition.text), self.audio_in(condition.audio)], 2)
        for block in self.double_blocks:
            x, tokens, own = block(x, tokens, vec, slot_vec, windows.joint, next(layers))
            made.append(own)
        for block in self.single_blocks:
            x, own = block(x, vec, windows.motion, next(layers))
            made.append(own)
        return self.last(x, vec), made
