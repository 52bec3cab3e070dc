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

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.memory_state import bank_from, bank_tensors, flight_from, flight_tensors
from flowact_ros.diffusion.sampler import DiagonalWindow, Stopped, denoise_chunk, initial_noise, stoppable
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.engine.interfaces import StreamState
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT

Finish = Callable[[Tensor], Tensor]  # what a codec has done to what the sampler gave, before anything uses it


def as_it_is(latents: Tensor) -> Tensor:
    """The `Finish` of a codec whose latents have no limits."""
    return latents


@dataclass(frozen=True, eq=False)
class Recent:
    """The newest `reach` clean latents `[B, reach, P, C]` of a stream: a codec may draw a latent after those before it.

    They are kept with every state and chunk, so that drawing stays a function of these and can be rewound.
    """

    latents: Tensor
    reach: int

    def then(self, latents: Tensor) -> Recent:
        """After `latents` `[B, n, P, C]` followed."""
        return replace(self, latents=torch.cat([self.latents, latents], 1)[:, -self.reach :])


@dataclass(frozen=True, eq=False)
class Chunk:
    """Clean latents `[1, n, P, C]` of a step, as the codec draws them, and the condition they came from.

    after: what its order remembers when all of it is committed, where that is known; None of a part of it. before: the
    stream right before it, for a codec that needs it; None for one that draws a latent by itself. drawing: gives the
    frames of each latent, where they are being drawn already
    """

    latents: Tensor
    condition: Condition
    after: Any = None
    before: Recent | None = None
    drawing: tuple[Callable[[], np.ndarray], ...] = ()

    def __len__(self) -> int:
        return self.latents.shape[1]

    def __getitem__(self, cut: slice) -> Chunk:
        start, stop, step = cut.indices(len(self))
        if step != 1:
            raise ValueError(f"a chunk is cut into consecutive latents; step {step} was asked for")
        whole = (start, stop) == (0, len(self))
        before = None if self.before is None else self.before.then(self.latents[:, :start])
        condition = self.condition.slots(start, stop)
        after = self.after if whole else None
        return Chunk(self.latents[:, start:stop], condition, after, before, self.drawing[start:stop])

    @property
    def recent(self) -> Recent | None:
        """The stream right after it; None for a codec that draws a latent by itself."""
        return None if self.before is None else self.before.then(self.latents)


class Order(Protocol):
    """How chunks are denoised. Memory is opaque and immutable; a condition is of the latents asked for and `ahead`."""

    ahead: int  # latents behind the ones asked for whose sound must be known

    def start(self, bank: MemoryBank) -> Any: ...

    def denoise(
        self, state: StreamState, condition: Condition, n: int, stop: Callable[[], bool] | None
    ) -> Chunk | None: ...

    def commit(self, memory: Any, chunk: Chunk) -> Any: ...

    def refine(self, memory: Any) -> Any: ...

    def tensors(self, memory: Any) -> dict[str, Tensor]:
        """All that `restore` needs."""
        ...

    def restore(self, bank: MemoryBank, tensors: dict[str, Tensor]) -> Any:
        """The memory that `tensors` was given; bank: that of a stream that begins with the same reference."""
        ...


def noise_of(config: ModelConfig, state: StreamState, first: int, count: int, device: torch.device) -> Tensor:
    """`[1, count, P, C]` of the latents from `first` on."""
    return initial_noise(config, [state.seed], first, count).to(device)


class Sequential:
    """See the module docstring. Its memory is a `MemoryBank`."""

    ahead = 0

    def __init__(self, config: ModelConfig, model: DiT, finish: Finish = as_it_is) -> None:
        self.config, self.model, self.finish = config, model, finish
        self.sigmas = step_sigmas(config.schedule)

    def start(self, bank: MemoryBank) -> MemoryBank:
        return bank

    def denoise(
        self, state: StreamState, condition: Condition, n: int, stop: Callable[[], bool] | None
    ) -> Chunk | None:
        noise = noise_of(self.config, state, state.latent_index, n, condition.audio.device)
        predict = state.memory.predictor(self.model, condition)
        try:
            latents = denoise_chunk(
                predict if stop is None else stoppable(predict, stop), noise, self.sigmas, self.config.schedule.solver
            )
        except Stopped:
            return None
        return Chunk(self.finish(latents), condition)

    def commit(self, memory: MemoryBank, chunk: Chunk) -> MemoryBank:
        if chunk.after is not None:
            return chunk.after
        return memory.commit(self.model, chunk.latents, chunk.condition)

    def refine(self, memory: MemoryBank) -> MemoryBank:
        return memory.refine(self.model)

    def tensors(self, memory: MemoryBank) -> dict[str, Tensor]:
        return bank_tensors(memory)

    def restore(self, bank: MemoryBank, tensors: dict[str, Tensor]) -> MemoryBank:
        return bank_from(self.model, bank.reference, tensors)


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

    def __init__(self, config: ModelConfig, model: DiT, finish: Finish = as_it_is) -> None:
        self.config, self.model, self.finish = config, model, finish
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

    def tensors(self, memory: InFlight) -> dict[str, Tensor]:
        first = torch.tensor([memory.first], dtype=torch.int64)
        return {**bank_tensors(memory.window.bank), **flight_tensors(memory.window), "first": first}

    def restore(self, bank: MemoryBank, tensors: dict[str, Tensor]) -> InFlight:
        empty = self._empty(bank_from(self.model, bank.reference, tensors))
        window = replace(empty.window, flight=flight_from(self.model, tensors))
        return InFlight(window, int(tensors["first"]))

    def _empty(self, bank: MemoryBank) -> InFlight:
        return InFlight(DiagonalWindow(bank, self.sigmas, self.config.schedule.in_flight, finish=self.finish), -1)


ORDERS: dict[str, type[Sequential] | type[Diagonal]] = {"sequential": Sequential, "diagonal": Diagonal}
