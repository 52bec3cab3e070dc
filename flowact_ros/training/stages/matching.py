# SPDX-License-Identifier: Apache-2.0
"""Third phase of distillation: distribution matching on the student's own streams (DMD; paper, section 2.2).

The student makes chunk after chunk online, on the memory of what it made before, through the live rollout; each batch
leaves it at one of its steps, drawn at random, whose prediction carries the gradient (backward simulation: the steps
before it are the student's own, too). Two networks look at what it made under noise: the teacher knows the real
distribution, the critic learns the student's. Both begin as the teacher. Where they differ, the student is moved from
fake to real. The critic takes `ratio` steps for each step of the student.

Peers saw motion die in this phase (LiveAvatar keeps .38 of its teacher's expression, by DynaForcing's table), hence the
guard: sheets are judged by the ratios of spread, the best is kept, and the run ends when none gets better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import rollout
from flowact_ros.diffusion.schedule import add_noise, matching_sigmas, step_sigmas
from flowact_ros.models.config import with_overrides
from flowact_ros.training.free_running import frozen
from flowact_ros.training.losses import flow_loss, matching_loss
from flowact_ros.training.stages.distillation import Distillation, predictor
from flowact_ros.training.stages.windows import Batch, Task, groups, sequential, tasks, window


@dataclass(frozen=True)
class Online:
    """A batch whose chunks after the history are to be made by the student; noise and levels are those of comparison.

    starts: the student's own noise `[B, S, P, K]` of each chunk; exit_at: the step that it is left at
    """

    batch: Batch
    starts: list[Tensor]
    exit_at: int


class DistributionMatching(Distillation):
    """See the module docstring. A method with the roles "teacher" and "critic".

    guidance: the scale of the teacher's prediction, which it must have learned where it is not 1; rate: the critic's
    learning rate in units of the student's
    """

    def __init__(
        self, *args: Any, teacher: dict[str, Tensor], ratio: int, rate: float, guidance: float, **options: Any
    ) -> None:
        super().__init__(*args, teacher=teacher, **options)
        self.critic = frozen(self.config, teacher).requires_grad_(True)
        self.roles["critic"], self.rates["critic"] = self.critic, rate
        self.ratio, self.guidance = ratio, guidance
        self.sigmas = step_sigmas(with_overrides(self.config, {"schedule": {"steps": self.steps}}).schedule)

    def turn(self, iteration: int) -> str | None:
        return None if iteration % (self.ratio + 1) == self.ratio else "critic"

    def batch(self, generator: torch.Generator, iteration: int) -> Online:
        batch = super().batch(generator, iteration)
        shift = self.config.schedule.shift
        levels = [matching_sigmas(tuple(level.shape), shift, generator) for level in batch.levels]
        starts = [torch.randn(noise.shape, generator=generator) for noise in batch.noise[:-1]]
        exit_at = int(torch.randint(self.steps, (1,), generator=generator))
        return Online(replace(batch, levels=levels), starts, exit_at)

    def step(self, batch: Online, iteration: int) -> dict[str, Tensor]:
        if self.turn(iteration) == "critic":
            with torch.no_grad():
                made = self.made(batch)
            return {"loss": self._criticise(made)}
        return {"loss": self._match(self.made(batch))}

    def made(self, online: Online) -> Batch:
        """The batch with the student's chunks in place of the true ones; they remember the history, then themselves."""
        batch, stops = online.batch, list(accumulate(online.batch.sizes))
        parts = [slice(stop - size, stop) for stop, size in zip(stops, batch.sizes)]
        told = [batch.condition.slots(part.start, part.stop) for part in parts]
        bank = MemoryBank.start(self.module, batch.reference)
        for part, condition in zip(parts[: batch.history], told):
            past = (batch.motion + batch.disturbance)[:, part]
            bank = bank.commit(self.module, past, condition)
        starts = iter(online.starts)
        chunks = rollout(
            self.module,
            bank,
            told[batch.history :],
            lambda first, count: next(starts),
            self.sigmas,
            exit_at=online.exit_at,
        )
        before = sum(batch.sizes[: batch.history])
        latents = [batch.motion[:, :before], *(latents.float() for latents, _ in chunks)]
        disturbance = batch.disturbance.clone()
        disturbance[:, before:] = 0.0
        return replace(batch, motion=torch.cat(latents, 1), disturbance=disturbance)

    def _match(self, made: Batch) -> Tensor:
        """The student's loss; the other networks give no gradient."""
        seen = replace(made, motion=made.motion.detach())
        with torch.no_grad():
            pairs = [self._seen(*pair) for pair in sequential(tasks(seen, self.teacher, self.critic))]
        every = groups(made, self.config.memory.taught)
        chunks = [
            torch.cat([window(made, one)[2] for one in alike]) for alike in every if alike[0].count == 1
        ]
        losses = [matching_loss(own, *pair) * own.numel() for own, pair in zip(chunks, pairs, strict=True)]
        return torch.stack(losses).sum() / sum(own.numel() for own in chunks)

    def _seen(self, teachers: Task, critics: Task) -> tuple[Tensor, Tensor]:
        """What the teacher and the critic take for clean when they see the student's chunks under noise."""
        noisy = add_noise(teachers.clean, teachers.noise, teachers.sigma)
        scale = torch.full((len(noisy),), self.guidance, device=noisy.device)
        real = predictor(self.teacher, teachers, scale)(noisy, teachers.sigma)
        return real, predictor(self.critic, critics)(noisy, critics.sigma)

    def _criticise(self, made: Batch) -> Tensor:
        """The critic's loss: it learns what the student makes."""
        losses, count = [], 0
        for (task,) in sequential(tasks(made, self.critic)):
            noisy = add_noise(task.clean, task.noise, task.sigma)
            predicted = predictor(self.critic, task)(noisy, task.sigma)
            losses.append(flow_loss(predicted, task.clean, task.sigma) * task.clean.numel())
            count += task.clean.numel()
        return torch.stack(losses).sum() / count
