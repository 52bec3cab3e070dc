# SPDX-License-Identifier: Apache-2.0
"""Keys and values of clean slots, made once and read by every later forward pass.

The fake-causal mask (paper, section 2.1) makes a memory entry depend on itself and the reference only. Its keys and
values are computed at commit, kept un-rotated, and rotated on read to where the entry then stands in the window:
eviction changes no other entry. The entry's own pass always stands where the newest entry stands, whatever place it
later takes, so cached and recomputed entries are equal.

Times in a window, in frames: the first new frame is 0, an entry stands where it was, the reference before them all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.dit import Condition, DiT, Windows
from flowact_ros.models.layers import KeyValue
from flowact_ros.timebase import FRAMES_PER_LATENT

Cache = list[KeyValue]  # one pair per layer, each [B, H, tokens, D]

REFERENCE_AT = -100.0  # earlier than the oldest of seven long-term entries


def join(caches: list[Cache]) -> Cache:
    """Concatenate the slots of several caches, layer by layer."""
    if len(caches) == 1:
        return caches[0]
    return [tuple(torch.cat(parts, 2) for parts in zip(*layer)) for layer in zip(*caches)]


def reference_cache(model: DiT, reference: Tensor) -> Cache:
    """reference `[B, P, C]` -> cache of its slot, in which nothing is heard and nothing is asked."""
    b, c = len(reference), model.config.dit
    nothing = Condition(
        reference.new_zeros(b, 1, FRAMES_PER_LATENT, c.audio_dim),
        reference.new_zeros(b, 1, c.text_tokens, c.text_dim),
    )
    windows = model.windows(torch.tensor([REFERENCE_AT], device=reference.device))
    return model(reference.unsqueeze(1), reference.new_zeros(b, 1), nothing, windows)[1]


def entry_cache(model: DiT, reference: Cache, latent: Tensor, condition: Condition) -> Cache:
    """Cache of one memory entry: clean `[B, 1, P, C]` with its condition, under the reference's cache."""
    newest = torch.tensor([-float(FRAMES_PER_LATENT)], device=latent.device)
    windows = model.windows(newest, torch.tensor([REFERENCE_AT], device=latent.device))
    return model(latent, latent.new_zeros(latent.shape[:2]), condition, windows, reference)[1]


def stream_windows(model: DiT, ages: tuple[int, ...], slots: int, device: torch.device) -> Windows:
    """Windows of `slots` new slots under the reference and entries that lie `ages` latents before them (newest: 1)."""
    cached = [REFERENCE_AT, *(-float(FRAMES_PER_LATENT * age) for age in ages)]
    new = torch.arange(slots, dtype=torch.float32, device=device) * FRAMES_PER_LATENT
    return model.windows(new, torch.tensor(cached, device=device))
