# SPDX-License-Identifier: Apache-2.0
"""Stage 1: chunkwise diffusion forcing on motion (paper, section 2.2, autoregressive adaptation).

    flowact data motion --count 3000 --seconds 12 --out runs/data/motion
    flowact data motion --count 64 --seconds 12 --split heldout --out runs/data/motion_heldout
    flowact train motion --data runs/data/motion --heldout runs/data/motion_heldout --run runs/motion --minutes 60

A batch is some rows of consecutive chunks. Each chunk is denoised under the memory that the live stream would have
before it, made of the true motion: the last latent of each of up to four chunks before it, disturbed with noise, since
live it is the model's own. The keys and values of a row's entries are made once and read by all of its windows, by the
same functions as live. A window holds one chunk (the sequential order) or, on some rows, the next chunks too at rising
noise (the diagonal order). A share of the batches begins a stream: the first chunk knows the reference alone.

The error of changes from frame to frame counts beside that of the frames, in units of how much each control changes. A
head turns by a hundredth of its range a frame: an error that is small beside its range makes it tremble. The best
prediction stays the mean, but what is still wrong is wrong smoothly, and does not jump where chunks meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.performances import Performances, read_performances
from flowact_ros.diffusion.kv_cache import Cache, entry_cache, join, reference_cache, stream_windows
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import noise_for, rollout
from flowact_ros.diffusion.schedule import add_noise, step_sigmas, training_sigmas, velocity_weight
from flowact_ros.models.codec.motion import CONTROL_NAMES, normalise
from flowact_ros.models.config import ModelConfig, with_overrides
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.motion_figures import figures, table

STARTS = 0.2  # share of batches that begin a stream
MIXED = 0.15  # share of batches whose chunks differ in size: a cut may end a chunk after one or two latents
WHOLE = 0.85  # share of the other batches whose chunks have all three latents
DIAGONAL = 0.25  # share of rows with a window of several chunks as well
CHANGES = 0.1  # weight of the error of changes from frame to frame, in units of the changes
EVENTS = {"blink_left": 4.0, "blink_right": 4.0, "gaze_x": 2.0, "gaze_y": 2.0}  # weights of rare, fast controls
SLOWEST = 0.055  # [deviations a frame] slower controls count like those that change by this
MEMORY_NOISE = 0.4  # deviation of the strongest noise on memory, in units of the changes
MOST_NOISE = 0.15  # the same in deviations of the control: fast ones have no more
DROPPED = 0.1  # share of rows without sound, and of rows without text
NEUTRAL = 0.5  # share of rows, in the middle of a stream, whose reference is the neutral pose
QUICK_CLIPS = 16  # clips of the evaluation during training


@dataclass(frozen=True)
class Batch:
    """Rows of consecutive chunks of the given sizes [latents]; the first `history` of them are memory only.

    motion `[B, L, P, K]`, its conditions, reference `[B, P, K]`, disturbance `[B, L, P, K]` of memory; noise levels
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
class Layout:
    """One window: memory entries (chunks), how old each is [latents], its first chunk, and how many chunks it has."""

    entries: tuple[int, ...]
    ages: tuple[int, ...]
    chunk: int
    count: int


