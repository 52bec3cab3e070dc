# SPDX-License-Identifier: Apache-2.0
"""The denoiser: a multimodal diffusion transformer over slots of motion tokens (paper, section 2.1).

A window is a row of slots: reference, long-term memory, short-term memory, stream. Every slot is one latent of P tokens
with its noise level, its sound (a feature a frame) and its text. Embedded, a latent is the motion of four frames, one
token a frame, normalised by `codec.motion.normalise`; in the GPU presets it is the rows and columns of a latent of
`codec.video_vae`, which stands for four frames too. The network predicts the clean latent (the loss is on the
velocity).

Sound and text reach a token on two ways. They are tokens beside the motion in the double-stream blocks, as in the
paper; and sound and text modulate the motion tokens in every block, the shortest path from a phoneme to the lips (GAIA:
better than cross-attention alone): a frame's token by the frame's own sound and its two neighbours', the tokens of a
spatial latent by that of its four frames.

The reference slot holds the reference picture's own latent and nothing else. Embedded it has no identity token: how the
people of the corpus move does not depend on who they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.config import DiTConfig, ModelConfig
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

    def to(self, dtype: torch.dtype) -> Condition:
        return Condition(self.audio.to(dtype), self.text.to(dtype))

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


@dataclass(frozen=True)
class Embedded:
    """What the blocks of one forward pass work on, and what modulates it.

    motion: `[B, S, P, d]`; condition: text and sound `[B, S, Q, d]`, None without double-stream blocks; vec: of the
    motion tokens, `[B, S, P, d]`, or `[B, S, 1, d]` where it is one for all of a slot's; slot_vec: `[B, S, 1, d]`
    """

    motion: Tensor
    condition: Tensor | None
    vec: Tensor
    slot_vec: Tensor

    def tokens(self, start: int, stop: int) -> Embedded:
        """Of the motion tokens only those `start` … `stop` of each slot; text and sound are kept whole."""
        vec = self.vec if self.vec.shape[2] == 1 else self.vec[:, :, start:stop]
        return Embedded(self.motion[:, :, start:stop], self.condition, vec, self.slot_vec)


def sound_of(audio: Tensor, spatial: bool) -> Tensor:
    """Sound `[B, S, F, D]` as it modulates: of each frame, or of all frames of a slot, `[B, S, 1, F D]`."""
    return audio.flatten(2)[:, :, None] if spatial else with_neighbours(audio)


def with_neighbours(audio: Tensor) -> Tensor:
    """Sound `[B, S, F, D]` -> each frame's with those before and after it `[B, S, F, 3 D]`; repeated at the ends."""
    frames = audio.flatten(1, 2)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    after = torch.cat([frames[:, 1:], frames[:, -1:]], 1)
    return torch.cat([before, frames, after], -1).unflatten(1, audio.shape[1:3])


def places(config: DiTConfig) -> tuple[Tensor, Tensor]:
    """Where tokens of a slot lie, relative to its first frame, on the axes of the rotation: those of motion `[P, A]`,
    and those of text, sound and motion `[Q + P, A]`. Text lies in the middle of its frames; sound and text have neither
    row nor column. They are real numbers in a network on the meta device, too: no file of weights holds them.
    """
    real = {"dtype": torch.float32, "device": "cpu"}
    frames = torch.arange(FRAMES_PER_LATENT, **real)[:, None]
    middle = torch.full((config.text_tokens, 1), (FRAMES_PER_LATENT - 1) / 2, **real)
    condition, motion = torch.cat([middle, frames]), frames
    if config.grid:
        rows, columns = torch.meshgrid(*(torch.arange(n, **real) for n in config.grid), indexing="ij")
        at = torch.stack([rows, columns], 2).flatten(0, 1)
        motion = torch.cat([middle[:1].expand(len(at), 1), at], 1)
        condition = F.pad(condition, (0, 2))
    return motion, torch.cat([condition, motion])


