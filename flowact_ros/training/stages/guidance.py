# SPDX-License-Identifier: Apache-2.0
"""First phase of distillation: classifier-free guidance in one evaluation, at any scale of a range.

The student is told the scale (`DiT.guidance_in`) and predicts what the teacher's guided prediction would be. Training
drops sound and text each on their own, so one row in a hundred has neither: the prediction that guidance moves away
from is the mean of the one without sound and the one without text, which the teacher knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowact_ros.diffusion.schedule import add_noise
from flowact_ros.models.config import ConfigError
from flowact_ros.models.dit import Condition
from flowact_ros.training.losses import guided
from flowact_ros.training.stages.distillation import Distillation, draw_scales, predictor
from flowact_ros.training.stages.windows import Batch, tasks


@dataclass(frozen=True)
class Scaled:
    """A batch and its rows' scales of guidance `[B]`."""

    batch: Batch
    scale: Tensor


class GuidanceDistillation(Distillation):
    """See the module docstring. scales: the range that is drawn from; 1 is no guidance."""

    def __init__(self, *args: Any, scales: tuple[float, float], **options: Any) -> None:
        super().__init__(*args, **options)
        if self.module.guidance_in is None:
            raise ConfigError(
                f"preset {self.config.name} has no dit.guidance_embed, which guidance is taught to"
            )
        self.scales = scales

    def judge(self, row: dict[str, float], iteration: int) -> float:
        """Sheets are drawn without guidance, where nothing is to change: the last weights are the best."""
        return math.inf

    def batch(self, generator: torch.Generator, iteration: int) -> Scaled:
        return Scaled(
            super().batch(generator, iteration), draw_scales(self.batch_size, self.scales, generator)
        )

    def step(self, batch: Scaled, iteration: int) -> dict[str, Tensor]:
        told = batch.batch.condition
        deaf = replace(batch.batch, condition=Condition(torch.zeros_like(told.audio), told.text))
        mute = replace(batch.batch, condition=Condition(told.audio, torch.zeros_like(told.text)))
        loss, moved, count = 0.0, 0.0, 0
        every = zip(
            tasks(batch.batch, self.module, self.teacher),
            tasks(deaf, self.teacher),
            tasks(mute, self.teacher),
        )
        for (own, teachers), (without_sound,), (without_text,) in every:
            noisy, scale = add_noise(own.clean, own.noise, own.sigma), batch.scale[own.row]
            with torch.no_grad():
                conditional = predictor(self.teacher, teachers)(noisy, own.sigma)
                others = [
                    predictor(self.teacher, task)(noisy, own.sigma) for task in (without_sound, without_text)
                ]
                target = guided(conditional, torch.stack(others).mean(0), scale)
            predicted = predictor(self.module, own, scale)(noisy, own.sigma)
            loss = loss + self.data.cost(predicted - target, own.sigma)
            moved, count = moved + (target - conditional).square().sum(), count + target.numel()
        return {"loss": loss / count, "guidance": moved / count}
