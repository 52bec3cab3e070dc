# SPDX-License-Identifier: Apache-2.0
"""From stage 1 towards a sampler of three evaluations, trained on what the live stream does.

    flowact train fewstep --data runs/latents --heldout runs/latents_validation --run runs/fewstep --minutes 10

An undistilled denoiser answers pure noise with the mean over all that may come: a blur. With `schedule.code_decay` the
noise of a latent is a code of few numbers that all its places share and that, in training, tells how the character
moves (`training.movement`); the chunk is made from it by the steps of the live stream and compared with the truth.
Live, the code is drawn at random, so that a draw can be one definite movement instead of the mean over all.

Half of the chunks are second ones, whose short-term memory is this model's own first chunk (self-forcing, Huang et al.
2025, arXiv 2506.08009), made from true codes: it has the model's errors but the truth's pose, so the second chunk
learns to go on without handing the errors on. Changes from latent to latent, also those across the boundary of the
chunks, cost like the latents themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.sampler import code_noise, denoise_chunk
from flowact_ros.models.config import ConfigError, ModelConfig
from flowact_ros.training.losses import distance
from flowact_ros.training.methods.diffusion_forcing import CHUNKS, DiffusionForcing
from flowact_ros.training.movement import decays, normal_scores

ENTRIES = (0.04, 0.36, 0.1, 0.1, 0.4)  # chance of a bank with 0, 1, .. 4 entries
EXITS = (0.4, 0.2, 0.4)  # chance that the loss is taken after the first, second, third evaluation
CODE_NOISE = 0.1  # ranks are not exact
QUICK = 0.6  # share of own first chunks that are made with one evaluation only


class FewStep(DiffusionForcing):
    """See the module docstring. Without `schedule.code_decay` the noise is white, as live, and means nothing.

    free: share of batches whose chunk follows one of the model's own; changes: weight of the changes' error; nearby:
    share of samples whose reference is a moment of the clip itself: 1 draws a calm and sharp head where the reference
    has it, 0 has movement to learn.
    """

    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        batch: int = 8,
        drop: float = 0.05,
        memory_noise: float = 0.1,
        free: float = 0.5,
        changes: float = 0.7,
        nearby: float = 0.25,
    ) -> None:
        super().__init__(config, data, heldout, batch=batch, drop=drop, memory_noise=memory_noise)
        self.free, self.changes, self.nearby = free, changes, nearby
        if not config.schedule.code_decay:
            return
        codes = normal_scores([clip["movement"] for clip in self.clips], [clip["kind"] for clip in self.clips])
        if len(config.schedule.code_decay) != codes[0].shape[1]:
            raise ConfigError(
                f"schedule.code_decay has {len(config.schedule.code_decay)} numbers; "
                f"these clips tell {codes[0].shape[1]}, for which it should be {tuple(decays(codes))}"
            )
        for clip, code in zip(self.clips, codes):
            clip["code"] = code

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
        if "code" in out:
            code = out["code"][:, entries:]
            code = code + CODE_NOISE * torch.randn(code.shape, generator=generator)
            out["noise"] = code_noise(code, out["latents"].shape[2:])
        else:
            white = torch.randn(out["latents"][:, entries:].shape, generator=generator)
            out["noise"] = self.config.schedule.temperature * white
        out["entries"], out["first"] = entries, first
        out["exit"] = int(rng.choice(len(EXITS), p=EXITS))
        out["quick"] = bool(rng.random() < QUICK)
        return out

    def bank(self, batch: dict) -> MemoryBank:
        """The live stream's bank under the true memory."""
        model, entries = self.module, batch["entries"]
        bank = MemoryBank.start(model, batch["reference"])
        for i in range(entries):
            slot = slice(i, i + 1)
            condition = Condition(batch["audio"][:, slot], batch["text"][:, slot])
            # older entries go through the same weights as the newest: gradients through that one are enough
            with torch.set_grad_enabled(torch.is_grad_enabled() and i == entries - 1):
                bank = bank.commit(model, batch["memory"][:, slot], condition)
        return bank

    def step(self, batch: dict, iteration: int) -> dict[str, Tensor]:
        model, entries, first = self.module, batch["entries"], batch["first"]
        audio, text, truth = batch["audio"], batch["text"], batch["latents"]
        begins = entries + first
        noise = batch["noise"]
        bank = self.bank(batch)
        before = true_before = truth[:, begins - 1 : begins] if begins else torch.zeros_like(truth[:, :1])
        if first:
            own = Condition(audio[:, entries:begins], text[:, entries:begins])
            with torch.no_grad():
                predict, exit_at = bank.predictor(model, own), 0 if batch["quick"] else None
                made = denoise_chunk(predict, noise[:, :first], self.sigmas, exit_at=exit_at).float()
            bank = bank.commit(model, made, own)
            before = made[:, -1:]
        predict = bank.predictor(model, Condition(audio[:, begins:], text[:, begins:]))
        made = denoise_chunk(predict, noise[:, first:], self.sigmas, exit_at=batch["exit"]).float()
        clean, weight = truth[:, begins:], batch["weight"][:, first:]
        error = distance(made - clean, weight)
        steps, true_steps = torch.cat([before, made], 1).diff(dim=1), torch.cat([true_before, clean], 1).diff(dim=1)
        changes = distance(steps - true_steps, weight)
        return {
            "loss": error + self.changes * changes,
            "distance": error.detach(),
            "changes": changes.detach(),
            "error": (weight * (made - clean).square().mean(2)).mean().detach(),
            "still": (weight * clean.square().mean(2)).mean(),
        }
