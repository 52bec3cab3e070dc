# SPDX-License-Identifier: Apache-2.0
"""The denoiser as one captured graph a level of memory.

A call's shapes follow from how many slots are denoised and how many cached ones lie before them. Memory fills in the
first seconds of a stream and then stays full, so there are few such levels, all known beforehand: `levels` lists them,
the one of the full memory first, since a compiler that specialises does so for what it sees first.

A chunk lies in the same buffers whatever the memory's fill, and keys and values of memory in one storage. They are
copied when memory changes, once a chunk, and not for each of its evaluations.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowact_ros.engine.runtime.base import Progress, silent
from flowact_ros.engine.runtime.static import Capture, ShapeError, Slot, StaticCall
from flowact_ros.engine.streams.windows import stacked
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, Denoiser, DiT, Evaluation, Windows
from flowact_ros.models.layers import KeyValue, Window
from flowact_ros.timebase import FRAMES_PER_LATENT


@dataclass(frozen=True, order=True)
class Level:
    """batch: streams together; slots: latents denoised at once; cached: slots before them, the reference's included"""

    batch: int
    slots: int
    cached: int

    def __str__(self) -> str:
        streams = f" of {self.batch} streams" if self.batch > 1 else ""
        return f"{self.slots} slots under {self.cached} cached ones{streams}"


def levels(config: ModelConfig, batches: Sequence[int] = (1,)) -> list[Level]:
    """All that a live stream of this model calls, those of the steady state first.

    The reference's own pass sees nothing. Steps are of one latent up to a whole chunk, at every fill of memory; in the
    diagonal order the chunks in flight follow one by one. A memory entry's pass and `refine` are steps of one latent.
    """
    schedule, full = config.schedule, 1 + config.memory.long_term + 1  # reference, long-term and short-term memory
    flights = range(schedule.in_flight if schedule.order == "diagonal" else 1)
    chunk = schedule.chunk_latents
    slots = {first + n * chunk for first in range(1, chunk + 1) for n in flights} | {1}
    found = []
    for batch in batches:
        steps = [Level(batch, n, cached) for cached in range(full, 0, -1) for n in sorted(slots, reverse=True)]
        found += [*steps, Level(batch, 1, 0)]
    return found


