# SPDX-License-Identifier: Apache-2.0
"""Figures beside their references, as a table and as JSON; and the machine they were taken on."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Figure:
    """One measured value and what it is read beside.

    truth: the renderer's own frames; bound: their VAE round trip; control: what must fail the target (shuffled sound,
    frozen or drifting frames). least, most: the target, either may be open. lag-like values are compared by size.
    """

    key: str
    name: str
    value: float
    unit: str = ""
    truth: float | None = None
    bound: float | None = None
    control: float | None = None
    least: float | None = None
    most: float | None = None
    digits: int = 3

    def _meets(self, value: float | None) -> bool | None:
        if value is None or (self.least is None and self.most is None):
            return None
        if math.isnan(value):
            return False
        return bool((self.least is None or value >= self.least) and (self.most is None or value <= self.most))

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None without one."""
        return self._meets(self.value)

    @property
    def control_failed(self) -> bool | None:
        """Whether the control misses the target, as it must for the figure to mean anything; None without one."""
        met = self._meets(self.control)
        return None if met is None else not met

    @property
    def target(self) -> str:
        low, high = (None if v is None else f"{v:g}" for v in (self.least, self.most))
        if low and high:
            return f"{low} … {high}"
        return f"≥ {low}" if low else f"≤ {high}" if high else ""

    def record(self) -> dict[str, Any]:
        out = {"value": _plain(self.value), "unit": self.unit, "target": self.target, "passed": self.passed}
        for name in ("truth", "bound", "control"):
            if getattr(self, name) is not None:
                out[name] = _plain(getattr(self, name))
        if self.control is not None:
            out["control_failed"] = self.control_failed
        return out


def _plain(value: float) -> float | None:
    return None if not math.isfinite(value) else round(float(value), 5)


@dataclass
class Report:
    """Everything that one run of an evaluation or benchmark says."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, *args: Any, **values: Any) -> None:
        self.figures.append(Figure(*args, **values))

    def record(self) -> dict[str, Any]:
        return {"title": self.title, **self.facts, "figures": {f.key: f.record() for f in self.figures}}

    def json(self) -> str:
        return json.dumps(self.record(), indent=1, ensure_ascii=False)

    def show(self) -> None:
        """Print the table."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        columns = ("figure", "value", "truth", "VAE", "control", "target", "")
        used = [
            True, True, *(any(getattr(f, n) is not None for f in self.figures) for n in ("truth", "bound", "control")),
            True, True,
        ]  # fmt: skip
        for name, wanted in zip(columns, used, strict=True):
            if wanted:
                table.add_column(name, justify="left" if name in ("figure", "") else "right")
        for figure in self.figures:
            verdict = {None: "", True: "[green]pass", False: "[red]FAIL"}[figure.passed]
            if figure.control_failed is False:
                verdict += " [yellow](control passes too)"
            cells = [
                f"{figure.name}{f' [{figure.unit}]' if figure.unit else ''}".replace("[", r"\["),
                *(
                    _cell(v, figure.digits)
                    for v in (figure.value, figure.truth, figure.bound, figure.control)
                ),
                figure.target,
                verdict,
            ]
            table.add_row(*(cell for cell, wanted in zip(cells, used, strict=True) if wanted))
        console = Console(width=None if os.isatty(1) else 132)
        console.print(table)
        for key, value in self.facts.items():
            if isinstance(value, str | int | float | bool):
                console.print(f"{key.replace('_', ' ')}: {value}", highlight=False, markup=False)


def _cell(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, threads, versions."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = rows[0] if rows else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
