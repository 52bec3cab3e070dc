# SPDX-License-Identifier: Apache-2.0
"""In which order the live stream spends its evaluations (paper, section 2.1, figure 2).

Sequential: all evaluations of a chunk, then the next chunk. Diagonal: some chunks are in flight together at rising
noise, and each forward pass takes all of them a level on: fewer passes a chunk, for the price that the sound of the
chunks behind the one that leaves must be known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import DiagonalWindow, Stopped, denoise_chunk, noise_for, stoppable
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.engine.interfaces import StreamState
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT


@dataclass(frozen=True, eq=False)
class Chunk:
    """Clean latents `[1, n, 4, K]` of a step, normalised motion within its limits, and the condition they came from.

    after: what its order remembers when all of it is committed; None of a part of it
    """

    latents: Tensor
    condition: Condition
    after: Any = None

    def __len__(self) -> int:
        return self.latents.shape[1]

    def __getitem__(self, cut: slice) -> Chunk:
        start, stop, step = cut.indices(len(self))
        if step != 1:
            raise ValueError(f"a chunk is cut into consecutive latents; step {step} was asked for")
        whole = (start, stop) == (0, len(self))
        return Chunk(self.latents[:, start:stop], self.condition.slots(start, stop), self.after if whole else None)


class Order(Protocol):
    """How chunks are denoised. Memory is opaque and immutable; a condition is of the latents asked for and `ahead`."""

    ahead: int  # latents behind the ones asked for whose sound must be known

    def start(self, bank: MemoryBank) -> Any: ...

    def denoise(
        self, state: StreamState, condition: Condition, n: int, stop: Callable[[], bool] | None
    ) -> Chunk | None: ...

    def commit(self, memory: Any, chunk: Chunk) -> Any: ...

    def refine(self, memory: Any) -> Any: ...


def limited(latents: Tensor) -> Tensor:
    """Within the limits of the rig: all that is done to what the sampler gave."""
    return rig.normalise(rig.clamp(rig.denormalise(latents)))


def noise_of(config: ModelConfig, state: StreamState, first: int, count: int, device: torch.device) -> Tensor:
    """`[1, count, 4, K]` of the latents from `first` on."""
    shape = config.dit.latent_shape
    return torch.stack([noise_for(state.seed, first + i, shape) for i in range(count)], 1).to(device)


class Sequential:
    """See the module docstring. Its memory is a `MemoryBank`."""

    ahead = 0

    def __init__(self, config: ModelConfig, model: DiT) -> None:
        self.config, self.model = config, model
        self.sigmas = step_sigmas(config.schedule)

    def start(self, bank: MemoryBank) -> MemoryBank:
        return bank

    def denoise(
        self, state: StreamState, condition: Condition, n: int, stop: Callable[[], bool] | None
    ) -> Chunk | None:
        noise = noise_of(self.config, state, state.latent_index, n, condition.audio.device)
        predict = state.memory.predictor(self.model, condition)
        try:
            latents = denoise_chunk(predict if stop is None else stoppable(predict, stop), noise, self.sigmas)
        except Stopped:
            return None
        return Chunk(limited(latents), condition)

    def commit(self, memory: MemoryBank, chunk: Chunk) -> MemoryBank:
        return memory.commit(self.model, chunk.latents, chunk.condition)

    def refine(self, memory: MemoryBank) -> MemoryBank:
        return memory.refine(self.model)


@dataclass(frozen=True, eq=False)
class InFlight:
    """Memory of the diagonal order: the window, and the index in the stream of the first latent in flight."""

    window: DiagonalWindow
    first: int


class Diagonal:
    """See the module docstring. Its memory is an `InFlight`.

    What is in flight hears the sound as it is known now. It is dropped where the stream is cut: after a part of a
    chunk, after skipped latents, or for a step of another size; then a window begins anew.
    """

    def __init__(self, config: ModelConfig, model: DiT) -> None:
        self.config, self.model = config, model
        self.sigmas = step_sigmas(config.schedule)
        self.ahead = (config.schedule.in_flight - 1) * config.schedule.chunk_latents

    def start(self, bank: MemoryBank) -> InFlight:
        return self._empty(bank)

    def denoise(
        self, state: StreamState, condition: Condition, n: int, stop: Callable[[], bool] | None
    ) -> Chunk | None:
        first, size = state.latent_index, self.config.schedule.chunk_latents
        starts = [0, *range(n, n + self.ahead + 1, size)]
        told = [condition.slots(a, b) for a, b in zip(starts, starts[1:])]
        memory: InFlight = state.memory
        if memory.first != first or not memory.window.flight or memory.window.flight[0].noisy.shape[1] != n:
            memory = self._empty(memory.window.bank)
        window, done = memory.window.told(told), None
        while done is None:
            if stop is not None and stop():
                return None
            i = len(window.flight)
            noise = noise_of(self.config, state, first + starts[i], starts[i + 1] - starts[i], condition.audio.device)
            window, done = window.push(self.model, noise, told[i])
        return Chunk(done, told[0], InFlight(window, first + n))

    def commit(self, memory: InFlight, chunk: Chunk) -> InFlight:
        if chunk.after is not None:
            return chunk.after
        return self._empty(memory.window.bank.commit(self.model, chunk.latents, chunk.condition))

    def refine(self, memory: InFlight) -> InFlight:
        return replace(memory, window=replace(memory.window, bank=memory.window.bank.refine(self.model)))

    def _empty(self, bank: MemoryBank) -> InFlight:
        return InFlight(DiagonalWindow(bank, self.sigmas, self.config.schedule.in_flight, finish=limited), -1)


ORDERS: dict[str, type[Sequential] | type[Diagonal]] = {"sequential": Sequential, "diagonal": Diagonal}
