# SPDX-License-Identifier: Apache-2.0
"""Torch itself, operation by operation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from flowact_ros.engine.runtime.base import Runtime
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.models.codec.live import Graph, eager


class Eager(Runtime):
    """On a CPU a graph is computed when it is waited for; on a GPU on a stream of its own, see `Lanes`."""

    name = "eager"

    def __init__(self, device: str | torch.device = "cpu", *, kernels: bool = True) -> None:
        super().__init__(device, kernels=kernels)
        self.lanes = Lanes(self.device) if self.device.type == "cuda" else None

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}"

    def compile(self, module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        if self.lanes is None:
            return eager(module, example)
        lanes, there = self.lanes, copy.deepcopy(module).to(self.device)

        def compute(*inputs: Tensor) -> tuple[Tensor, ...]:
            return there(*(x.to(self.device, non_blocking=True) for x in inputs))

        return lambda *inputs: lanes.begin(compute, *inputs)

    @property
    def overlaps(self) -> bool:
        return self.lanes is not None

    @property
    def waits_ms(self) -> dict[str, float]:
        return {} if self.lanes is None else self.lanes.waits_ms
