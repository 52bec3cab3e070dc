# SPDX-License-Identifier: Apache-2.0
"""Figures beside truth, ceiling, version 1, controls and targets, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

BASELINE = Path(__file__).with_name("baseline_v1.json")
EVENTS_WITHIN = 0.1  # the mean of a rate of events must lie within a tenth of its range


@dataclass(frozen=True)
class Figure:
    """One measured value and what it is read beside.

    key: place in the JSON object, `a.b` for a member of an object; least, most: the target, either may be open; low,
    high: the 95 % interval of a rate of events, n its events; ceiling: two truth performances of one sound, which are
    also what a script animator with phoneme times would show; controls: what must miss the target, by name; more:
    further members of the JSON object.
    """

    key: str
    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    truth: float | None = None
    ceiling: float | None = None
    controls: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    digits: int = 3

    def meets(self, value: float | None) -> bool | None:
        """Whether a value meets the target; None without a target. What cannot be told does not."""
        if value is None or (self.least is None and self.most is None):
            return None
        if not math.isfinite(value):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def met(self) -> bool | None:
        """A rate of events meets its target when its interval reaches into the range and it lies within 10 % of it."""
        if self.least is None and self.most is None:
            return None
        if self.low is None or self.high is None or not math.isfinite(self.value):
            return self.meets(self.value)
        least = -math.inf if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        reaches = self.high >= least and self.low <= most
        return reaches and least * (1 - EVENTS_WITHIN) <= self.value <= most * (1 + EVENTS_WITHIN)

    @property
    def passing_controls(self) -> list[str]:
        """Controls that meet the target although they must not: then the figure says nothing."""
        return [name for name, value in self.controls.items() if self.meets(value)]

    @property
    def target(self) -> str:
        low, high = (None if v is None else f"{v:g}" for v in (self.least, self.most))
        if low and high:
            return f"{low} … {high}"
        return f"≥ {low}" if low else f"≤ {high}" if high else ""

    def record(self) -> dict[str, Any]:
        out: dict[str, Any] = {"value": plain(self.value), "target": self.target, "met": self.met}
        for name in ("low", "high", "n", "truth", "ceiling"):
            if getattr(self, name) is not None:
                out[name] = plain(getattr(self, name))
        if self.controls:
            out["controls"] = {name: plain(value) for name, value in self.controls.items()}
        return out | clean(dict(self.more))


def clean(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    return plain(value) if isinstance(value, float) else value


def plain(value: float) -> float | None:
    return None if not math.isfinite(value) else round(float(value), 4)


def baseline_value(baseline: Mapping[str, Any], key: str) -> float | None:
    """What version 1 had for `a` or `a.b`; None where it was not measured."""
    entry: Any = baseline
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, Mapping) else None
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, int | float) else None


def load_baseline(path: Path = BASELINE) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass
class Report:
    """Everything that one run of an evaluation or benchmark says."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)

    def add(self, *args: Any, **values: Any) -> None:
        self.figures.append(Figure(*args, **values))

    def record(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for figure in self.figures:
            *groups, name = figure.key.split(".")
            place = out
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = figure.record()
        return {**out, **self.facts}

    def json(self) -> str:
        return json.dumps(self.record(), indent=1, ensure_ascii=False)

    def show(self) -> None:
        """Print the table."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        cells = [self._cells(figure) for figure in self.figures]
        columns = ("figure", "value", "95 %", "n", "truth", "ceiling", "v1", "controls", "target", "")
        used = [
            name in ("figure", "value", "target", "") or any(row[i] for row in cells)
            for i, name in enumerate(columns)
        ]
        for name, wanted in zip(columns, used, strict=True):
            if wanted:
                table.add_column(name, justify="left" if name in ("figure", "controls", "") else "right")
        for row in cells:
            table.add_row(*(cell for cell, wanted in zip(row, used, strict=True) if wanted))
        console = Console(width=None if os.isatty(1) else 150)
        console.print(table)
        for key, value in self.facts.items():
            if isinstance(value, str | int | float | bool):
                console.print(f"{key.replace('_', ' ')}: {value}", highlight=False, markup=False)

    def _cells(self, f: Figure) -> tuple[str, ...]:
        verdict = {None: "", True: "[green]met", False: "[red]NOT MET"}[f.met]
        if f.passing_controls:
            verdict += f" [yellow](so do {', '.join(f.passing_controls)})"
        interval = "" if f.low is None or f.high is None else f"{f.low:.{f.digits}f} … {f.high:.{f.digits}f}"
        return (
            f"{f.name}{f' [{f.unit}]' if f.unit else ''}".replace("[", r"\["),
            _cell(f.value, f.digits),
            interval,
            "" if f.n is None else str(f.n),
            _cell(f.truth, f.digits),
            _cell(f.ceiling, f.digits),
            _cell(baseline_value(self.baseline, f.key), f.digits),
            ", ".join(f"{name} {_cell(value, f.digits)}" for name, value in f.controls.items()),
            f.target,
            verdict,
        )


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
