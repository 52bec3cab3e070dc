# SPDX-License-Identifier: Apache-2.0
"""Sampling as pure functions: `denoise_chunk` (one chunk), `rollout` (a stream), `DiagonalWindow` (chunks in flight).

Training, evaluation and the live session call the same functions. `predict` is a closure over model, memory and
conditions: `predict(noisy [B, S, P, C], sigma [B, S]) -> clean [B, S, P, C]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank, Predict
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT


@dataclass(frozen=True, eq=False)
class Slope:
    """What the next step knows of the one before it: the velocity, and how far sigma went (below 0)."""

    velocity: Tensor
    span: float


def flow_step(
    noisy: Tensor, clean: Tensor, sigma: float, following: float, before: Slope | None
) -> tuple[Tensor, Slope]:
    """One step of the flow ODE from `sigma` to `following`, given the predicted clean latents.

    Euler's, or, where the step before is given, Adams and Bashforth's of second order: x + span (v + span / (2
    span_before) (v - v_before)) with v = (x - clean) / sigma. A few of Euler's steps end near the mean of all that
    might follow: lids that close half, eyes that hardly leave the viewer. The second order costs no evaluation, but of
    three steps the last passes on twice the error of its prediction, which is seen as trembling; so that weights which
    were distilled for few steps are distilled for Euler's.
    """
    span, velocity = following - sigma, (noisy - clean) / sigma
    moved = clean + (following / sigma) * (noisy - clean)  # Euler's, exact where following = 0
    if before is not None:
        moved = moved + span**2 / (2 * before.span) * (velocity - before.velocity)
    return moved, Slope(velocity, span)


class Stopped(Exception):
    """A chunk was given up before its last evaluation."""


def stoppable(predict: Predict, stop: Callable[[], bool]) -> Predict:
    """Asks before each evaluation; it raises Stopped instead, once `stop` says yes."""

    def asking(noisy: Tensor, sigma: Tensor) -> Tensor:
        if stop():
            raise Stopped
        return predict(noisy, sigma)

    return asking


def implied_clean(start: Tensor, end: Tensor, sigma: float, following: float) -> Tensor:
    """The clean latents by which Euler's step goes from `start` to `end`: what a student of it is to predict."""
    return start - sigma * (end - start) / (following - sigma)


def next_slope(solver: str, slope: Slope) -> Slope | None:
    """What a step hands to the next one of its chunk, by `SchedulerConfig.solver`."""
    return slope if solver == "adams_bashforth" else None


def denoise_chunk(
    predict: Predict, noise: Tensor, sigmas: Sequence[float], solver: str, *, exit_at: int | None = None
) -> Tensor:
    """Denoise one chunk `noise` `[B, S, P, C]` along `sigmas` (from `schedule.step_sigmas`, ends with 0).

    solver: of `SchedulerConfig`
    exit_at: return the clean prediction of this step (0-based), or of the last step the chunk itself, and stop; earlier
    steps then run without gradient (self-forcing trains the exit step only). None runs them all, with len(sigmas) - 1
    network evaluations.
    """
    x, slope = noise, None
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        level = torch.full(x.shape[:2], sigma, device=x.device, dtype=x.dtype)
        last = exit_at == step
        with torch.set_grad_enabled(torch.is_grad_enabled() and (exit_at is None or last)):
            clean = predict(x, level)
        if last and following > 0:
            return clean
        x, made = flow_step(x, clean, sigma, following, slope)
        slope = next_slope(solver, made)
    return x


def noise_for(seed: int, latent_index: int, shape: tuple[int, ...]) -> Tensor:
    """Gaussian noise `[1, *shape]` of one latent: a function of seed and position only, so a rewind repeats it."""
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + latent_index) % 2**63)
    return torch.randn((1, *shape), generator=generator)


def initial_noise(config: ModelConfig, seeds: Sequence[int], first: int, count: int) -> Tensor:
    """What streams of these seeds denoise `count` latents from the `first` on from: `[len(seeds), count, P, C]`.

    Gaussian noise of the deviations `config.temperatures`.
    """
    shape, wide = config.dit.latent_shape, torch.tensor(config.temperatures)
    rows = [torch.cat([noise_for(seed, first + i, shape) for seed in seeds]) for i in range(count)]
    return torch.stack(rows, 1) * wide