class Evaluation(NamedTuple):
    """What a `Denoiser` is called with.

    noisy:    `[B, S, P, C]` latents at noise level sigma `[B, S]`, which is in [0, 1]; 0 is clean
    windows:  from `Denoiser.windows`; past: per layer, the un-rotated keys and values of cached slots
    guidance: `[B]` scale of classifier-free guidance to imitate (1 = none), or None for 1
    """

    noisy: Tensor
    sigma: Tensor
    condition: Condition
    windows: Windows
    past: list[KeyValue] | None = None
    guidance: Tensor | None = None


class Denoiser(nn.Module):
    """Predicts clean latents: the `DiT`, or what computes one in another way.

    It is called with the fields of an `Evaluation`.
    """

    def forward(self, *given: Any, **named: Any) -> tuple[Tensor, list[KeyValue]]:
        """Clean `[B, S, P, C]` and this window's own keys and values per layer, which are of the network's own type;
        what comes in and goes out may have another.
        """
        return self.evaluate(Evaluation(*given, **named))

    def evaluate(self, one: Evaluation) -> tuple[Tensor, list[KeyValue]]:
        """What `forward` returns."""
        raise NotImplementedError

    def windows(self, at: Tensor, cached_at: Tensor | None = None, mask: Tensor | None = None) -> Windows:
        """Rotations and masks of slots whose first frames are `at` `[S]`, under cached slots at `cached_at` `[M]`.

        mask: slot mask bool `[S, M + S]`, or None when everything may be seen
        """
        raise NotImplementedError


class DiT(Denoiser):
    """See the module docstring. Sizes come from `ModelConfig`; the ports are 384 wide (Whisper tiny, MiniLM)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.dit
        self.motion_in = nn.Linear(c.channels, c.width)
        self.time_in = MLPEmbedder(256, c.width)
        self.guidance_in = MLPEmbedder(256, c.width) if c.guidance_embed else None
        self.sound_in = MLPEmbedder((FRAMES_PER_LATENT if c.grid else 3) * c.audio_dim, c.width)
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
        motion, joint = places(c)
        self.register_buffer("motion_places", motion, persistent=False)
        self.register_buffer("joint_places", joint, persistent=False)

    def windows(self, at: Tensor, cached_at: Tensor | None = None, mask: Tensor | None = None) -> Windows:
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

    def evaluate(self, one: Evaluation) -> tuple[Tensor, list[KeyValue]]:
        inside = self.embed(one.noisy, one.sigma, one.condition, one.guidance)
        clean, made = self.attend(inside, one.windows, one.past)
        return clean.to(one.noisy.dtype), made

    def embed(self, noisy: Tensor, sigma: Tensor, condition: Condition, guidance: Tensor | None = None) -> Embedded:
        """What comes before the blocks; arguments as in an `Evaluation`."""
        dtype = self.motion_in.weight.dtype
        noisy, condition = noisy.to(dtype), condition.to(dtype)
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
        sound = sound_of(condition.audio, spatial=self.config.dit.grid is not None)
        vec = F.silu(slot_vec + self.sound_in(sound))  # [B, S, P, d], or a vector for all of a slot's tokens
        slot_vec = F.silu(slot_vec)

        tokens = None
        if self.double_blocks:
            tokens = torch.cat([self.text_in(condition.text), self.audio_in(condition.audio)], 2)
        return Embedded(self.motion_in(noisy), tokens, vec, slot_vec)

    def attend(
        self, inside: Embedded, windows: Windows, past: list[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """The blocks and what comes after them: `[B, S, P, C]` in the network's own type, and keys and values."""
        x, tokens, vec = inside.motion, inside.condition, inside.vec
        layers = iter(past or [None] * (len(self.double_blocks) + len(self.single_blocks)))
        made: list[KeyValue] = []
        for block in self.double_blocks:
            x, tokens, own = block(x, tokens, vec, inside.slot_vec, windows.joint, next(layers))
            made.append(own)
        for block in self.single_blocks:
            x, own = block(x, vec, windows.motion, next(layers))
            made.append(own)
        return self.last(x, vec), made
