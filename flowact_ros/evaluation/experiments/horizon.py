# SPDX-License-Identifier: Apache-2.0
"""Gestures in several phases: does the chunk queue, which reaches less than two seconds back, lose them?

A hand rises, stays up and sinks again. A greeting waves once, however long it is asked for: whoever forgets that he has
waved waves again. A hand at the chin stays for as long as thinking is asked for: whoever forgets lets it sink. Short
gestures fit into the memory, long ones do not. Phases are read from the height of the higher hand, 0 at rest and 1
where the truth's hand stands when it is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.data.characters import STYLES, identity_from_seed
from flowact_ros.data.performance import Segment, perform
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation.clips import Clip
from flowact_ros.evaluation.experiments.material import (
    SIZE,
    Material,
    Tell,
    configured,
    material,
    run,
    within,
)
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.models.codec.motion import RIG, control_index
from flowact_ros.models.dit import DiT
from flowact_ros.timebase import FRAME_RATE

REST_S = 2.5  # of idling before and after every gesture
GESTURES = {  # (behaviour, seconds that it is asked for)
    "greeting": ("greeting", 2.5), "long greeting": ("greeting", 7.0),
    "chin": ("thinking_chin", 2.5), "long chin": ("thinking_chin", 7.0),
}  # fmt: skip
DOWN, UP = 0.25, 0.75  # of the truth's height: below the one a hand is down, above the other it is up
AFTER = 2 * FRAME_RATE  # frames after a gesture in which the hand must have sunk
_HANDS = [control_index("hand_left_y"), control_index("hand_right_y")]
_REST = RIG[_HANDS[0]].neutral
_LEAST = 0.2  # of the canvas: a truth whose hand rises by less has no gesture to compare with


@dataclass(frozen=True)
class Phases:
    """Seconds from down to up, up, and from up to down, of the first raise; raises: how often the hand came up;
    held: share of the frames in which the truth's hand is up and this one is, too.
    """

    rise: float
    hold: float
    fall: float
    raises: int
    held: float

    @property
    def complete(self) -> bool:
        """It came up and sank again."""
        return bool(np.isfinite(self.fall))


def phases(height: np.ndarray, truth: np.ndarray) -> Phases:
    """Of heights `[T]` in a window that begins and ends at rest. NaN for a phase that is missing."""
    starts, ends, up = [], [], False
    for k, value in enumerate(height):
        if not up and value > UP:
            starts.append(k)
            up = True
        elif up and value < DOWN:
            ends.append(k)
            up = False
    raised = truth > UP
    held = float((height[raised] > 0.5).mean()) if raised.any() else float("nan")
    if not starts:
        return Phases(float("nan"), float("nan"), float("nan"), 0, held)
    low = np.flatnonzero(height[: starts[0]] < DOWN)
    rise = (starts[0] - low[-1]) / FRAME_RATE if len(low) else float("nan")
    last = ends[0] if ends else len(height)
    top = starts[0] + int(np.flatnonzero(height[starts[0] : last] > UP)[-1])
    fall = (ends[0] - top) / FRAME_RATE if ends else float("nan")
    return Phases(rise, (top - starts[0] + 1) / FRAME_RATE, fall, len(starts), held)


def height(motion: np.ndarray) -> np.ndarray:
    """How far the higher hand of raw motion `[T, K]` is above its rest, in fractions of the canvas."""
    return _REST - motion[:, _HANDS].min(1)


def gestures(clip: Clip, motion: np.ndarray) -> dict[str, list[tuple[Phases, Phases]]]:
    """(made, true) phases of every gesture of a clip by its name, for raw motion `[T, K]` of the clip."""
    found: dict[str, list[tuple[Phases, Phases]]] = {}
    for kind, start, end in clip.true().spans():
        name = next((n for n, (k, s) in GESTURES.items() if k == kind and round(s * FRAME_RATE) == end - start), None)
        if name is None:
            continue
        stop = min(end + AFTER, len(motion))
        own, made = height(clip.controls.numpy()[start:stop]), height(motion[start:stop])
        if (own > _LEAST).any():
            top = float(np.median(own[own > _LEAST]))  # most of these frames are those in which it is up
            found.setdefault(name, []).append((phases(made / top, own / top), phases(own / top, own / top)))
    return found


FIGURES = [
    *(Figure(f"complete.{name}", f"{name}: rises and sinks") for name in GESTURES),
    *(Figure(f"hold.{name}", f"{name}: time up / truth") for name in GESTURES),
    *(Figure(f"held.{name}", f"{name}: up while truth's is") for name in GESTURES),
    *(Figure(f"raises.{name}", f"{name}: raises", digits=2) for name in GESTURES),
    Figure("rise", "time of rising / truth"),
    Figure("fall", "time of sinking / truth"),
]


def values(clips: Sequence[Clip], motion: Sequence[np.ndarray]) -> dict[str, float]:
    """Figures of one seed."""
    found: dict[str, list[tuple[Phases, Phases]]] = {}
    for clip, m in zip(clips, motion, strict=True):
        for name, pairs in gestures(clip, m).items():
            found.setdefault(name, []).extend(pairs)
    out: dict[str, float] = {}
    for name in GESTURES:
        pairs = found.get(name, [])
        out[f"complete.{name}"] = float(np.mean([a.complete for a, _ in pairs])) if pairs else float("nan")
        out[f"raises.{name}"] = float(np.mean([a.raises for a, _ in pairs])) if pairs else float("nan")
        out[f"held.{name}"] = _mean([a.held for a, _ in pairs])
        out[f"hold.{name}"] = _mean([a.hold for a, _ in pairs]) / _mean([b.hold for _, b in pairs])
    every = [pair for pairs in found.values() for pair in pairs]
    for phase in ("rise", "fall"):
        out[phase] = _mean([getattr(a, phase) for a, _ in every]) / _mean([getattr(b, phase) for _, b in every])
    return out


def _mean(numbers: Sequence[float]) -> float:
    """Of those that are there."""
    there = [x for x in numbers if np.isfinite(x)]
    return float(np.mean(there)) if there else float("nan")


def performances(pipeline: AvatarPipeline, seeds: int, clips: int) -> Material:
    """Clips without speech, each with all gestures in an order of its own."""
    made, numbers = [], []
    for number in range(seeds * clips):
        rng = np.random.default_rng([number, 0x4A2D])
        timeline = [Segment("idle", REST_S)]
        for name in rng.permutation(list(GESTURES)):
            kind, seconds = GESTURES[str(name)]
            timeline += [Segment(kind, seconds), Segment("idle", REST_S)]
        who = CHARACTER_SEEDS["heldout"][number % len(CHARACTER_SEEDS["heldout"])]
        identity = identity_from_seed(who, STYLES[number % len(STYLES)])
        made.append(Clip(f"seed:{who} {number}", identity, perform(timeline, rng), SIZE))
        numbers.append(number // clips)
    return material(pipeline, made, numbers)


def compare(model: DiT, material: Material, tell: Tell) -> Table:
    """The experiment: both schedules, and other sizes of the queue than the preset's."""
    own = model.config.memory.long_term
    sizes = [size for size in (0, 1, 3, 7) if size != own]
    settings = [("sequential", "sequential", own), ("diagonal", "diagonal", own),
                *((f"sequential, long-term {size}", "sequential", size) for size in sizes)]  # fmt: skip
    rows: list[Row] = []
    for k, (name, order, size) in enumerate(settings):
        motion = run(
            configured(model, {"memory": {"long_term": size}}), material, order=order,
            tell=within(tell, name, 0.1 + 0.9 * k / len(settings), 0.1 + 0.9 * (k + 1) / len(settings)),
        )  # fmt: skip
        rows.append(_row(name, material, list(motion)))
    script = [clip.again(i).controls.numpy() for i, clip in enumerate(material.clips)]
    rows.append(_row("truth performed again", material, script))
    counted = {name: sum(name in gestures(c, c.controls.numpy()) for c in material.clips) for name in GESTURES}
    return Table(
        "horizon", "does the chunk queue lose gestures that last longer than it reaches?", FIGURES, rows,
        material.count, "sequential", {"gestures": counted, "seconds": {n: s for n, (_, s) in GESTURES.items()}},
    )  # fmt: skip


def _row(name: str, material: Material, motion: Sequence[np.ndarray]) -> Row:
    cut = [m[: clip.frames] for clip, m in zip(material.clips, motion)]
    by_seed = [
        values(clips, parts) for clips, parts in zip(material.by_seed(material.clips), material.by_seed(cut))
    ]
    return Row(name, {figure.key: [v[figure.key] for v in by_seed] for figure in FIGURES})
