# SPDX-License-Identifier: Apache-2.0
"""Rows of consecutive chunks, cut into windows that a network sees as it would live.

Each chunk is denoised under the memory that the live stream would have before it. The keys and values of a row's
entries are made once and read by all of its windows, by the same functions as live. A window holds one chunk (the
sequential order) or, on some rows, the next chunks too at rising noise (the diagonal order). Windows in which the same
slots stand at the same places go through a network together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.kv_cache import Cache, entry_cache, join, reference_cache, stream_windows
from flowact_ros.models.dit import Condition, DiT, Windows


@dataclass(frozen=True)
class Batch:
    """Rows of consecutive chunks of the given sizes [latents]; the first `history` of them are memory only.

    motion `[B, L, P, C]`: the true latents, of motion or pictures; conditions, reference `[B, P, C]`, disturbance
    `[B, L, P, C]` of memory: noise, and the
    model's own errors where it made the memory; noise levels
    `[B', chunks]` and noise `[B', slots, P, K]` of each window with one chunk, then of the window with several, which
    only the first B' rows have.
    """

    sizes: tuple[int, ...]
    history: int
    motion: Tensor
    condition: Condition
    reference: Tensor
    disturbance: Tensor
    levels: list[Tensor]
    noise: list[Tensor]


@dataclass(frozen=True)
class Task:
    """Windows in which the same slots stand at the same places, one below the other as rows; shapes as of `Batch`.

    chunks: in each window; row `[B]`: of the batch, that each window is of; sigma `[B, S]`: the noise level of each
    slot; past: memory by layer, made by the network that is to read it
    """

    chunks: int
    row: Tensor
    noise: Tensor
    sigma: Tensor
    clean: Tensor
    condition: Condition
    windows: Windows
    past: Cache


@dataclass(frozen=True)
class Layout:
    """One window: memory entries (chunks), how old each is [latents], its first chunk, and how many chunks it has."""

    entries: tuple[int, ...]
    ages: tuple[int, ...]
    chunk: int
    count: int


def sequential(every: Iterator[tuple[Task, ...]]) -> Iterator[tuple[Task, ...]]:
    """Only the windows of one chunk: the order that is distilled. Chunks of the diagonal order do not share a level."""
    return (tasks for tasks in every if tasks[0].chunks == 1)


def tasks(batch: Batch, *modules: DiT) -> Iterator[tuple[Task, ...]]:
    """The windows of a batch, alike ones together: the same task for each of `modules`, under its own memory."""
    memories = [memory(module, batch) for module in modules]
    for layouts in groups(batch, modules[0].config.memory.taught):
        parts = [window(batch, layout) for layout in layouts]
        noise, sigma, clean, audio, text = (torch.cat(part) for part in zip(*parts))
        windows = stream_windows(modules[0], layouts[0].ages, clean.shape[1], clean.device)
        rows = len(parts[0][0])
        row = torch.arange(rows, device=clean.device).repeat(len(layouts))
        shared = (layouts[0].count, row, noise, sigma, clean, Condition(audio, text), windows)
        yield tuple(Task(*shared, past(made, layouts, rows)) for made in memories)


def groups(batch: Batch, long_term: int) -> list[list[Layout]]:
    """All windows of a batch; those in which the same slots stand at the same places, together."""
    found: dict[tuple, list[Layout]] = {}
    for layout in _layouts(batch, long_term + 1):
        chunks = batch.sizes[layout.chunk : layout.chunk + layout.count]
        found.setdefault((layout.ages, layout.count, sum(chunks)), []).append(layout)
    return list(found.values())


def _layouts(batch: Batch, most: int) -> Iterator[Layout]:
    """most: entries of a full memory"""
    ends = np.cumsum(batch.sizes)
    for chunk in range(batch.history, len(batch.sizes)):
        entries = tuple(range(max(0, chunk - most), chunk))
        ages = tuple(int(ends[chunk]) - batch.sizes[chunk] - int(ends[i]) + 1 for i in entries)
        yield Layout(entries, ages, chunk, 1)
        several = batch.levels[-1].shape[1]
        if chunk == batch.history and several > 1:
            yield Layout(entries, ages, chunk, several)


def window(batch: Batch, layout: Layout) -> tuple[Tensor, ...]:
    """Noise, its level by slot, clean latents, sound and text of one window."""
    which = -1 if layout.count > 1 else layout.chunk - batch.history
    levels, noise = batch.levels[which], batch.noise[which]
    rows, sizes = len(noise), batch.sizes[layout.chunk : layout.chunk + layout.count]
    start = sum(batch.sizes[: layout.chunk])
    slots = slice(start, start + sum(sizes))
    sigma = torch.cat([levels[:, i : i + 1].expand(-1, size) for i, size in enumerate(sizes)], 1)
    told = batch.condition.slots(slots.start, slots.stop)
    return noise, sigma, batch.motion[:rows, slots], told.audio[:rows], told.text[:rows]


def memory(module: DiT, batch: Batch) -> tuple[Cache, list[Cache]]:
    """Caches of the reference and of the last latents of all chunks but the last, `[B, H, tokens, D]` each."""
    reference = reference_cache(module, batch.reference)
    places = torch.from_numpy(np.cumsum(batch.sizes)[:-1] - 1).to(batch.motion.device)
    b, e = len(batch.motion), len(places)
    latents = batch.motion[:, places] + batch.disturbance[:, places]
    parts = (latents, batch.condition.audio[:, places], batch.condition.text[:, places])
    latents, audio, text = (part.flatten(0, 1).unsqueeze(1) for part in parts)
    repeated = [tuple(t.repeat_interleave(e, 0) for t in layer) for layer in reference]
    made = entry_cache(module, repeated, latents, Condition(audio, text))
    split = [tuple(t.unflatten(0, (b, e)) for t in layer) for layer in made]
    return reference, [[tuple(t[:, i] for t in layer) for layer in split] for i in range(e)]


def past(made: tuple[Cache, list[Cache]], layouts: list[Layout], rows: int) -> Cache:
    """What the windows of `layouts` see of a memory, one below the other, each with its first `rows` rows."""
    reference, entries = made
    caches = [join([reference, *(entries[i] for i in layout.entries)]) for layout in layouts]
    return [
        tuple(torch.cat([t[:rows] for t in tensors]) for tensors in zip(*layer)) for layer in zip(*caches)
    ]