class FlatDenoiser(nn.Module):
    """`DiT` as a function of tensors alone, in the order of `flatten`: what a graph and a file format can hold."""

    def __init__(self, model: DiT) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, sigma: Tensor, audio: Tensor, text: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Returns the clean latents `[B, S, P, C]`, then, of calls of one slot, its key and value of each layer."""
        left = list(rest)
        guidance = left.pop(0) if self.model.guidance_in is not None else None
        motion = _window(left)
        joint = _window(left) if len(self.model.double_blocks) else motion
        past = list(zip(left[::2], left[1::2])) or None
        clean, made = self.model(noisy, sigma, Condition(audio, text), Windows(joint, motion), past, guidance)
        return (clean, *(x for pair in made for x in pair)) if noisy.shape[1] == 1 else (clean,)


def _window(left: list[Tensor]) -> Window:
    """Taken from the front of `left`."""
    query_cos, query_sin, key_cos, key_sin = (left.pop(0) for _ in range(4))
    return Window((query_cos, query_sin), (key_cos, key_sin), None)


def flatten(
    model: DiT, noisy: Tensor, sigma: Tensor, condition: Condition, windows: Windows, guidance: Tensor | None = None
) -> tuple[Tensor, ...]:
    """What `FlatDenoiser` takes before the keys and values of memory: latents, noise levels, sound, text, the scale of
    guidance where the model has it, and rotations of queries and keys, of motion tokens and, where there are
    double-stream blocks, of all tokens.
    """
    flat = [noisy, sigma, condition.audio, condition.text]
    if model.guidance_in is not None:
        flat.append(torch.ones_like(sigma[:, 0]) if guidance is None else guidance)
    for window in (windows.motion, *([windows.joint] if len(model.double_blocks) else [])):
        flat += [*window.queries, *window.keys]
    return tuple(flat)


def example(model: DiT, level: Level, device: torch.device) -> tuple[Tensor, ...]:
    """Zeros of the shapes of a call at `level`, as `flatten` orders them, with the rotations of a stream."""
    c = model.config.dit
    noisy = torch.zeros(level.batch, level.slots, *c.latent_shape, device=device)
    audio = torch.zeros(level.batch, level.slots, FRAMES_PER_LATENT, c.audio_dim, device=device)
    text = torch.zeros(level.batch, level.slots, c.text_tokens, c.text_dim, device=device)
    at = torch.arange(level.slots, dtype=torch.float32, device=device) * FRAMES_PER_LATENT
    before = torch.arange(-level.cached, 0, dtype=torch.float32, device=device) * FRAMES_PER_LATENT
    windows = model.windows(at, before if level.cached else None)
    if level.batch > 1:  # where memory entries stand differs from stream to stream
        windows = stacked([windows] * level.batch)
    return flatten(model, noisy, noisy.new_zeros(noisy.shape[:2]), Condition(audio, text), windows)


def past_shapes(model: DiT, level: Level) -> list[tuple[int, ...]]:
    """Of the key and the value of each layer, `[B, H, tokens, D]`; none at a level without cached slots."""
    if not level.cached:
        return []
    c = model.config.dit
    joint, motion = len(model.joint_places), len(model.motion_places)
    tokens = [joint] * len(model.double_blocks) + [motion] * len(model.single_blocks)
    return [(level.batch, c.heads, level.cached * n, c.head_dim) for n in tokens for _ in range(2)]


class StaticDenoiser(Denoiser):
    """A `DiT`, for its levels alone. Calls of several threads follow each other.

    Keys and values come of calls of one slot only: those of memory entries and the reference. A stream's chunk of
    several slots is denoised, and its own are never read; there the list is empty.
    """

    def __init__(self, model: DiT, capture: Capture, batches: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._flat, self._capture = FlatDenoiser(model), capture
        self._levels = levels(model.config, batches)
        self._calls: dict[Level, StaticCall] = {}
        self._lock = threading.Lock()
        self._device = next(model.parameters()).device
        self._dtype = model.motion_in.weight.dtype
        self._storage: list[Tensor] = []  # of each layer's key and value, flat, as large as the largest level's
        self._past: dict[Level, tuple[Tensor, ...]] = {}  # views of it
        self._held: Sequence[KeyValue] | None = None  # what was copied into it
        self._slots: dict[tuple[object, ...], Slot] = {}

    def prepare(self, tell: Progress = silent) -> None:
        """Captures every level, and tells after each how many are done."""
        began = time.monotonic()
        for done, level in enumerate(self._levels, 1):
            with self._lock:
                self._make(level)
            seconds = time.monotonic() - began
            tell(f"the denoiser's graphs: {done} of {len(self._levels)} ({level}), {seconds:.1f} s")

    def windows(self, at: Tensor, cached_at: Tensor | None = None, mask: Tensor | None = None) -> Windows:
        return self.model.windows(at, cached_at, mask)

    def evaluate(self, one: Evaluation) -> tuple[Tensor, list[KeyValue]]:
        """Raises ShapeError for what is none of its levels."""
        noisy, sigma, condition, windows, past, guidance = one
        level = self._level(noisy, windows, past)
        with self._lock:
            call = self._make(level)
            if past is not None and past is not self._held:
                for buffer, given in zip(self._past[level], (x for pair in past for x in pair)):
                    buffer.copy_(given)
                self._held = past
            clean, *own = call(*flatten(self.model, noisy, sigma, condition, windows, guidance))
            own = [x.clone() for x in own]
            return clean.clone(), list(zip(own[::2], own[1::2]))

    def _level(self, noisy: Tensor, windows: Windows, past: list[KeyValue] | None) -> Level:
        tokens = len(self.model.motion_places)
        cached = 0 if past is None else past[-1][0].shape[2] // tokens  # the last block has motion tokens alone
        level = Level(*noisy.shape[:2], cached)
        if windows.motion.mask is not None:
            raise ShapeError("the denoiser's graphs were prepared for a stream, without a mask, not for one with it")
        if level not in self._levels:
            every = sorted(self._levels)
            raise ShapeError(
                f"the denoiser's graphs were prepared for {every[0]} to {every[-1]}, not for {level}; another length "
                "of memory or of a chunk needs another start"
            )
        return level

    def _make(self, level: Level) -> StaticCall:
        """The call of a level, made at its first use. Under the lock."""
        if level not in self._calls:
            slots = [self._slot(level, i, x) for i, x in enumerate(example(self.model, level, self._device))]
            self._past[level] = self._views(level)
            self._calls[level] = StaticCall(
                f"the denoiser at {level}", self._flat, slots, self._capture, self._past[level]
            )
        return self._calls[level]

    def _slot(self, level: Level, place: int, given: Tensor) -> Slot:
        """One for all levels with the same chunk and shape: only rotations of keys are of another at each fill."""
        key = (level.batch, level.slots, place, tuple(given.shape))
        if key not in self._slots:
            self._slots[key] = Slot(given, self._device)
        return self._slots[key]

    def _views(self, level: Level) -> tuple[Tensor, ...]:
        """Of the common storage of keys and values, each contiguous."""
        if not self._storage and level.cached:
            batch, cached = (max(getattr(x, name) for x in self._levels) for name in ("batch", "cached"))
            largest = past_shapes(self.model, Level(batch, 1, cached))
            with torch.inference_mode(False):
                self._storage = [torch.zeros(math.prod(s), dtype=self._dtype, device=self._device) for s in largest]
        shapes = past_shapes(self.model, level)
        return tuple(flat[: math.prod(shape)].view(shape) for flat, shape in zip(self._storage, shapes))