class Adaptation:
    """See the module docstring. A `trainer.Method`."""

    def __init__(
        self, config: ModelConfig, data: Sequence[Path], heldout: Path, *, batch: int = 32, windows: int = 3
    ) -> None:
        self.config, self.batch_size, self.windows = config, batch, windows
        self.module = DiT(config)
        self.data = read_performances(*data)
        self.heldout = read_performances(heldout)
        self.table = torch.from_numpy(self.data.vectors.astype(np.float32))
        self.pace = pace(self.data)
        self.change_weight = CHANGES / (self.pace.square() + SLOWEST**2)
        self.weight = torch.tensor([EVENTS.get(name, 1.0) for name in CONTROL_NAMES])

    # -- batches ---------------------------------------------------------------------------------------------------

    def batch(self, generator: torch.Generator, iteration: int) -> Batch:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        sizes, history = self._sizes(rng)
        count = sum(sizes)
        clip = rng.integers(len(self.data), size=self.batch_size)
        start = rng.integers(1, self.data.frames - FRAMES_PER_LATENT * count + 1, size=self.batch_size)
        motion, condition = cut(self.data, self.table, clip, start, count)
        before = np.where(
            rng.random(self.batch_size) < NEUTRAL, -1, rng.integers(self.data.frames, size=self.batch_size)
        )
        if history == 0:  # a stream begins where its picture is
            before = start - 1
        reference = normalise(torch.from_numpy(self.data.controls[clip, before].astype(np.float32)))
        reference = torch.where(torch.from_numpy(before < 0)[:, None], 0.0, reference)
        kept = torch.rand(2, self.batch_size, generator=generator) >= DROPPED
        condition = Condition(
            condition.audio * kept[0, :, None, None, None], condition.text * kept[1, :, None, None, None]
        )
        strongest = (MEMORY_NOISE * self.pace).clamp_max(MOST_NOISE)
        strength = strongest * torch.rand(self.batch_size, 1, 1, 1, generator=generator)
        disturbance = strength * torch.randn(motion.shape, generator=generator)
        news = sizes[history:]
        several = news[: self.config.schedule.in_flight]
        rows = max(1, round(DIAGONAL * self.batch_size))
        levels, noise = [], []
        for chunks, count in (*(((size,), self.batch_size) for size in news), (several, rows)):
            levels.append(training_sigmas((count, len(chunks)), generator))
            noise.append(torch.randn(count, sum(chunks), *motion.shape[2:], generator=generator))
        still = reference[:, None].expand(-1, motion.shape[2], -1)
        return Batch(sizes, history, motion, condition, still, disturbance, levels, noise)

    def _sizes(self, rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
        """Sizes of the chunks of a batch, and how many of them are memory only."""
        history, largest = self.config.memory.long_term + 1, self.config.schedule.chunk_latents
        kind = rng.random()
        if kind < STARTS:
            first = rng.integers(1, largest + 1, size=2).tolist()
            return (*first, *(largest for _ in range(self.windows - 1))), 0
        if kind < STARTS + MIXED:
            return tuple(rng.integers(1, largest + 1, size=history + self.windows).tolist()), history
        size = largest if rng.random() < WHOLE else int(rng.integers(1, largest + 1))
        return (size,) * (history + self.windows), history

    # -- loss ------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        ends = np.cumsum(batch.sizes)
        reference, entries = self._memory(batch, ends)
        loss, error, still, count = 0.0, 0.0, 0.0, 0
        for layouts in self._groups(batch, ends):
            parts = [self._window(batch, ends, layout, reference, entries) for layout in layouts]
            noise, sigma, clean, audio, text = (torch.cat(part) for part in list(zip(*parts))[:5])
            caches = [part[5] for part in parts]
            past = [tuple(torch.cat(tensors) for tensors in zip(*layer)) for layer in zip(*caches)]
            windows = stream_windows(self.module, layouts[0].ages, clean.shape[1], clean.device)
            noisy = add_noise(clean, noise, sigma)
            predicted, _ = self.module(noisy, sigma, Condition(audio, text), windows, past)
            off = predicted.float() - clean
            squared = off.square()
            costs = squared + self.change_weight.to(off.device) * changes(off).square()
            loss = loss + (costs * self.weight.to(off.device) * velocity_weight(sigma)[..., None, None]).sum()
            error, still = error + squared.detach().sum(), still + clean.square().sum()
            count += clean.numel()
        return {"loss": loss / count, "error": error / count, "still": still / count}

    def _window(
        self, batch: Batch, ends: np.ndarray, layout: Layout, reference: Cache, entries: list[Cache]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Cache]:
        """Noise, its level by slot, clean latents, sound, text and memory of one window."""
        which = -1 if layout.count > 1 else layout.chunk - batch.history
        levels, noise = batch.levels[which], batch.noise[which]
        rows, sizes = len(noise), batch.sizes[layout.chunk : layout.chunk + layout.count]
        start = int(ends[layout.chunk]) - sizes[0]
        slots = slice(start, start + sum(sizes))
        sigma = torch.cat([levels[:, i : i + 1].expand(-1, size) for i, size in enumerate(sizes)], 1)
        told = batch.condition.slots(slots.start, slots.stop)
        memory = join([reference, *(entries[i] for i in layout.entries)])
        memory = [(key[:rows], value[:rows]) for key, value in memory]
        return noise, sigma, batch.motion[:rows, slots], told.audio[:rows], told.text[:rows], memory

    def _memory(self, batch: Batch, ends: np.ndarray) -> tuple[Cache, list[Cache]]:
        """Caches of the reference and of the last latents of all chunks but the last, `[B, H, tokens, D]` each."""
        reference = reference_cache(self.module, batch.reference)
        places = torch.from_numpy(ends[:-1] - 1).to(batch.motion.device)
        b, e = len(batch.motion), len(places)
        latents = batch.motion[:, places] + batch.disturbance[:, places]
        parts = (latents, batch.condition.audio[:, places], batch.condition.text[:, places])
        latents, audio, text = (part.flatten(0, 1).unsqueeze(1) for part in parts)
        repeated = [tuple(t.repeat_interleave(e, 0) for t in layer) for layer in reference]
        made = entry_cache(self.module, repeated, latents, Condition(audio, text))
        split = [tuple(t.unflatten(0, (b, e)) for t in layer) for layer in made]
        return reference, [[tuple(t[:, i] for t in layer) for layer in split] for i in range(e)]

    def _groups(self, batch: Batch, ends: np.ndarray) -> list[list[Layout]]:
        """All windows of a batch; those in which the same slots stand at the same places, together."""
        groups: dict[tuple, list[Layout]] = {}
        for layout in self._layouts(batch, ends):
            chunks = batch.sizes[layout.chunk : layout.chunk + layout.count]
            groups.setdefault((layout.ages, layout.count, sum(chunks)), []).append(layout)
        return list(groups.values())

    def _layouts(self, batch: Batch, ends: np.ndarray) -> Iterator[Layout]:
        most, total = self.config.memory.long_term + 1, len(batch.sizes)
        for chunk in range(batch.history, total):
            entries = tuple(range(max(0, chunk - most), chunk))
            ages = tuple(int(ends[chunk]) - batch.sizes[chunk] - int(ends[i]) + 1 for i in entries)
            yield Layout(entries, ages, chunk, 1)
            several = batch.levels[-1].shape[1]
            if chunk == batch.history and several > 1:
                yield Layout(entries, ages, chunk, several)

    # -- evaluation ------------------------------------------------------------------------------------------------

    def sheet(self, module: DiT, path: Path) -> dict[str, float]:
        """Figures of free-running motion on a few held-out clips, and the motion itself as `path` .npz."""
        made, truth = free_running(module, self.heldout, QUICK_CLIPS, self.config.schedule.steps)
        np.savez(path.with_suffix(".npz"), made=made.numpy(), truth=truth.numpy())
        return figures(made, truth, self.config.schedule.chunk_latents * FRAMES_PER_LATENT)


def pace(data: Performances) -> Tensor:
    """By how much each control changes from frame to frame, `[K]`: the root of the mean square of normalised motion."""
    some = normalise(torch.from_numpy(data.controls[:100].astype(np.float32)))
    return some.diff(dim=1).square().mean((0, 1)).sqrt()


def changes(off: Tensor) -> Tensor:
    """Errors `[B, S, P, K]` -> those of the change to each frame from the one before, of which the first is known."""
    frames = off.flatten(1, 2)
    return (frames - torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)).view_as(off)


