# SPDX-License-Identifier: Apache-2.0
"""From stage 1 to a sampler of three evaluations: noise that means something.

    flowact train variational --data runs/latents --heldout runs/latents_validation --run runs/variational --minutes 10

An undistilled denoiser answers pure noise with the mean over all that may come: a blur. Here the noise of a latent is a
code of few numbers that all its places share (`schedule.noise_dims`), and in training it comes from the truth: a small
recognition network looks at the true latents and draws the code, the denoiser makes the chunk from it by the steps of
the live stream, and the evidence bound balances the error against what the code tells (Kingma and Welling 2014; for
video, one code a step under a fixed prior: SVG-FP, Denton and Fergus 2018, arXiv 1802.07687). Live, the code is drawn
from the prior N(0, 1): every draw is one definite movement, and its picture is sharp after one evaluation.

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
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.sampler import denoise_chunk
from flowact_ros.models.config import ConfigError, ModelConfig
from flowact_ros.training.losses import distance
from flowact_ros.training.methods.diffusion_forcing import CHUNKS, DiffusionForcing

ENTRIES = (0.04, 0.36, 0.1, 0.1, 0.4)  # chance of a bank with 0, 1, .. 4 entries
EXITS = (0.4, 0.2, 0.4)  # chance that the loss is taken after the first, second, third evaluation
QUICK = 0.6  # share of own first chunks that are made with one evaluation only
RECOGNITION = "recognition."  # prefix of the network that training alone needs


class Recognition(nn.Module):
    """True latents -> mean and log variance of each slot's code."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, (h, w) = config.vae.latent_channels, config.latent_size
        self.conv1 = nn.Conv2d(3 * channels, 128, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(128, 128, 3, stride=2, padding=1)
        self.head = nn.Linear(128 * ((h + 3) // 4) * ((w + 3) // 4), 2 * config.schedule.noise_dims)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, 0.0)
        self.head.bias.data[config.schedule.noise_dims :] = -2.0  # a code that says something from the start

    def forward(self, clean: Tensor, before: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """clean, before (each slot's predecessor) `[B, S, C, h, w]`, reference `[B, C, h, w]` -> two `[B, S, dims]`."""
        x = torch.cat([clean, before, reference[:, None].expand_as(clean)], 2)
        x = F.silu(self.conv2(F.silu(self.conv1(x.flatten(0, 1)))))
        mean, spread = self.head(x.flatten(1)).float().unflatten(0, clean.shape[:2]).chunk(2, -1)
        return mean, spread.clamp(-8.0, 2.0)


class Variational(DiffusionForcing):
    """See the module docstring.

    free: share of batches whose chunk follows one of the model's own; changes: weight of the changes' error; price: of
    one nat of code a latent.
    """

    nearby = 0.25  # the live stream's reference is the neutral picture

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
        price: float = 0.01,
    ) -> None:
        if not config.schedule.noise_dims:
            raise ConfigError("schedule.noise_dims is 0; a code needs at least 1, e.g. 16")
        super().__init__(config, data, heldout, batch=batch, drop=drop, memory_noise=memory_noise)
        self.free, self.changes, self.price = free, changes, price

    def with_recognition(self) -> None:
        """Adds the recognition network to the module, once the denoiser's weights are there."""
        self.module.add_module(RECOGNITION[:-1], Recognition(self.config))

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
        shape = (self.batch_size, first + second, self.config.schedule.noise_dims)
        out["draw"] = torch.randn(shape, generator=generator)
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

    def code(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Noise `[B, S, C, h, w]` that tells of the truth, and what it tells in nats `[B, S]`."""
        entries, truth = batch["entries"], batch["latents"]
        previous = torch.cat([torch.zeros_like(truth[:, :1]), truth], 1)[:, entries:-1]
        mean, spread = self.module.recognition(truth[:, entries:], previous, batch["reference"])
        nats = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(-1)
        code = mean + (spread / 2).exp() * batch["draw"]
        missing = self.config.vae.latent_channels - code.shape[-1]
        return F.pad(code, (0, missing))[..., None, None].expand_as(truth[:, entries:]), nats

    def step(self, batch: dict, iteration: int) -> dict[str, Tensor]:
        model, entries, first = self.module, batch["entries"], batch["first"]
        audio, text, truth = batch["audio"], batch["text"], batch["latents"]
        begins = entries + first
        noise, nats = self.code(batch)
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
        told = nats[:, first:].mean()
        return {
            "loss": error + self.changes * changes + self.price * told,
            "distance": error.detach(),
            "changes": changes.detach(),
            "nats": told.detach(),
            "error": (weight * (made - clean).square().mean(2)).mean().detach(),
            "still": (weight * clean.square().mean(2)).mean(),
        }
