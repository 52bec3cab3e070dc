# SPDX-License-Identifier: Apache-2.0
"""The structured memory bank (paper, section 2.1): reference, long-term queue, short-term latent.

Immutable: `commit` and `refine` return another bank, so that a session may keep one with every latent and rewind to any
of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowact_ros.diffusion.kv_cache import Cache, entry_cache, join, reference_cache, stream_windows
from flowact_ros.diffusion.schedule import add_noise
from flowact_ros.models.dit import Condition, DiT

Predict = Callable[[Tensor, Tensor], Tensor]  # noisy [B, S, P, C], sigma [B, S] -> clean [B, S, P, C]


@dataclass(frozen=True, eq=False)
class Entry:
    """One memory entry: a clean latent `[B, 1, P, C]`, its condition, its cache, and its index in the stream."""

    latent: Tensor
    condition: Condition
    cache: Cache
    index: int


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """See the module docstring. entries: oldest first, the last one is the short-term latent; latents: committed so
    far; commits: chunks committed so far.
    """

    reference: Cache
    entries: tuple[Entry, ...] = ()
    latents: int = 0
    commits: int = 0

    @staticmethod
    def start(model: DiT, reference: Tensor) -> MemoryBank:
        """The bank of a stream that begins; reference `[B, P, C]`: the picture's own latent."""
        return MemoryBank(reference_cache(model, reference))

    def predictor(self, model: DiT, condition: Condition, guidance: float | None = None) -> Predict:
        """The `predict` of `sampler.denoise_chunk` for stream slots under this bank and `condition`.

        guidance: the scale that the model imitates, where it was taught to; None is 1
        """
        return _predictor(model, self.reference, self.entries, self.latents, condition, guidance)

    def commit(self, model: DiT, latents: Tensor, condition: Condition) -> MemoryBank:
        """The bank after a finished chunk: its last latent becomes short-term, the old one joins the queue.

        latents: clean `[B, S, P, C]`; condition: the chunk's.
        """
        stop = latents.shape[1]
        total = self.latents + stop
        last = condition.slots(stop - 1, stop)
        entry = Entry(
            latents[:, -1:], last, entry_cache(model, self.reference, latents[:, -1:], last), total - 1
        )
        sizes = model.config.memory
        queue = self.entries[-sizes.long_term :] if sizes.long_term else ()
        bank = MemoryBank(self.reference, (*queue, entry), total, self.commits + 1)
        if sizes.refine_interval and bank.commits % sizes.refine_interval == 0:
            return bank.refine(model)
        return bank

    def refine(self, model: DiT) -> MemoryBank:
        """Renew the short-term latent: noise it, denoise it under the clean reference and long-term memory.

        Paper, section 2.2 (memory refinement): only the newest entry is replaced; it is brought back to what the model
        finds likely before its errors are handed on. The noise is a function of the commit count.
        """
        if not self.entries:
            return self
        entry, level = self.entries[-1], model.config.memory.refine_sigma
        generator = torch.Generator().manual_seed(self.commits)
        noise = torch.randn(entry.latent.shape, generator=generator).to(entry.latent)
        sigma = torch.full(entry.latent.shape[:2], level, device=entry.latent.device)
        predict = _predictor(model, self.reference, self.entries[:-1], entry.index, entry.condition)
        clean = predict(add_noise(entry.latent, noise, sigma), sigma)
        renewed = replace(
            entry, latent=clean, cache=entry_cache(model, self.reference, clean, entry.condition)
        )
        return replace(self, entries=(*self.entries[:-1], renewed))


def _predictor(
    model: DiT,
    reference: Cache,
    entries: tuple[Entry, ...],
    first: int,
    condition: Condition,
    guidance: float | None = None,
) -> Predict:
    """first: index in the stream of the first slot that is predicted."""
    past = join([reference, *(entry.cache for entry in entries)])
    ages = tuple(first - entry.index for entry in entries)
    windows = stream_windows(model, ages, condition.audio.shape[1], condition.audio.device)
    scale = None if guidance is None else condition.audio.new_full((len(condition.audio),), guidance)
    return lambda noisy, sigma: model(noisy, sigma, condition, windows, past, scale)[0]
