# SPDX-License-Identifier: Apache-2.0
"""What a run has found so far: one JSON object, written to a file after each part if one was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flowact_ros.evaluation.report import clean, machine


@dataclass
class Results:
    """record: the object; out: where it is kept up to date, so that a run that is stopped leaves what it has."""

    record: dict[str, Any]
    out: Path | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        self.record[name] = value
        self.write()

    def leave_out(self, name: str, reason: str) -> None:
        """Say in one line why a part was not measured."""
        self.left_out[name] = " ".join(reason.split())
        self.record["not_measured"] = self.left_out
        self.write()

    def write(self) -> None:
        if self.out is None:
            return
        partial = self.out.with_name(self.out.name + ".partial")
        partial.write_text(self.json() + "\n", encoding="utf-8")
        partial.replace(self.out)

    def json(self) -> str:
        return json.dumps(clean(self.record), indent=1)


def device_facts(device: torch.device) -> dict[str, Any]:
    """The machine and, on CUDA, the card."""
    facts: dict[str, Any] = {**machine(), "device": str(device)}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": found.name,
            "gpu_memory_gb": round(found.total_memory / 1e9, 1),
            "multiprocessors": found.multi_processor_count,
            "compute_capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
        }
    return facts
