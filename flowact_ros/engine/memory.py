# SPDX-License-Identifier: Apache-2.0
"""The structured memory bank (paper, section 2.1): reference | long-term queue | short-term latent.

A bank is immutable: `commit` and `refine` return new ones that share the caches of old entries, so a snapshot is a
reference to the bank and a rewind is to take an old one up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowact_ros.engine.kv_cache import Cache, entry_cache, join, read_positions, reference_cache
from flowact_ros.engine.schedule import add_noise
from flowact_ros.engine.settling import Settling
from flowact_ros.models.mmdit import Context, MMDiT, moving, patchify
from flowact_ros.models.pair import Pair


@dataclass(frozen=True)
class Condition:
    """What a chunk is made from: audio `[B, S, 4, 384]`, text `[B, S, text_tokens, 384]`."""

    audio: Tensor
    text: Tensor

    def slots(self, start: int, stop: int) -> Condition:
        return Condition(self.audio[:, start:stop], self.text[:, start:stop])

    @staticmethod
    def cat(parts: list[Condition]) -> Condition:
        return Condition(torch.cat([p.audio for p in parts], 1), torch.cat([p.text for p in parts], 1))


@dataclass(frozen=True)
class Entry:
    """One memory entry: clean reference-relative latents `[B, n, C, h, w]`, their condition, their cache.

    tokens: video tokens `[P']` that the cache has of each latent; None: all
    """

    latents: Tensor
    condition: Condition
    cache: Cache
    tokens: Tensor | None = None


@dataclass(frozen=True)
class MemoryBank:
    """See the module docstring. `reference` `[B, C, h, w]` is the normalised latent of the reference picture."""

    reference: Tensor
    anchor: Cache
    long_term: tuple[Entry, ...] = ()
    short_term: Entry | None = None
    commits: int = 0
    moved: Tensor | None = None  # bool [P]: video tokens that differed from the reference's in any chunk so far

    @staticmethod
    def start(model: MMDiT, reference: Tensor) -> MemoryBank:
        return MemoryBank(reference, reference_cache(model, reference))

    def lively(self, condition: Condition, survey: int) -> Tensor | None:
        """Tokens `[P']` that have moved in this stream; None when any may: in its first `survey` chunks and in each
        `survey`-th after them, and in those of a new text. survey: 0 for all.
        """
        if self.moved is None or self.short_term is None or self.commits < survey:
            return None
        same = torch.equal(self.short_term.condition.text[:, -1], condition.text[:, 0])
        return self.moved.nonzero().flatten() if same and survey and self.commits % survey else None

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.long_term if self.short_term is None else (*self.long_term, self.short_term)

    def predictor(
        self,
        model: MMDiT,
        condition: Condition,
        settled: float = 0.0,
        pair: Pair | None = None,
        sigmas: Sequence[float] = (),
        survey: int = 0,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The `predict` of `sampler.denoise_chunk` for a stream chunk under this bank and `condition`.

        settled: tokens that the first evaluation moves by less than this (mean of a channel) are left out of those
        that follow (`engine.settling`); 0: all take part in all.
        pair: threads for that (`models.sequence_parallel`)
        sigmas: noise levels it will be called with, which is cheaper if they are known (`MMDiT.at_levels`)
        survey: with `settled`, chunks from one whose first evaluation is of all tokens to the next; 0: all are
        """
        context = self.context(model, condition)
        if sigmas:
            context = model.at_levels(context, sigmas)
        if settled <= 0:
            return _predictor(model, context)
        return Settling(model, context, settled, pair, self.lively(condition, survey))

    def context(self, model: MMDiT, condition: Condition) -> Context:
        """What the evaluations of a stream chunk share."""
        return _context(model, self.reference, self.anchor, self.entries, condition)

    def commit(self, model: MMDiT, latents: Tensor, condition: Condition) -> MemoryBank:
        """Return the bank after a finished chunk: its last latent becomes short-term, the old one joins the queue.

        latents: clean reference-relative `[B, S, C, h, w]`; condition: the chunk's.
        """
        sizes = model.config.memory
        keep = min(sizes.entry_latents, latents.shape[1])
        stop = latents.shape[1]
        entry = self._entry(model, latents[:, stop - keep :], condition.slots(stop - keep, stop), sizes.retain)
        queue = self.entries[-sizes.long_term :] if sizes.long_term else ()
        moved = patchify(latents, model.config.mmdit.patch).any(-1).any(1).any(0)
        moved = moved if self.moved is None else moved | self.moved
        bank = replace(self, long_term=queue, short_term=entry, commits=self.commits + 1, moved=moved)
        if sizes.refine_interval and bank.commits % sizes.refine_interval == 0:
            return bank.refine(model)
        return bank

    def refine(self, model: MMDiT) -> MemoryBank:
        """Renew the short-term latent: noise it, denoise it under the clean reference and long-term memory.

        Paper, section 2.2 (memory refinement): only the newest entry is replaced; it is pulled back to the reference
        before its errors are handed on. The noise is a function of the commit count.
        """
        if self.short_term is None:
            return self
        entry, level = self.short_term, model.config.memory.refine_sigma
        generator = torch.Generator().manual_seed(self.commits)
        noise = torch.randn(entry.latents.shape, generator=generator).to(entry.latents)
        sigma = torch.full(entry.latents.shape[:2], level, device=entry.latents.device)
        context = _context(model, self.reference, self.anchor, self.long_term, entry.condition)
        predict = _predictor(model, context)
        clean = predict(add_noise(entry.latents, noise, sigma).to(entry.latents), sigma)
        return replace(self, short_term=self._entry(model, clean, entry.condition))

    def _entry(self, model: MMDiT, latents: Tensor, condition: Condition, retain: float = 1.0) -> Entry:
        """retain: pulls them towards the reference, so errors die out."""
        config = model.config
        kept, still = retain * latents, config.memory.still
        tokens = moving(patchify(latents, config.mmdit.patch), still) if still > 0 else None
        sigma = latents.new_full(latents.shape[:2], config.schedule.memory_sigma)
        cache = entry_cache(model, self.anchor, self.reference, kept, sigma, condition.audio, condition.text, tokens)
        return Entry(kept, condition, cache, tokens)


def _context(
    model: MMDiT, reference: Tensor, anchor: Cache, entries: tuple[Entry, ...], condition: Condition
) -> Context:
    past = join([anchor, *(entry.cache for entry in entries)])
    slots = condition.audio.shape[1]
    cached, stream = memory_positions(model, entries, slots, reference.device)
    held = [None, *(entry.tokens for entry in entries for _ in range(entry.latents.shape[1]))]
    window = model.window(stream, cached, None, held)
    recent = entries[-1].latents[:, -1:].expand(-1, slots, -1, -1, -1) if entries else None
    return model.context(reference, condition.audio, condition.text, window, past, recent=recent)


def _predictor(model: MMDiT, context: Context) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda noisy, sigma: model.predict(context, noisy, sigma)[0]


def memory_positions(
    model: MMDiT, entries: tuple[Entry, ...], stream: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions of all cached slots and of the stream; latents of one entry share the entry's position."""
    cached, positions = read_positions(model.config.memory.long_term, len(entries), stream, device)
    counts = [1, *(entry.latents.shape[1] for entry in entries)]
    # with the size known, a GPU need not be waited for
    return cached.repeat_interleave(torch.tensor(counts, device=device), output_size=sum(counts)), positions
