# SPDX-License-Identifier: Apache-2.0
"""The diagonal schedule against the sequential one at equal evaluations a chunk: quality, work and latency."""

from __future__ import annotations

from collections.abc import Sequence

from flowact_ros.engine.orders import ORDERS
from flowact_ros.evaluation.experiments.material import Material, Tell, chunk_costs, run, within
from flowact_ros.evaluation.experiments.motion_figures import ALL, columns, row, truth_again
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.models.dit import DiT
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

EVALUATIONS = (3, 6)
COSTS = (
    Figure("first_chunk_ms", "processor ms to the first chunk", None, 0),
    Figure("chunk_ms", "processor ms a later chunk", None, 0),
    Figure("ahead_s", "speech known ahead [s]", 0.0),
)


def compare(model: DiT, material: Material, tell: Tell, evaluations: Sequence[int] = EVALUATIONS) -> Table:
    """The experiment. Differences are taken from the sequential schedule with the most evaluations."""
    rows: list[Row] = []
    total = 2 * len(evaluations)
    for steps in evaluations:
        for order in ("sequential", "diagonal"):
            begun, label = 0.2 + 0.8 * len(rows) / total, f"{order}, {steps}"
            motion = run(
                model, material, steps=steps, order=order,
                tell=within(tell, label, begun, begun + 0.64 / total),
            )  # fmt: skip
            made = row(label, material, motion)
            first, later = chunk_costs(model, material, material.count, steps, order)
            ahead = ORDERS[order](model.config, model).ahead * FRAMES_PER_LATENT / FRAME_RATE
            made.values.update(first_chunk_ms=first, chunk_ms=later, ahead_s=[ahead] * material.count)
            rows.append(made)
    rows.append(truth_again(material))
    return Table(
        "schedule", "diagonal against sequential at equal evaluations a chunk", [*columns(ALL), *COSTS], rows,
        material.count, f"sequential, {max(evaluations)}",
    )  # fmt: skip
