# SPDX-License-Identifier: Apache-2.0
"""Keys and values of clean slots, made once and read by every later forward pass.

The fake-causal mask (paper, section 2.1) makes a memory entry depend on itself and the reference only. Its keys and
values are computed at commit, kept un-rotated, and rotated on read to where the entry then stands in the window:
eviction changes no other entry. The entry's own pass always stands at the short-term position, whatever place it
later takes, so cached and recomputed entries are equal.

Window positions: reference 0, long-term 1 .. L (right-aligned: the newest next to the short-term), short-term L + 1,
stream from L + 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.layers import KeyValue
from flowact_ros.models.mmdit import MMDiT, patchify

Cache = list[KeyValue]  # one pair per layer, each [B, H, slots * tokens, D]


def join(caches: list[Cache]) -> Cache:
    """Concatenate the slots of several caches, layer by layer."""
    if len(caches) == 1:
        return caches[0]
    return [
        (torch.cat([c[layer][0] for c in caches], 2), torch.cat([c[layer][1] for c in caches], 2))
        for layer in range(len(caches[0]))
    ]


def reference_cache(model: MMDiT, reference: Tensor) -> Cache:
    """reference `[B, C, h, w]` -> cache of its slot: nothing has moved, nothing is heard, nothing is asked."""
    b, c = len(reference), model.config.mmdit
    window = model.window(torch.zeros(1, device=reference.device), None, None)
    still = torch.zeros_like(reference).unsqueeze(1)
    return model(
        still,
        reference,
        reference.new_zeros(b, 1),
        reference.new_zeros(b, 1, model.condition_tokens - c.text_tokens, c.audio_dim),
        reference.new_zeros(b, 1, c.text_tokens, c.text_dim),
        window,
    )[1]


def entry_cache(
    model: MMDiT,
    anchor: Cache,
    reference: Tensor,
    latent: Tensor,
    sigma: Tensor,
    audio: Tensor,
    text: Tensor,
    tokens: Tensor | None = None,
) -> Cache:
    """Cache of one memory entry a batch row.

    anchor:    the reference's cache, batch B
    reference: `[B, C, h, w]`; latent: `[B, n, C, h, w]` (n = entry_latents); sigma: `[B, n]` its noise level
    audio:     `[B, n, 4, 384]`; text: `[B, n, text_tokens, 384]`
    tokens:    video tokens `[P']` that the entry has; None: all
    """
    short = model.config.memory.long_term + 1
    device = latent.device
    positions = torch.full((latent.shape[1],), float(short), device=device)
    window = model.window(positions, torch.zeros(1, device=device), None)
    context = model.context(reference, audio, text, window, anchor)
    video = patchify(latent, model.config.mmdit.patch)
    if tokens is not None:
        context, video = context.only(tokens), video[:, :, tokens]
    return model.evaluate(context, video, sigma)[1]


def read_positions(
    long_term: int, entries: int, stream: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Positions of the cached slots (reference and the newest `entries` memory entries) and of the stream's slots."""
    last = long_term + 1
    cached = torch.tensor([0, *range(last - entries + 1, last + 1)], dtype=torch.float32, device=device)
    return cached, torch.arange(last + 1, last + 1 + stream, dtype=torch.float32, device=device)
