# SPDX-License-Identifier: Apache-2.0
"""Second phase of distillation: the teacher's long way from noise to motion in a few steps, in segments.

The teacher follows the flow in `teacher_steps`. Its way is cut into as many segments as the student has steps, and from
the start of each segment one step of the student is to reach its end. The step is the live one (`sampler.flow_step`,
second order), so that what the student is to predict follows from the ends of this segment and the one before. The
number of segments falls during the run: 12, 6, 3 of a teacher's 24 (progressive distillation, Salimans and Ho 2022; but
each target is the first teacher's, so that no error is handed on).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from flowact_ros.diffusion.memory import Predict
from flowact_ros.diffusion.sampler import Slope, flow_step, implied_clean
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
                targets = segment_targets(path, sigmas)
            predict = predictor(self.module, own, scale)
            for noisy, target, sigma in zip(path, targets, sigmas):
                level = torch.full_like(own.sigma, sigma)
                loss = loss + self.data.cost(predict(noisy, level) - target, level)
                number += target.numel()
        return {"loss": loss / number, "segments": torch.tensor(float(count))}


def trajectory(predict: Predict, noise: Tensor, sigmas: Sequence[float]) -> list[Tensor]:
    """Where a chunk `noise` `[B, S, P, C]` is at each of `sigmas` on its way to clean motion."""
    path, slope = [noise], None
    for sigma, following in pairwise(sigmas):
        level = torch.full(noise.shape[:2], sigma, device=noise.device, dtype=noise.dtype)
        moved, slope = flow_step(path[-1], predict(path[-1], level), sigma, following, slope)
        path.append(moved)
    return path


def segment_targets(path: Sequence[Tensor], sigmas: Sequence[float]) -> list[Tensor]:
    """What a student should predict at each point but the last of `path` to go from point to point."""
    targets, slope = [], None
    for (start, end), (sigma, following) in zip(pairwise(path), pairwise(sigmas)):
        targets.append(implied_clean(start, end, sigma, following, slope))
        slope = Slope((start - targets[-1]) / sigma, following - sigma)
    return targets