def rollout(
    model: DiT,
    bank: MemoryBank,
    conditions: Iterable[Condition],
    noise: Callable[[int, int], Tensor],
    sigmas: Sequence[float],
    *,
    exit_at: int | None = None,
    guidance: float | None = None,
) -> Iterator[tuple[Tensor, MemoryBank]]:
    """Denoise chunk after chunk; yield each chunk's clean latents `[B, S, P, C]` and the bank after its commit.

    conditions: sound and text of each chunk; `noise(first_latent, count)` gives `[B, count, P, C]`
    """
    for condition in conditions:
        first, count = bank.latents, condition.audio.shape[1]
        latents = denoise_chunk(
            bank.predictor(model, condition, guidance), noise(first, count), sigmas, model.config.schedule.solver,
            exit_at=exit_at,
        )  # fmt: skip
        bank = bank.commit(model, latents.detach(), condition)
        yield latents, bank


@dataclass(frozen=True, eq=False)
class ChunkInFlight:
    noisy: Tensor  # [B, S, P, C]
    condition: Condition
    level: int  # steps already taken
    slope: Slope | None  # that the last of them handed on


@dataclass(frozen=True, eq=False)
class DiagonalWindow:
    """Up to `in_flight` chunks at rising noise: one forward advances all of them.

    Paper, figure 2: chunk 1 has little noise, chunk 3 is pure noise. Every chunk gets exactly len(sigmas) - 1
    evaluations, spread evenly over the chunks pushed while it is in flight; with three evaluations and three chunks one
    forward emits one chunk. At the start the window is partial, so the first forwards are short.

    finish: what is done to a finished chunk before it is given out and committed
    """

    bank: MemoryBank
    sigmas: tuple[float, ...]
    in_flight: int
    flight: tuple[ChunkInFlight, ...] = ()
    finish: Callable[[Tensor], Tensor] = lambda latents: latents

    def told(self, conditions: Sequence[Condition]) -> DiagonalWindow:
        """The same with other conditions of the chunks in flight: live, more is known with every chunk."""
        return replace(
            self, flight=tuple(replace(chunk, condition=c) for chunk, c in zip(self.flight, conditions))
        )

    def push(self, model: DiT, noise: Tensor, condition: Condition) -> tuple[DiagonalWindow, Tensor | None]:
        """Add a chunk of pure noise and advance: the window after it, and the chunk that was finished, if one was."""
        window = replace(self, flight=(*self.flight, ChunkInFlight(noise, condition, 0, None)))
        finished = None
        for _ in range(-(-(len(self.sigmas) - 1) // self.in_flight)):
            if window.flight:
                window, done = window._forward(model)
                finished = done if finished is None else finished
        return window, finished

    def flush(self, model: DiT) -> tuple[DiagonalWindow, list[Tensor]]:
        """Finish what is in flight, without new chunks."""
        window, out = self, []
        while window.flight:
            window, done = window._forward(model)
            if done is not None:
                out.append(done)
        return window, out

    def _forward(self, model: DiT) -> tuple[DiagonalWindow, Tensor | None]:
        condition = Condition.cat([chunk.condition for chunk in self.flight])
        noisy = torch.cat([chunk.noisy for chunk in self.flight], 1)
        counts = [chunk.noisy.shape[1] for chunk in self.flight]
        levels = torch.cat([torch.full((n,), self.sigmas[c.level]) for n, c in zip(counts, self.flight)])
        clean = self.bank.predictor(model, condition)(noisy, levels.to(noisy).expand(len(noisy), -1))
        moved = []
        for chunk, x0 in zip(self.flight, clean.split(counts, 1)):
            here, following = self.sigmas[chunk.level], self.sigmas[chunk.level + 1]
            noisy, slope = flow_step(chunk.noisy, x0, here, following, chunk.slope)
            slope = next_slope(model.config.schedule.solver, slope)
            moved.append(ChunkInFlight(noisy, chunk.condition, chunk.level + 1, slope))
        oldest = moved[0]
        if oldest.level < len(self.sigmas) - 1:
            return replace(self, flight=tuple(moved)), None
        latents = self.finish(oldest.noisy)
        bank = self.bank.commit(model, latents, oldest.condition)
        return replace(self, bank=bank, flight=tuple(moved[1:])), latents
