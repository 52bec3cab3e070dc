# SPDX-License-Identifier: Apache-2.0
"""Sampling as pure functions: `denoise_chunk` (one chunk), `rollout` (a stream), `DiagonalWindow` (chunks in flight).

Training, evaluation and the live session call the same functions. `predict` is a closure over model, memory and
conditions: `predict(noisy [B, S, C, h, w], sigma [B, S]) -> clean [B, S, C, h, w]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.models.config import SchedulerConfig
from flowact_ros.models.mmdit import MMDiT

CODE_SPAN = 32  # latents (5 s) of white noise that a code remembers

Predict = Callable[[Tensor, Tensor], Tensor]


def euler_step(noisy: Tensor, clean: Tensor, sigma: float, following: float) -> Tensor:
    """One step of the flow ODE from `sigma` to `following`, given the predicted clean latents.

    x + (following - sigma) v with v = (x - clean) / sigma, written so that following = 0 gives `clean` exactly.
    """
    return clean + (following / sigma) * (noisy - clean)


class Stopped(Exception):
    """A chunk was given up before its last evaluation."""


def stoppable(predict: Predict, stop: Callable[[], bool]) -> Predict:
    """Asks before each evaluation; it raises Stopped instead, once `stop` says yes."""

    def asking(noisy: Tensor, sigma: Tensor) -> Tensor:
        if stop():
            raise Stopped
        return predict(noisy, sigma)

    return asking


def denoise_chunk(predict: Predict, noise: Tensor, sigmas: Sequence[float], *, exit_at: int | None = None) -> Tensor:
    """Denoise one chunk `noise` `[B, S, C, h, w]` along `sigmas` (from `schedule.step_sigmas`, ends with 0).

    exit_at: return the clean prediction of this step (0-based) and stop; earlier steps then run without gradient
    (self-forcing trains the exit step only). None runs them all, with len(sigmas) - 1 network evaluations.
    """
    x = noise
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        level = torch.full(x.shape[:2], sigma, device=x.device, dtype=torch.float32)
        last = exit_at == step
        with torch.set_grad_enabled(torch.is_grad_enabled() and (exit_at is None or last)):
            clean = predict(x, level)
        if last:
            return clean
        x = euler_step(x, clean, sigma, following)
    return x


def noise_for(seed: int, latent_index: int, shape: tuple[int, ...]) -> Tensor:
    """Gaussian noise `[1, *shape]` of one latent: a function of seed and position only, so a rewind repeats it."""
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + latent_index) % 2**63)
    return torch.randn((1, *shape), generator=generator)


def code_for(seed: int, first: int, count: int, decay: Sequence[float]) -> Tensor:
    """Codes `[count, D]` of latents `first` …: N(0, 1) each, correlated in time, and still a function of position.

    A moving average of white noise with weights (j + 1) r^j, r being `decay` of each number: the response of a
    critically damped oscillator, so that a code glides and does not shake.
    """
    white = torch.cat([noise_for(seed, first + i, (len(decay),)) for i in range(1 - CODE_SPAN, count)])
    age = torch.arange(CODE_SPAN, dtype=torch.float32)[:, None]
    weights = (age + 1) * torch.tensor(decay) ** age  # [span, D]
    weights = (weights / weights.square().sum(0).sqrt()).flip(0)
    return torch.stack([(weights * white[i : i + CODE_SPAN]).sum(0) for i in range(count)])


def code_noise(code: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Codes `[..., D]` -> noise `[..., *shape]` of latents `[C, h, w]`: the same in all places, zero beyond D."""
    return F.pad(code, (0, shape[0] - code.shape[-1]))[..., None, None].expand(*code.shape[:-1], *shape)


def chunk_noise(config: SchedulerConfig, seed: int, first: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """The initial noise `[1, count, *shape]` of latents `first` … of a stream; shape is a latent's, `[C, h, w]`."""
    if config.code_decay:
        return config.temperature * code_noise(code_for(seed, first, count, config.code_decay), shape).unsqueeze(0)
    return config.temperature * torch.stack([noise_for(seed, first + i, shape) for i in range(count)], 1)


def rollout(
    model: MMDiT,
    bank: MemoryBank,
    conditions: Iterable[Condition],
    noise: Callable[[int, int], Tensor],
    sigmas: Sequence[float],
    *,
    exit_at: int | None = None,
) -> Iterator[tuple[Tensor, MemoryBank]]:
    """Denoise chunk after chunk; yield each chunk's clean latents `[B, S, C, h, w]` and the bank after its commit.

    conditions: audio and text of each chunk; `noise(first_latent, count)` gives `[B, count, C, h, w]`
    """
    first = 0
    for condition in conditions:
        count = condition.audio.shape[1]
        latents = denoise_chunk(bank.predictor(model, condition), noise(first, count), sigmas, exit_at=exit_at)
        bank = bank.commit(model, latents.detach(), condition)
        first += count
        yield latents, bank


@dataclass(frozen=True)
class _InFlight:
    noisy: Tensor  # [B, S, C, h, w]
    condition: Condition
    level: int  # steps already taken


class DiagonalWindow:
    """Up to `steps` chunks in flight at rising noise: one forward advances all of them, one chunk leaves a forward.

    Paper, figure 2: chunk 1 has little noise, chunk 3 is pure noise. At the start the window is partial (1, 2, ...
    chunks), so that the first chunk leaves after `steps` short forwards. Every chunk gets exactly `steps` NFE.
    """

    def __init__(self, model: MMDiT, bank: MemoryBank, sigmas: Sequence[float]) -> None:
        self.model, self.bank, self.sigmas = model, bank, tuple(sigmas)
        self.flight: list[_InFlight] = []
        self.evaluations = 0

    def push(self, noise: Tensor, condition: Condition) -> Tensor | None:
        """Add a chunk of pure noise, do one forward; return the finished chunk's clean latents, or None."""
        self.flight.append(_InFlight(noise, condition, 0))
        return self._forward()

    def flush(self) -> Iterator[Tensor]:
        """Finish what is in flight, without new chunks."""
        while self.flight:
            finished = self._forward()
            if finished is not None:
                yield finished

    def _forward(self) -> Tensor | None:
        condition = Condition.cat([chunk.condition for chunk in self.flight])
        noisy = torch.cat([chunk.noisy for chunk in self.flight], 1)
        counts = [chunk.noisy.shape[1] for chunk in self.flight]
        levels = torch.cat([torch.full((n,), self.sigmas[c.level]) for n, c in zip(counts, self.flight)])
        sigma = levels.to(noisy.device).expand(len(noisy), -1)
        clean = self.bank.predictor(self.model, condition)(noisy, sigma)
        self.evaluations += 1
        moved = []
        for chunk, x0 in zip(self.flight, clean.split(counts, 1)):
            here, following = self.sigmas[chunk.level], self.sigmas[chunk.level + 1]
            x = euler_step(chunk.noisy, x0, here, following)
            moved.append(replace(chunk, noisy=x, level=chunk.level + 1))
        self.flight = moved
        if moved[0].level < len(self.sigmas) - 1:
            return None
        done = self.flight.pop(0)
        self.bank = self.bank.commit(self.model, done.noisy, done.condition)
        return done.noisy
