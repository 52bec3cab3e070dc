# SPDX-License-Identifier: Apache-2.0
"""An experiment is a table: a row a setting, a column a figure, and in every cell one value a seed.

Settings of one experiment share their seeds (the same clips and the same noise), so what one of them changes is the
mean of its differences from the reference row, seed by seed. Intervals are Student's, of 95 %.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowact_ros.evaluation.experiments.plot import Dot, Panel, panels
from flowact_ros.evaluation.intervals import LEVEL, Mean, mean_of
from flowact_ros.evaluation.report import clean, machine, plain
from flowact_ros.training.lineage import commit_id


@dataclass(frozen=True)
class Figure:
    """A column. key: in the JSON; name: for people; truth: the value that true motion has, None where there is none."""

    key: str
    name: str
    truth: float | None = 1.0
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A setting; values: by the figure's key, one a seed in the order of the seeds. A figure may be missing."""

    name: str
    values: dict[str, list[float]]


@dataclass
class Table:
    """See the module docstring. reference: the row that others are compared with; facts: what else the JSON tells;
    notes: sentences that are printed below the table and stand in the JSON.
    """

    name: str
    question: str
    figures: Sequence[Figure]
    rows: list[Row]
    seeds: int
    reference: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.reference is not None and self.reference not in [row.name for row in self.rows]:
            raise ValueError(f"no row is called {self.reference!r}; there are {[row.name for row in self.rows]}")

    def difference(self, row: Row, key: str) -> Mean | None:
        """From the reference row, seed by seed; None for that row itself and where one of the two has no figure."""
        if self.reference is None or row.name == self.reference or key not in row.values:
            return None
        own = next(r for r in self.rows if r.name == self.reference).values.get(key)
        if own is None or len(own) != len(row.values[key]):
            return None
        return mean_of([a - b for a, b in zip(row.values[key], own)])

    def answers(self) -> list[str]:
        """A sentence a row: what differs from the reference row, most certain first, with the interval of the
        difference. Of a hundred figures that do not differ, five seem to.
        """
        out = []
        for row in self.rows:
            found = [(figure, self.difference(row, figure.key)) for figure in self.figures]
            told = [(figure, d) for figure, d in found if d is not None and math.isfinite(d.low)]
            if not told:
                continue
            differ = [(figure, d) for figure, d in told if d.low > 0 or d.high < 0]
            differ.sort(key=lambda pair: -abs(pair[1].value) / max(pair[1].high - pair[1].low, 1e-9))
            parts = [
                f"{f.name} {d.value:+.{f.digits}f} ({d.low:+.{f.digits}f} to {d.high:+.{f.digits}f})" for f, d in differ
            ]
            rest = f"{len(told) - len(differ)} of {len(told)} figures cannot be told from those of {self.reference}"
            out.append(f"{row.name}: " + "; ".join([*parts, rest]))
        return out

    def record(self, command: str) -> dict[str, Any]:
        """The JSON object."""
        rows = []
        for row in self.rows:
            figures = {}
            for figure in self.figures:
                if figure.key not in row.values:
                    continue
                values = row.values[figure.key]
                cell = mean_of(values).record() | {"seeds": [plain(v) for v in values]}
                difference = self.difference(row, figure.key)
                if difference is not None:
                    cell["difference"] = difference.record()
                figures[figure.key] = cell
            rows.append({"name": row.name, "figures": figures})
        return {
            "experiment": self.name, "question": self.question, "command": command, "commit": commit_id(),
            "seeds": self.seeds, "interval": f"{100 * LEVEL:g} % over seeds (Student)", "reference": self.reference,
            "machine": {k: v for k, v in machine().items() if k in ("cpu", "cores", "threads", "torch")},
            **clean(self.facts), "answers": self.answers(), **({"notes": list(self.notes)} if self.notes else {}),
            "names": {f.key: f.name for f in self.figures}, "rows": rows,
        }  # fmt: skip

    def write(self, path: Path, command: str) -> None:
        """The JSON at `path`, and the plot beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.record(command), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.plot(path.with_suffix(".png"))

    def plot(self, path: Path) -> None:
        """A panel a figure: a dot a row with its interval, and a line where the truth lies."""
        made = []
        for figure in self.figures:
            dots = []
            for row in self.rows:
                if figure.key in row.values:
                    mean = mean_of(row.values[figure.key])
                    dots.append(Dot(row.name, mean.value, mean.low, mean.high, row.name == self.reference))
            made.append(Panel(figure.name, dots, figure.truth, figure.digits))
        panels(path, self.question, made)

    def show(self) -> None:
        """Print it: figures below each other, settings side by side; `*` marks a difference from the reference whose
        interval leaves out 0.
        """
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table as Grid

        grid = Grid(title=f"{self.name}: {self.question}", title_justify="left")
        grid.add_column("figure")
        for row in self.rows:
            grid.add_column(row.name, justify="right")
        for figure in self.figures:
            grid.add_row(escape(figure.name), *(self._cell(row, figure) for row in self.rows))
        console = Console(width=None if os.isatty(1) else 60 + 19 * len(self.rows))
        console.print(grid)
        compared = f"; *: differs from {self.reference}" if self.reference else ""
        console.print(f"mean of {self.seeds} seeds, 95 % interval{compared}", highlight=False)
        for answer in [*self.answers(), *self.notes]:
            console.print(answer, highlight=False, markup=False, soft_wrap=True)

    def _cell(self, row: Row, figure: Figure) -> str:
        if figure.key not in row.values:
            return ""
        mean, difference = mean_of(row.values[figure.key]), self.difference(row, figure.key)
        if math.isnan(mean.value):
            return "–"
        text = f"{mean.value:.{figure.digits}f}"
        if math.isfinite(mean.low):
            text += f" ±{mean.high - mean.value:.{figure.digits}f}"
        return text + ("*" if difference is not None and (difference.low > 0 or difference.high < 0) else "")
