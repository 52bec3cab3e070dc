# SPDX-License-Identifier: Apache-2.0
"""Which of the Triton kernels pay: an evaluation with torch's operations, with all kernels, and with each alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flowact_ros.engine import kernels as triton
from flowact_ros.evaluation.bench_networks.parts import NotMeasured, Setting, free
from flowact_ros.evaluation.bench_networks.prepare import compiled
from flowact_ros.evaluation.bench_networks.work import denoiser
from flowact_ros.models.operations import TORCH, Operations, set_operations


def kernels(setting: Setting) -> dict[str, Any]:
    """Milliseconds of an evaluation by what computes between its matrices, and the gain over compiled torch."""
    if not triton.available(setting.device):
        raise NotMeasured("the Triton kernels need a CUDA device and the package triton")
    precision = setting.plain if setting.precision == "auto" else setting.precision
    rows: dict[str, Any] = {}
    for name, operations in variants(triton.operations()).items():
        free(setting.device)
        model = denoiser(setting.config, setting.device, precision)
        set_operations(model, operations)
        work = compiled(model, setting.device, setting.runtime)
        rows[name] = setting.clock.times(work.evaluation()).record()
        del model, work
    gains = {name: round(rows["torch"]["median"] / row["median"], 4) for name, row in rows.items()}
    return {"precision": precision, "evaluation_ms": rows, "gain": gains}


def variants(ours: Operations) -> dict[str, Operations]:
    """Torch's operations, all kernels, and each kernel among torch's operations; rounding goes with its modulation."""
    return {
        "torch": TORCH,
        "all": ours,
        "modulate": replace(TORCH, modulate=ours.modulate, modulate_rows=ours.modulate_rows),
        "rotate": replace(TORCH, rotate=ours.rotate),
        "gate": replace(TORCH, gate=ours.gate),
    }
