# SPDX-License-Identifier: Apache-2.0
"""Two ways to run a denoiser: as the engine does, and compiled alone, for what the engine has no graphs of."""

from __future__ import annotations

import torch

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.runtime.base import choose
from flowact_ros.engine.runtime.graphs import compile_in_place
from flowact_ros.evaluation.bench_networks.work import Start, Work
from flowact_ros.models.dit import DiT

CAPTURING = ("graphs", "tensorrt")  # runtimes that do not run a network operation by operation


def as_engine(model: DiT, device: torch.device, runtime: str) -> Work:
    """By the runtime of that name, prepared as for a session, with a full memory."""
    computes = choose(runtime, device)
    there = computes.denoiser(model)
    computes.prepare(there)
    return Work.begin(there, device)


def compiled(model: DiT, device: torch.device, runtime: str, start: Start = MemoryBank.start) -> Work:
    """With a full memory, then its blocks compiled, where the runtime would: for the very shapes that are timed.

    Passes are not captured as graphs. It tells of networks whose kernels take longer than their launches.
    """
    work = Work.begin(model, device, start)
    if choose(runtime, device).name in CAPTURING:
        for block in (*model.double_blocks, *model.single_blocks):
            compile_in_place(block)
    return work
