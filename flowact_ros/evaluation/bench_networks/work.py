# SPDX-License-Identifier: Apache-2.0
"""The work that is timed: a denoiser in the middle of a stream, by the live stream's own rollout.

Weights are random, all of them: a layer of zeros, as training begins with, would be faster on some cards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flowact_ros.diffusion.memory import MemoryBank, Predict
from flowact_ros.diffusion.sampler import denoise_chunk, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.checkpoint import fill_random
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.precision import set_precision
from flowact_ros.timebase import FRAMES_PER_LATENT

SEED = 1


class Bank(Protocol):
    """What `sampler.rollout` needs of a memory."""

    latents: int

    def predictor(self, model: DiT, condition: Condition, guidance: float | None = None) -> Predict: ...

    def commit(self, model: DiT, latents: Tensor, condition: Condition) -> Any: ...


Start = Callable[[DiT, Tensor], Bank]  # a denoiser and the reference's latent [B, P, C] -> the memory of a stream


def denoiser(config: ModelConfig, device: torch.device, precision: str) -> DiT:
    """A denoiser of random weights on `device`: "float32", "bfloat16" or "fp8"."""
    with torch.device("meta"):
        model = DiT(config)
    fill_random(model, device=device, dtype=torch.float32 if precision == "float32" else torch.bfloat16, seed=SEED)
    set_precision(model.eval().requires_grad_(False), precision, str(device))
    return model


@dataclass(frozen=True, eq=False)
class Work:
    """A denoiser, the memory of a stream that has run a while, and what the next chunk is made of."""

    model: DiT
    bank: Bank
    condition: Condition
    noise: Tensor  # [1, S, P, C]
    sigmas: tuple[float, ...]

    @staticmethod
    def begin(model: DiT, device: torch.device, start: Start = MemoryBank.start) -> Work:
        """start: makes the memory, which is then filled."""
        config = model.config
        size, dit = config.schedule.chunk_latents, config.dit

        def some(*shape: int) -> Tensor:
            if device.type == "meta":
                return torch.empty(1, size, *shape, device=device)
            return torch.randn(1, size, *shape, generator=generator, device=device)

        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(SEED)
        condition = Condition(some(FRAMES_PER_LATENT, dit.audio_dim), some(dit.text_tokens, dit.text_dim))
        noise = some(*dit.latent_shape)
        with torch.inference_mode():
            bank = start(model, noise[:, 0])
            for _ in range(config.memory.long_term + 1):
                bank = bank.commit(model, noise, condition)
        return Work(model, bank, condition, noise, step_sigmas(config.schedule))

    @torch.inference_mode()
    def evaluation(self) -> Callable[[], Tensor]:
        """One forward pass on a chunk, under the memory as it was joined for the chunk."""
        predict = self.bank.predictor(self.model, self.condition)
        level = torch.full(self.noise.shape[:2], self.sigmas[0], device=self.noise.device)
        return torch.inference_mode()(lambda: predict(self.noise, level))

    @torch.inference_mode()
    def denoise(self) -> Tensor:
        """All evaluations of a chunk."""
        predict, solver = self.bank.predictor(self.model, self.condition), self.model.config.schedule.solver
        return denoise_chunk(predict, self.noise, self.sigmas, solver)

    @torch.inference_mode()
    def commit(self) -> None:
        self.bank.commit(self.model, self.noise, self.condition)

    @torch.inference_mode()
    def chunk(self) -> Tensor:
        """A chunk of the rollout: denoised and committed. Its latents `[1, S, P, C]`."""
        made = rollout(self.model, self.bank, [self.condition], lambda first, count: self.noise, self.sigmas)
        return next(iter(made))[0]


def operations(config: ModelConfig, precision: str, start: Start = MemoryBank.start) -> dict[str, dict[str, int]]:
    """Floating-point operations under a full memory, counted on torch's meta device.

    Keys: "evaluation", "commit" and "chunk", which is all of its evaluations and a commit; within each, by what
    multiplies them: "fp8" and "other".
    """
    with torch.device("meta"):
        model = DiT(config)
    model = model.to("meta").eval().requires_grad_(False)
    if precision == "fp8":
        set_precision(model, "fp8", "cpu")
    work = Work.begin(model, torch.device("meta"), start)
    out = {}
    for name, call in (("evaluation", work.evaluation()), ("commit", work.commit)):
        with FlopCounterMode(display=False) as counter:
            call()
        counts = {str(operator): n for operator, n in counter.get_flop_counts()["Global"].items()}
        fp8 = sum(n for operator, n in counts.items() if "_scaled_mm" in operator)
        out[name] = {"fp8": fp8, "other": sum(counts.values()) - fp8}
    steps = config.schedule.steps
    out["chunk"] = {kind: steps * out["evaluation"][kind] + out["commit"][kind] for kind in ("fp8", "other")}
    return out
