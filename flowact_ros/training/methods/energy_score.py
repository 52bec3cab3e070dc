# SPDX-License-Identifier: Apache-2.0
"""From stage 1 to a sampler of three evaluations: the energy score of free-running chunks.

    flowact train energy --data runs/latents --heldout runs/latents_validation --run runs/energy --minutes 10

An undistilled denoiser answers pure noise with the mean over all that may come: a blur. Here every chunk is made twice,
by the sampler and the memory bank of the live stream, from two draws of noise, and scored against the one truth by

    ES = (|x1 - y| + |x2 - y|) / 2 - |x1 - x2| / 2,

a strictly proper score: its mean is least when the samples are distributed as the truth is (Gneiting and Raftery 2007,
section 4.3), without teacher, critic or adversary. That a denoiser trained so needs few steps is the finding of De
Bortoli et al. 2025 (arXiv 2502.02483); noise of few dimensions that all places share keeps a sample in one piece (Alet
et al. 2025, arXiv 2506.10772): one vector a latent (`schedule.slot_noise`).

Half of the samples are second chunks, whose short-term memory is this model's own first chunk (self-forcing, Huang et
al. 2025, arXiv 2506.08009). Changes from latent to latent, also those across the boundary of the chunks, are scored
like the latents themselves: a chunk that is plausible but does not go on from its memory costs something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.engine.memory import Condition, Entry, MemoryBank
from flowact_ros.engine.sampler import denoise_chunk
from flowact_ros.models.config import ModelConfig
from flowact_ros.training.losses import energy_score
from flowact_ros.training.methods.diffusion_forcing import CHUNKS, DiffusionForcing

ENTRIES = (0.04, 0.36, 0.1, 0.1, 0.4)  # chance of a bank with 0, 1, .. 4 entries
EXITS = (0.4, 0.2, 0.4)  # chance that the loss is taken after the first, second, third evaluation
QUICK = 0.6  # share of own first chunks that are made with one evaluation only


class EnergyScore(DiffusionForcing):
    """See the module docstring. `free`: share of batches whose chunk follows one of the model's own."""

    nearby = 0.25  # the live stream's reference is the neutral picture

    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        batch: int = 4,
        drop: float = 0.05,
        memory_noise: float = 0.1,
        free: float = 0.5,
        changes: float = 0.7,
    ) -> None:
        super().__init__(config, data, heldout, batch=batch, drop=drop, memory_noise=memory_noise)
        self.free, self.changes = free, changes

    def batch(self, generator: torch.Generator) -> dict[str, Tensor | int]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        entries = int(rng.choice(len(ENTRIES), p=ENTRIES))
        first = int(rng.choice((1, 2, 3), p=CHUNKS)) if rng.random() < self.free else 0
        second = int(rng.choice((1, 2, 3), p=CHUNKS))
        rows = [self._place(rng, entries, first + second) for _ in range(self.batch_size)]
        out: dict[str, Tensor | int] = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        kept = torch.rand(self.batch_size, generator=generator) >= self.drop
        out["text"] = out["text"] * kept[:, None, None, None]
        level = torch.randn(self.batch_size, entries, generator=generator).abs().mul(self.memory_noise).clamp_max(0.4)
        disturbance = torch.randn(out["latents"][:, :entries].shape, generator=generator)
        # added, not blended in: a blend would shrink the motion that the chunk has to go on from
        out["memory"] = out["latents"][:, :entries] + level[..., None, None, None] * disturbance
        noise = torch.randn(2 * self.batch_size, first + second, self.config.vae.latent_channels, generator=generator)
        out["noise"] = self.config.schedule.temperature * noise
        out["entries"], out["first"] = entries, first
        out["exit"] = int(rng.choice(len(EXITS), p=EXITS))
        out["quick"] = bool(rng.random() < QUICK)
        return out

    def bank(self, batch: dict) -> MemoryBank:
        """The bank of `2 B` rows (both samples of every place) under the true memory."""
        model, entries = self.module, batch["entries"]
        bank = MemoryBank.start(model, batch["reference"])
        for i in range(entries):
            slot = slice(i, i + 1)
            condition = Condition(batch["audio"][:, slot], batch["text"][:, slot])
            # older entries go through the same weights as the newest: gradients through that one are enough
            with torch.set_grad_enabled(torch.is_grad_enabled() and i == entries - 1):
                bank = bank.commit(model, batch["memory"][:, slot], condition)
        return twice(bank)

    def step(self, batch: dict, iteration: int) -> dict[str, Tensor]:
        model, entries, first = self.module, batch["entries"], batch["first"]
        size = self.config.latent_size
        noise = batch["noise"][..., None, None].expand(-1, -1, -1, *size)
        begins = entries + first
        audio, text = (torch.cat([batch[name]] * 2) for name in ("audio", "text"))
        truth = batch["latents"]
        bank = self.bank(batch)
        if first:
            own = Condition(audio[:, entries:begins], text[:, entries:begins])
            with torch.no_grad():
                predict = bank.predictor(model, own)
                made = denoise_chunk(predict, noise[:, :first], self.sigmas, exit_at=0 if batch["quick"] else None)
                made = made.float()
            bank = bank.commit(model, made, own)
            before = made[:, -1:].unflatten(0, (2, -1))
        else:
            last = truth[:, begins - 1 : begins] if entries else torch.zeros_like(truth[:, :1])
            before = torch.stack([last, last])
        condition = Condition(audio[:, begins:], text[:, begins:])
        samples = denoise_chunk(bank.predictor(model, condition), noise[:, first:], self.sigmas, exit_at=batch["exit"])
        samples = samples.float().unflatten(0, (2, -1))  # [2, B, S, C, h, w]
        clean, weight = truth[:, begins:], batch["weight"][:, first:]
        true_before = truth[:, begins - 1 : begins] if begins else before[0]
        score, spread = energy_score(samples, clean, weight)
        steps = torch.cat([before, samples], 2).diff(dim=2)
        changes, _ = energy_score(steps, torch.cat([true_before, clean], 1).diff(dim=1), weight)
        with torch.no_grad():
            error = (weight * (samples.mean(0) - clean).square().mean(2)).mean()
            still = (weight * clean.square().mean(2)).mean()
        return {
            "loss": score + self.changes * changes,
            "score": score.detach(),
            "changes": changes.detach(),
            "spread": spread.detach(),
            "error": error,
            "still": still,
        }


def twice(bank: MemoryBank) -> MemoryBank:
    """The same bank for two samples of each row, `[2 B]`: all of the first ones, then all of the second."""

    def entry(given: Entry) -> Entry:
        condition = Condition(torch.cat([given.condition.audio] * 2), torch.cat([given.condition.text] * 2))
        return Entry(torch.cat([given.latents] * 2), condition, cache(given.cache))

    def cache(given: list) -> list:
        return [(torch.cat([key] * 2), torch.cat([value] * 2)) for key, value in given]

    return replace(
        bank,
        reference=torch.cat([bank.reference] * 2),
        anchor=cache(bank.anchor),
        long_term=tuple(entry(e) for e in bank.long_term),
        short_term=None if bank.short_term is None else entry(bank.short_term),
    )
