# SPDX-License-Identifier: Apache-2.0
"""The denoiser: a multimodal diffusion transformer over slots (paper, section 2.1).

A window is a row of slots: reference, long-term memory, short-term memory, stream. Every slot is one latent
`[C, h, w]` with a noise level, four audio features and its text, all on the slot's own side of the fake-causal mask:
the stream sees everything, a memory entry sees itself and the reference, the reference sees itself.

The flow runs in **reference-relative** latents y = (z - z_ref) / motion_scale, and the network predicts the clean y
(x-prediction; the loss is on the velocity). What does not move is zero by construction, so identity costs no
capacity and cannot drift by accumulation. The reference latent is concatenated to every token; so is, to the stream's
tokens, the short-term latent, of which a learned share also goes straight to the output: attention alone had not found
the previous latent after 600 steps (same error with the true one and with none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flowact_ros.models.config import ModelConfig
from flowact_ros.models.layers import (
    DoubleStreamBlock,
    KeyValue,
    LastLayer,
    MLPEmbedder,
    Shifts,
    SingleStreamBlock,
    Window,
    rotate_past,
    timestep_embedding,
)
from flowact_ros.models.rope import rotation, token_positions
from flowact_ros.timebase import FRAMES_PER_LATENT


def patchify(latents: Tensor, patch: int) -> Tensor:
    """`[B, S, C, h, w]` -> tokens `[B, S, (h/p)(w/p), C p p]`."""
    b, s, c, h, w = latents.shape
    x = latents.reshape(b, s, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(b, s, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(tokens: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`."""
    b, s, _, channels = tokens.shape
    x = tokens.reshape(b, s, *grid, channels // patch**2, patch, patch)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, s, -1, grid[0] * patch, grid[1] * patch)


def moving(tokens: Tensor, least: float) -> Tensor:
    """Indices `[P']` of the tokens `[B, S, P, channels]` that are `least` or more, in the mean of a channel and in any
    slot: reference-relative, they are where something moves.
    """
    return (tokens.float().abs().mean(-1).amax((0, 1)) >= least).nonzero().flatten()


def in_slot(tokens: Tensor, condition_tokens: int) -> Tensor:
    """Indices of a slot's condition tokens and of these of its video tokens, among all tokens of the slot."""
    return torch.cat([torch.arange(condition_tokens, device=tokens.device), condition_tokens + tokens])


def fake_causal(memory_slots: int, stream_slots: int) -> Tensor:
    """Slot mask bool `[S, S]` (True = row may look at column) of reference + `memory_slots` + `stream_slots`.

    Paper, section 2.1: the stream sees all, memory entries only themselves and the reference, so that a memory
    entry's keys and values never change after they were made.
    """
    clean = 1 + memory_slots
    mask = torch.eye(clean + stream_slots, dtype=torch.bool)
    mask[:, 0] = True
    mask[clean:] = True
    return mask


@dataclass(frozen=True)
class Context:
    """All of a forward pass that depends neither on noise nor on its level: made once for the evaluations of a chunk.

    still:     what is concatenated to the noisy video tokens, `[B, S, P, 2 channels]`: reference and short-term latent
    place:     what is added to them for their place in the picture `[P, d]`
    condition: text and audio tokens `[B, S, Q, d]`
    vec:       slot vectors without their noise level `[B, S, d]`
    past:      per layer, keys of cached slots, rotated to where they stand in `window`, and values; None without any
    levels:    per noise level that was announced (`MMDiT.at_levels`), what modulates each layer
    """

    still: Tensor
    place: Tensor
    condition: Tensor
    vec: Tensor
    window: Window
    past: list[KeyValue] | None
    levels: dict[float, list[Shifts]] = field(default_factory=dict)

    def modulations(self, sigma: Tensor) -> list[Shifts] | None:
        """Of levels sigma `[B, S]`, if they are one that was announced."""
        level = sigma.flatten()[0]
        return self.levels.get(float(level)) if self.levels and bool((sigma == level).all()) else None

    def only(self, tokens: Tensor) -> Context:
        """With nothing but the video tokens of these indices `[P']`, where everything may be seen."""
        slots, condition = self.condition.shape[1:3]
        kept = in_slot(tokens, condition)
        cos, sin = (table.unflatten(0, (slots, -1))[:, kept].flatten(0, 1) for table in self.window.rotary)
        window = replace(self.window, rotary=(cos, sin))
        return replace(self, still=self.still[:, :, tokens], place=self.place[tokens], window=window)


class MMDiT(nn.Module):
    """See the module docstring. Sizes come from `ModelConfig`; the ports are 384 wide (Whisper tiny, MiniLM)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.mmdit
        self.condition_tokens = c.text_tokens + FRAMES_PER_LATENT
        self.video_in = nn.Linear(3 * config.token_channels, c.width)
        self.place = nn.Parameter(0.02 * torch.randn(config.tokens_per_latent, c.width))
        self.audio_in = nn.Linear(c.audio_dim, c.width)
        self.audio_place = nn.Parameter(0.02 * torch.randn(FRAMES_PER_LATENT, c.width))
        self.text_in = nn.Linear(c.text_dim, c.width)
        self.time_in = MLPEmbedder(256, c.width)
        self.guidance_in = MLPEmbedder(256, c.width) if c.guidance_embed else None
        # as Flux adds a pooled text vector to the modulation, each slot adds its sound and its text: the shortest
        # path from a phoneme to the lips
        self.sound_in = MLPEmbedder(FRAMES_PER_LATENT * c.audio_dim, c.width)
        self.prompt_in = MLPEmbedder(c.text_dim, c.width)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.single_blocks)
        )
        self.last = LastLayer(c.width, config.token_channels)
        self.keep = nn.Parameter(torch.full((config.token_channels,), 0.5))  # share of the short-term latent

    @property
    def tokens_per_slot(self) -> int:
        return self.condition_tokens + self.config.tokens_per_latent

    def window(
        self, slots: Tensor, cached: Tensor | None, mask: Tensor | None, held: Sequence[Tensor | None] | None = None
    ) -> Window:
        """Rotations and token mask for queries at time positions `slots` `[S]` and keys at `cached` `[M]` + `slots`.

        mask: slot mask bool `[S, M + S]`, or None when everything may be seen
        held: which video tokens each of the M cached slots has (None: all), where `mask` is None
        """
        c = self.config.mmdit

        def rotary(positions: Tensor, held: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
            places = token_positions(positions, self.config.grid, self.condition_tokens)
            rows = [x if t is None else x[in_slot(t, self.condition_tokens)] for x, t in zip(places, held)]
            return rotation(torch.cat(rows), c.rope_axes, c.rope_theta)

        if mask is not None:
            n = self.tokens_per_slot
            mask = mask.to(slots.device).repeat_interleave(n, 0).repeat_interleave(n, 1)
        past = None if cached is None else rotary(cached, held or [None] * len(cached))
        return Window(rotary(slots, [None] * len(slots)), past, mask)

    def context(
        self,
        reference: Tensor,
        audio: Tensor,
        text: Tensor,
        window: Window,
        past: list[KeyValue] | None = None,
        guidance: Tensor | None = None,
        recent: Tensor | None = None,
    ) -> Context:
        """What the evaluations of one chunk share; arguments as for `forward`."""
        patch = self.config.mmdit.patch
        anchor = patchify(reference.unsqueeze(1), patch).expand(-1, audio.shape[1], -1, -1)
        before = torch.zeros_like(anchor) if recent is None else patchify(recent, patch)
        condition = torch.cat([self.text_in(text), self.audio_in(audio) + self.audio_place], 2)
        vec = self.sound_in(audio.flatten(2)) + self.prompt_in(text.mean(2))
        if self.guidance_in is not None:
            scale = torch.ones(len(audio), device=audio.device) if guidance is None else guidance
            vec = vec + self.guidance_in(timestep_embedding(scale, 256, 100.0).to(audio.dtype))[:, None]
        past = rotate_past(past, window) if past else None
        return Context(torch.cat([anchor, before], -1), self.place, condition, vec, window, past)

    def at_levels(self, context: Context, sigmas: Sequence[float]) -> Context:
        """The context of evaluations at these noise levels. The weights of all modulations are read once for them:
        with few slots, reading is what they cost.
        """
        levels = torch.tensor(sigmas, dtype=torch.float32, device=context.vec.device)
        vec = context.vec + self._timed(levels[:, None, None], context.vec.dtype)
        layers = self._modulations(vec)
        known = {float(level): [tuple(t[i] for t in layer) for layer in layers] for i, level in enumerate(levels)}
        return replace(context, levels=known)

    def _timed(self, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        return self.time_in(timestep_embedding(sigma, 256).to(dtype))

    def _modulations(self, vec: Tensor) -> list[Shifts]:
        """Of all layers in their order, for slot vectors `[..., S, d]`."""
        return [layer.modulations(vec) for layer in (*self.double_blocks, *self.single_blocks, self.last)]

    def predict(self, context: Context, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, list[KeyValue]]:
        """One evaluation: noisy `[B, S, C, h, w]` at levels sigma `[B, S]` -> what `forward` returns."""
        clean, made = self.evaluate(context, patchify(noisy, self.config.mmdit.patch), sigma)
        return unpatchify(clean, self.config.mmdit.patch, self.config.grid), made

    def evaluate(self, context: Context, tokens: Tensor, sigma: Tensor) -> tuple[Tensor, list[KeyValue]]:
        """The same of tokens `[B, S, P, C p p]`, which may be some of them (`Context.only`)."""
        c, condition, window = self.config.mmdit, context.condition, context.window
        video = self.video_in(torch.cat([tokens, context.still], -1)) + context.place
        modulations = context.modulations(sigma)
        if modulations is None:
            modulations = self._modulations(context.vec + self._timed(sigma, tokens.dtype))
        mods = iter(modulations)
        past = context.past or [None] * (c.double_blocks + c.single_blocks)
        made: list[KeyValue] = []
        for double, cached in zip(self.double_blocks, past):
            video, condition, own = double(video, condition, next(mods), window, cached)
            made.append(own)
        x = torch.cat([condition, video], 2)
        for single, cached in zip(self.single_blocks, past[c.double_blocks :]):
            x, own = single(x, next(mods), window, cached)
            made.append(own)
        before = context.still[..., tokens.shape[-1] :]
        return self.last(x[:, :, condition.shape[2] :], next(mods)) + self.keep * before, made

    def forward(
        self,
        noisy: Tensor,
        reference: Tensor,
        sigma: Tensor,
        audio: Tensor,
        text: Tensor,
        window: Window,
        past: list[KeyValue] | None = None,
        guidance: Tensor | None = None,
        recent: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Predict clean reference-relative latents.

        noisy:     `[B, S, C, h, w]` reference-relative latents at noise level sigma
        reference: `[B, C, h, w]` latent of the reference picture
        sigma:     `[B, S]` in [0, 1]; 0 is clean
        audio:     `[B, S, 4, 384]`; text: `[B, S, text_tokens, 384]`
        window:    from `window()`; past: per layer, the un-rotated keys and values of cached slots
        guidance:  `[B]` scale of classifier-free guidance to imitate (1 = none), or None for 1
        recent:    `[B, S, C, h, w]` short-term latent for stream slots, 0 for clean slots; None is 0 for all: at the
                   start of a stream the reference picture has been on screen
        Returns clean `[B, S, C, h, w]` and this window's own keys and values per layer.
        """
        context = self.context(reference, audio, text, window, past, guidance, recent)
        return self.predict(context, noisy, sigma)
