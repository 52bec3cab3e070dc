# SPDX-License-Identifier: Apache-2.0
"""Stage 1: chunkwise diffusion forcing on latents (paper, section 2.2, autoregressive adaptation).

    flowact data motion --count 3000 --seconds 12 --out runs/data/motion
    flowact data motion --count 64 --seconds 12 --split heldout --out runs/data/motion_heldout
    flowact train motion --data runs/data/motion --heldout runs/data/motion_heldout --run runs/motion --minutes 60

A spatial preset learns the latents of `flowact data latents` instead, by the same stage (`training.sequences`).

A batch is some rows of consecutive chunks. Each chunk is denoised under the memory that the live stream would have
before it (see `windows`), made of the true latents: the last latent of each of up to four chunks before it, disturbed
with noise, since live it is the model's own. With `--self-forcing` a share of it is (see `self_forcing`). A share of
the batches begins a stream: the first chunk knows the reference alone.

Of motion, the error of changes from frame to frame counts beside that of the frames, in units of how much each control
changes. A head turns by a hundredth of its range a frame: an error that is small beside its range makes it tremble. The
best prediction stays the mean, but what is still wrong is wrong smoothly, and does not jump where chunks meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.schedule import add_noise, training_sigmas
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT
from flowact_ros.training.free_running import free_running, frozen
from flowact_ros.training.sequences import sequences
from flowact_ros.training.stages.self_forcing import GeneratedLatents, SelfForcing
from flowact_ros.training.stages.windows import Batch, tasks

STARTS = 0.2  # share of batches that begin a stream
MIXED = 0.15  # share of batches whose chunks differ in size: a cut may end a chunk after one or two latents
WHOLE = 0.85  # share of the other batches whose chunks have all three latents
DIAGONAL = 0.25  # share of rows with a window of several chunks as well
MEMORY_NOISE = 0.4  # deviation of the strongest noise on memory, in units of the changes
MOST_NOISE = 0.15  # the same in deviations of the channel: fast ones have no more
DROPPED = 0.1  # share of rows without sound, and of rows without text
NEUTRAL = 0.5  # share of rows, in the middle of a stream, whose reference is the neutral pose
QUICK_CLIPS = 16  # clips of the evaluation during training


class Adaptation:
    """See the module docstring. A `trainer.Method`."""

    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        batch: int = 32,
        windows: int = 3,
        self_forcing: SelfForcing = SelfForcing(),
    ) -> None:
        self.config, self.batch_size, self.windows = config, batch, windows
        self.module = DiT(config)
        self.data, self.heldout = sequences(config, data), sequences(config, [heldout])
        self._check()
        self.generated = GeneratedLatents(self_forcing, self.data)

    def _check(self) -> None:
        if (own := self.data.facts) != (other := self.heldout.facts):
            raise ValueError(f"--data is of {own} and --heldout of {other}; make both with the same VAE")
        longest = (self.config.memory.taught + 1 + self.windows) * self.config.schedule.chunk_latents
        needed = longest * self.data.per_latent + 1
        if self.data.items < needed:
            seconds = (longest + 1) * FRAMES_PER_LATENT / FRAME_RATE
            raise ValueError(
                f"clips of {self.data.items / self.data.per_latent:g} latents are too short, {longest} and what shows "
                f"before them are needed; make them with --seconds {seconds:.1f} or more"
            )

    # -- batches ---------------------------------------------------------------------------------------------------

    def batch(self, generator: torch.Generator, iteration: int) -> Batch:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        sizes, history = self._sizes(rng)
        count = sum(sizes)
        clip = rng.integers(len(self.data), size=self.batch_size)
        start = rng.integers(1, self.data.items - self.data.per_latent * count + 1, size=self.batch_size)
        clip, generated = self.generated.draw(rng, clip)
        clean, condition = self.data.latents(clip, start, count), self.data.condition(clip, start, count)
        before = np.where(
            rng.random(self.batch_size) < NEUTRAL, -1, rng.integers(self.data.items, size=self.batch_size)
        )
        if history == 0:  # a stream begins where its picture is
            before = start - 1
        reference = self.data.still(clip, before)
        kept = torch.rand(2, self.batch_size, generator=generator) >= DROPPED
        condition = Condition(
            condition.audio * kept[0, :, None, None, None], condition.text * kept[1, :, None, None, None]
        )
        strongest = (MEMORY_NOISE * self.data.pace).clamp_max(MOST_NOISE)
        strength = strongest * torch.rand(self.batch_size, 1, 1, 1, generator=generator)
        disturbance = strength * torch.randn(clean.shape, generator=generator)
        if generated.max() >= 0:
            disturbance = disturbance + self.generated.cut(generated, start, count)
        news = sizes[history:]
        several = news[: self.config.schedule.in_flight]
        rows = max(1, round(DIAGONAL * self.batch_size))
        levels, noise = [], []
        for chunks, count in (*(((size,), self.batch_size) for size in news), (several, rows)):
            levels.append(training_sigmas((count, len(chunks)), generator))
            noise.append(torch.randn(count, sum(chunks), *clean.shape[2:], generator=generator))
        return Batch(sizes, history, clean, condition, reference, disturbance, levels, noise)

    def _sizes(self, rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
        """Sizes of the chunks of a batch, and how many of them are memory only."""
        history, largest = self.config.memory.taught + 1, self.config.schedule.chunk_latents
        kind = rng.random()
        if kind < STARTS:
            first = rng.integers(1, largest + 1, size=2).tolist()
            return (*first, *(largest for _ in range(self.windows - 1))), 0
        if kind < STARTS + MIXED:
            return tuple(rng.integers(1, largest + 1, size=history + self.windows).tolist()), history
        size = largest if rng.random() < WHOLE else int(rng.integers(1, largest + 1))
        return (size,) * (history + self.windows), history

    def due(self, iteration: int) -> bool:
        return self.generated.due(iteration)

    def refresh(self, ema: dict[str, Tensor], iteration: int, generator: torch.Generator) -> None:
        """Make memory of the model's own latents; see `self_forcing`."""
        self.generated.make(frozen(self.config, ema), iteration, generator)

    def state_dict(self) -> dict[str, Any]:
        return self.generated.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generated.load_state_dict(state)

    # -- loss ------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        loss, error, still, count = 0.0, 0.0, 0.0, 0
        for (task,) in tasks(batch, self.module):
            noisy = add_noise(task.clean, task.noise, task.sigma)
            predicted, _ = self.module(noisy, task.sigma, task.condition, task.windows, task.past)
            off = predicted.float() - task.clean
            loss = loss + self.data.cost(off, task.sigma)
            error, still = error + off.detach().square().sum(), still + task.clean.square().sum()
            count += task.clean.numel()
        return {"loss": loss / count, "error": error / count, "still": still / count}

    # -- evaluation ------------------------------------------------------------------------------------------------

    def sheet(self, module: DiT, path: Path) -> dict[str, float]:
        """Figures of free-running latents on a few held-out clips, and what was made of them, at `path`."""
        return self.shown(module, path, QUICK_CLIPS, self.config.schedule.steps)

    def shown(self, module: DiT, path: Path, clips: int, steps: int) -> dict[str, float]:
        """steps: evaluations a chunk"""
        made, truth = free_running(module, self.heldout, clips, steps)
        self.heldout.show(made, truth, path)
        return self.heldout.figures(made, truth, self.config.schedule.chunk_latents * self.heldout.per_latent)
