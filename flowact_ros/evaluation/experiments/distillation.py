# SPDX-License-Identifier: Apache-2.0
"""How much quality do evaluations buy, of the teacher and of a distilled student?

The rows of the quality table that motion alone gives, beside the processor time of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowact_ros.evaluation.experiments.material import Material, Tell, chunk_costs, run, within
from flowact_ros.evaluation.experiments.motion_figures import ALL, columns, row, truth_again
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.evaluation.recognition import Recogniser
from flowact_ros.models.dit import DiT

EVALUATIONS = (1, 2, 3, 4, 8, 24)
TIME = Figure("chunk_ms", "processor ms a chunk", None, 0)
BEHAVIOURS = Figure("behaviour_accuracy", "nine behaviours told apart")


def compare(
    models: Sequence[tuple[str, DiT]],
    speech: Material,
    behaviours: Material,
    recogniser: Recogniser,
    tell: Tell,
    evaluations: Sequence[int] = EVALUATIONS,
    reference: int | None = None,
) -> Table:
    """The experiment. models: (name, network), the teacher first where there is one, each with the solver that it is
    made for; behaviours: a clip with all nine a seed; reference: the first one's evaluations that differences are taken
    from, by default those that it is made for.
    """
    shipped = reference or models[0][1].config.schedule.steps
    counts = sorted({*evaluations, shipped})
    rows: list[Row] = []
    total = len(models) * len(counts)
    for name, model in models:
        for steps in counts:
            done = len(rows)
            label = f"{name}, {steps}"
            motion = run(
                model, speech, steps=steps,
                tell=within(tell, label, 0.2 + 0.8 * done / total, 0.2 + 0.8 * (done + 0.7) / total),
            )  # fmt: skip
            made = row(label, speech, motion)
            acted = behaviours.takes(run(model, behaviours, steps=steps))
            made.values[BEHAVIOURS.key] = [recogniser.accuracy(takes)[0] for takes in acted]
            made.values[TIME.key] = chunk_costs(model, speech, speech.count, steps)[1]
            rows.append(made)
    ceiling = truth_again(speech)
    ceiling.values[BEHAVIOURS.key] = [recogniser.accuracy(takes)[0] for takes in behaviours.again()]
    rows.append(ceiling)
    return Table(
        "distillation", "quality against evaluations a chunk", [*columns(ALL), BEHAVIOURS, TIME], rows, speech.count,
        f"{models[0][0]}, {shipped}",
    )  # fmt: skip


