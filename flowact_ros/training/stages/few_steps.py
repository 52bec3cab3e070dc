# SPDX-License-Identifier: Apache-2.0
"""Second phase of distillation: the teacher's long way from noise to motion in a few steps, in segments.

The teacher follows the flow in `teacher_steps` of second order. Its way is cut into as many segments as the student has
steps. A step of the student is to reach the segment's end, from where its own steps before have led it, as they will
live: what they missed is still to be made up for. Its steps are Euler's, whose last one gives the prediction itself. Of
the second order's the last would add to it a multiple of what it differs by from the prediction before, and that
multiple of its error: motion trembles. The number of segments falls during the run: 12, 6, 3 of a teacher's 24
(progressive distillation, Salimans and Ho 2022; but each target is the first teacher's, so that no error is handed on).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from flowact_ros.diffusion.memory import Predict
from flowact_ros.diffusion.sampler import flow_step, implied_clean
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.config import ConfigError, with_overrides
from flowact_ros.training.stages.distillation import Distillation, draw_scales, predictor
from flowact_ros.training.stages.guidance import Scaled
from flowact_ros.training.stages.windows import sequential, tasks


class StepDistillation(Distillation):
    """See the module docstring.

    segments: the student's numbers of steps, one after another; total: steps of the run; scales: of guidance, which the
    teacher must know where they are not 1; both are told them
    """

    def __init__(
        self,
        *args: Any,
        teacher_steps: int,
        segments: Sequence[int],
        total: int,
        scales: tuple[float, float],
        **options: Any,
    ) -> None:
        super().__init__(*args, steps=segments[-1], **options)
        for count in segments:
            if count < 1 or teacher_steps % count:
                raise ConfigError(f"{count} segments do not divide the teacher's {teacher_steps} steps")
        self.segments, self.total, self.scales = tuple(segments), total, scales
        self.sigmas = step_sigmas(
            with_overrides(self.config, {"schedule": {"steps": teacher_steps}}).schedule
        )

    def segments_at(self, iteration: int) -> int:
        """The student's number of steps at a training step."""
        return self.segments[min(iteration * len(self.segments) // self.total, len(self.segments) - 1)]

    def judge(self, row: dict[str, float], iteration: int) -> float:
        """Only what the student begins as, and what is taught its last number of steps, can be judged at it."""
        ready = iteration == 0 or self.segments_at(iteration) == self.segments[-1]
        return super().judge(row, iteration) if ready else math.inf

    def batch(self, generator: torch.Generator, iteration: int) -> Scaled:
        return Scaled(
            super().batch(generator, iteration), draw_scales(self.batch_size, self.scales, generator)
        )

    def step(self, batch: Scaled, iteration: int) -> dict[str, Tensor]:
        count = self.segments_at(iteration)
        stride = (len(self.sigmas) - 1) // count
        sigmas = self.sigmas[::stride]
        loss, number = 0.0, 0
        for own, teachers in sequential(tasks(batch.batch, self.module, self.teacher)):
            scale = batch.scale[own.row]
            with torch.no_grad():
                path = trajectory(predictor(self.teacher, teachers, scale), own.noise, self.sigmas)[::stride]
            for clean, target, sigma in own_way(predictor(self.module, own, scale), path, sigmas):
                loss = loss + self.data.cost(clean - target, torch.full_like(own.sigma, sigma))
                number += clean.numel()
        return {"loss": loss / number, "segments": torch.tensor(float(count))}


def trajectory(predict: Predict, noise: Tensor, sigmas: Sequence[float]) -> list[Tensor]:
    """Where a chunk `noise` `[B, S, P, C]` is at each of `sigmas` on its way to clean motion."""
    path, slope = [noise], None
    for sigma, following in pairwise(sigmas):
        level = torch.full(noise.shape[:2], sigma, device=noise.device, dtype=noise.dtype)
        moved, slope = flow_step(path[-1], predict(path[-1], level), sigma, following, slope)
        path.append(moved)
    return path


def own_way(
    predict: Predict, path: Sequence[Tensor], sigmas: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """What a student predicts at each step, what would take it to the teacher's next point, and the noise level.

    path: the teacher's points, at `sigmas`. No gradient goes from a step to those before it.
    """
    noisy = path[0]
    for end, (sigma, following) in zip(path[1:], pairwise(sigmas)):
        clean = predict(noisy, torch.full(noisy.shape[:2], sigma, device=noisy.device, dtype=noisy.dtype))
        yield clean, implied_clean(noisy, end, sigma, following), sigma
        noisy, _ = flow_step(noisy, clean.detach(), sigma, following, None)
