# SPDX-License-Identifier: Apache-2.0
"""How wide must the noise be that the gaze and the lips are denoised from (`schedule.gaze_temperature`,
`schedule.lips_temperature`)?

A setting is chosen on the validation split: what is chosen on held-out clips says nothing on them any more. All values
get the same dialogues and the same noise, of which gaze or lips alone have more or less. The gaze is compared with the
truth performed several times: in ten minutes of one performance there are so few saccades that chance decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation import events
from flowact_ros.evaluation import rig_metrics as rig
from flowact_ros.evaluation.clips import long_clips
from flowact_ros.evaluation.experiments.material import (
    CLIP_S,
    SIZE,
    Material,
    Tell,
    configured,
    material,
    run,
    within,
)
from flowact_ros.evaluation.experiments.motion_figures import LIPS, SMOOTH, columns, row, truth_again
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.evaluation.rig_metrics import Take, Takes
from flowact_ros.models.dit import DiT

SPLIT = "validation"
FIRST = 3000  # number of the first dialogue: sheets of training and other evaluations show none of these
PERFORMED = 5  # times that the truth lives through each dialogue
TRUTH = "truth"
FIGURES = (
    Figure("saccades_a_minute", "saccades a minute", None, 1),
    Figure("gaze_spread", "spread of the gaze", None, 3),
    Figure("viewer_share", "share of the time on the viewer", None, 3),
    Figure("blinks_a_minute", "blinks a minute", None, 1),
    Figure("acceleration_ratio", "acceleration / truth", 1.0, 2),
)


def dialogues(pipeline: AvatarPipeline, seeds: int, minutes: float, tell: Tell) -> Material:
    """Performances of the validation split, `minutes` a seed, half speech: what rates of events are taken from."""
    seconds = min(CLIP_S, 60 * minutes)
    each = math.ceil(60 * minutes / seconds)
    clips, numbers = [], []
    for seed in range(seeds):
        tell(f"dialogues of seed {seed + 1} of {seeds}", 0.3 * seed / seeds)
        clips += long_clips(minutes, SIZE, SPLIT, seconds, FIRST + seed * each)
        numbers += [seed] * each
    return material(pipeline, clips, numbers)


def performed(material: Material) -> list[list[Take]]:
    """Takes of the truth by seed, PERFORMED a clip."""
    takes = [
        [clip.true(), *(clip.again(PERFORMED * k + i).true() for i in range(1, PERFORMED))]
        for k, clip in enumerate(material.clips)
    ]
    return [[take for several in of_seed for take in several] for of_seed in material.by_seed(takes)]


def values(made: Sequence[Takes], true: Sequence[Takes]) -> dict[str, list[float]]:
    """By the figure's key, one value a seed; the truth may be of other length."""
    return {
        "saccades_a_minute": [rig.events_a_minute(takes, _saccades) for takes in made],
        "gaze_spread": [rig.gaze_spread(takes) for takes in made],
        "viewer_share": [rig.viewer_share(takes) for takes in made],
        "blinks_a_minute": [rig.events_a_minute(takes, _blinks) for takes in made],
        "acceleration_ratio": [rig.change_ratio(a, b, 2) for a, b in zip(made, true, strict=True)],
    }


def compare(model: DiT, material: Material, temperatures: Sequence[float], tell: Tell) -> Table:
    """The experiment, of the gaze. Raises ValueError where the truth has no saccade."""
    tell(f"the truth, {PERFORMED} times", 0.3)
    true = performed(material)
    every = [take for takes in true for take in takes]
    rows, notes, apart = [Row(TRUTH, values(true, true))], [], {}
    for k, wide in enumerate(temperatures):
        setting = configured(model, {"schedule": {"gaze_temperature": wide}})
        begun, share = 0.4 + 0.6 * k / len(temperatures), 0.6 / len(temperatures)
        motion = run(setting, material, tell=within(tell, f"temperature {wide:g}", begun, begun + share))
        made = material.takes(motion)
        rows.append(Row(f"{wide:g}", values(made, true)))
        pooled = [take for takes in made for take in takes]
        ratio = rig.saccade_ratio(pooled, every)
        if not ratio.n_truth:
            raise ValueError("the truth has no saccade in these dialogues; give more --minutes or --seeds")
        spread, viewer = rig.gaze_spread_ratio(pooled, every), rig.viewer_ratio(pooled, every)
        notes.append(
            f"{wide:g}: {ratio.n} saccades in {_minutes(pooled):.1f} minutes, {ratio.value:.2f} ({ratio.low:.2f} to "
            f"{ratio.high:.2f}) of the truth's {ratio.n_truth} in {_minutes(every):.1f}; spread of the gaze "
            f"{spread:.2f}, time on the viewer {viewer:.2f}"
        )
        apart[wide] = farthest(ratio.value, spread, viewer)
    nearest, shipped = min(apart, key=lambda wide: apart[wide]), model.config.schedule.gaze_temperature
    notes.append(f"nearest to the truth by the worst of the three: {nearest:g}; the preset has {shipped:g}")
    return Table(
        "temperature", f"how wide must the gaze's noise be? ({SPLIT} split)", FIGURES, rows, material.count, TRUTH,
        {"split": SPLIT, "nearest": nearest, "preset_has": shipped}, notes,
    )  # fmt: skip


def compare_lips(model: DiT, material: Material, temperatures: Sequence[float], tell: Tell) -> Table:
    """The same of the lips: how like the truth's they are, and whether they move as far and as smoothly.

    The preset's value is the row that others are compared with, and one of the rows whatever `temperatures` are.
    """
    shipped = model.config.schedule.lips_temperature
    rows, every = [], sorted({*temperatures, shipped})
    for k, wide in enumerate(every):
        setting = configured(model, {"schedule": {"lips_temperature": wide}})
        begun, share = 0.3 + 0.7 * k / len(every), 0.7 / len(every)
        motion = run(setting, material, tell=within(tell, f"temperature {wide:g}", begun, begun + share))
        rows.append(row(f"{wide:g}", material, motion, (*LIPS, *SMOOTH)))
    rows.append(truth_again(material, (*LIPS, *SMOOTH)))
    return Table(
        "lips_temperature", f"how wide must the lips' noise be? ({SPLIT} split)", columns((*LIPS, *SMOOTH)), rows,
        material.count, f"{shipped:g}", {"split": SPLIT, "preset_has": shipped},
    )  # fmt: skip


def farthest(*ratios: float) -> float:
    """How far the worst of some ratios to the truth is from 1: half as much counts like twice as much."""
    return max(abs(math.log(max(ratio, 1e-9))) for ratio in ratios)


def _saccades(series: np.ndarray) -> int:
    return len(events.saccades(series))


def _blinks(series: np.ndarray) -> int:
    return len(events.blinks(series))


def _minutes(takes: Takes) -> float:
    return sum(take.minutes for take in takes)
