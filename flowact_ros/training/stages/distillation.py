# SPDX-License-Identifier: Apache-2.0
"""What the phases of distillation share (paper, section 2.2): a teacher, and batches whose memory the student made.

Adaptation predicts the truth, so its memory must belong to the truth. A student predicts what its teacher would, under
whatever memory: a share of the rows remembers free-running motion of the student itself, made anew now and then by the
running mean of its weights (`self_forcing`, from pure noise). Weights are chosen by how much they move, never by loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flowact_ros.diffusion.memory import Predict
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import DiT
from flowact_ros.training.free_running import frozen
from flowact_ros.training.stages.adaptation import QUICK_CLIPS, Adaptation
from flowact_ros.training.stages.self_forcing import SelfForcing
from flowact_ros.training.stages.windows import Task


class Distillation(Adaptation):
    """A `method.Method` with the role "teacher", which never changes; see the module docstring.

    teacher, student: weights that they begin with; a resumed run has its own. steps: the student's evaluations a chunk;
    own_memory: share of rows with memory that the student made; refresh: steps until it is made anew; patience: sheets
    without a better one until the run ends
    """

    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        teacher: dict[str, Tensor],
        student: dict[str, Tensor],
        batch: int,
        steps: int,
        own_memory: float,
        refresh: int,
        patience: int,
        clips: int = QUICK_CLIPS,
    ) -> None:
        own = SelfForcing(share=own_memory, noise=1.0, steps=steps, refresh=refresh)
        super().__init__(config, data, heldout, batch=batch, windows=2, self_forcing=own)
        self.module.load_state_dict(student)
        self.teacher = frozen(config, teacher)
        self.roles: dict[str, nn.Module] = {"teacher": self.teacher}
        self.rates: dict[str, float] = {}
        self.steps, self.patience, self.clips = steps, patience, clips

    def turn(self, iteration: int) -> str | None:
        return None

    def sheet(self, module: DiT, path: Path) -> dict[str, float]:
        """As of adaptation, at the student's number of evaluations."""
        return self.shown(module, path, self.clips, self.steps)

    def judge(self, row: dict[str, float], iteration: int) -> float:
        return self.heldout.spread_error(row)


def predictor(module: DiT, task: Task, scale: Tensor | None = None) -> Predict:
    """The network's clean prediction of a task's windows, told a scale of guidance `[B]`."""
    return lambda noisy, sigma: module(noisy, sigma, task.condition, task.windows, task.past, scale)[
        0
    ].float()


def draw_scales(rows: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Scales of guidance `[rows]`, uniform in `span`."""
    return span[0] + (span[1] - span[0]) * torch.rand(rows, generator=generator)