def cut(
    data: Performances, table: Tensor, clip: np.ndarray, start: np.ndarray, count: int
) -> tuple[Tensor, Condition]:
    """Normalised motion `[B, count, 4, K]` and conditions of `count` latents from frame `start` `[B]` of clips `[B]`.

    table: sentence vectors `[texts, 384]`. A latent's text is the one in force in its middle.
    """
    frames = start[:, None] + np.arange(FRAMES_PER_LATENT * count)
    motion = normalise(torch.from_numpy(data.controls[clip[:, None], frames].astype(np.float32)))
    audio = torch.from_numpy(data.sound[clip[:, None], frames].astype(np.float32))
    text = table[
        torch.from_numpy(data.text[clip[:, None], frames[:, FRAMES_PER_LATENT // 2 :: FRAMES_PER_LATENT]])
    ]
    split = (count, FRAMES_PER_LATENT)
    return motion.unflatten(1, split), Condition(audio.unflatten(1, split), text.unsqueeze(2))


@torch.no_grad()
def free_running(
    module: DiT, data: Performances, clips: int, steps: int, *, shuffled: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Motion `[B, T, K]` that the model makes from the neutral pose on, and the truth of the same sound (normalised).

    shuffled: each clip hears the next one's sound, a control that must fail
    """
    config = module.config
    table = torch.from_numpy(data.vectors.astype(np.float32))
    size, device = config.schedule.chunk_latents, next(module.parameters()).device
    count = data.frames // (size * FRAMES_PER_LATENT) * size
    rows = np.arange(min(clips, len(data)))
    truth, condition = cut(data, table, rows, np.zeros_like(rows), count)
    audio = condition.audio.roll(1, 0) if shuffled else condition.audio
    condition = Condition(audio.to(device), condition.text.to(device))
    bank = MemoryBank.start(module, torch.zeros(len(rows), *config.dit.latent_shape, device=device))
    sigmas = step_sigmas(with_overrides(config, {"schedule": {"steps": steps}}).schedule)

    def noise(first: int, number: int) -> Tensor:
        shape = (len(rows), *config.dit.latent_shape)
        return (
            torch.cat([noise_for(seed, first + i, shape) for i in range(number)]).transpose(0, 1).to(device)
        )

    parts = (condition.slots(k, k + size) for k in range(0, count, size))
    made = [latents.cpu() for latents, _ in rollout(module, bank, parts, noise, sigmas)]
    return torch.cat(made, 1).flatten(1, 2), truth.flatten(1, 2)


def evaluate(module: DiT, data: Performances, clips: int, evaluations: Sequence[int]) -> str:
    """The table of free-running motion on some of `data`, by evaluations a chunk; the last also with other sound."""
    chunk = module.config.schedule.chunk_latents * FRAMES_PER_LATENT
    rows = {f"{steps} evaluations": free_running(module, data, clips, steps) for steps in evaluations}
    last = evaluations[-1]
    rows[f"{last}, another clip's sound"] = free_running(module, data, clips, last, shuffled=True)
    return table({name: figures(made, truth, chunk) for name, (made, truth) in rows.items()})
