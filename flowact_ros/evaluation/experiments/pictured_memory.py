# SPDX-License-Identifier: Apache-2.0
"""Which parts of the memory bank does a stream of pictures need? `memory`, where identity can be lost.

The same settings and the same bank; what differs is that a stream begins with a picture, and that who it shows is
measured beside how it moves (`pictured`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowact_ros.evaluation.experiments.material import Material, Tell, latents
from flowact_ros.evaluation.experiments.memory import SETTINGS, motion_under, reference_of, trained_with
from flowact_ros.evaluation.experiments.pictured import Person, PictureCodec, likeness
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.evaluation.generate import STEP
from flowact_ros.models.dit import DiT
from flowact_ros.training import latent_figures

FIGURES = (
    Figure("likeness", "likeness to the reference", None),
    Figure("likeness_end", "likeness, last quarter", None),
    Figure("background_db", "background [dB]", None, 1),
    Figure("background_end_db", "background, last quarter [dB]", None, 1),
    Figure("correlation", "latents, correlation with truth"),
    Figure("spread_ratio", "spread / truth"),
    Figure("speed_ratio", "movement / truth"),
    Figure("acceleration_ratio", "acceleration / truth"),
    Figure("jump_ratio", "jump at chunks' ends / truth"),
    Figure("entries", "entries that a chunk sees", None, 1),
)
EVERY = 6  # latents: how often a picture is drawn for the background


def compare(pipeline: Any, material: Material, tell: Tell) -> Table:
    """The experiment; pipeline: of a spatial preset."""
    seen = Seen.of(pipeline, material, tell)
    rows = []
    for k, setting in enumerate(SETTINGS):
        made, counts = motion_under(
            pipeline.denoiser, material, setting, partial(_share, tell, k), partial(_made, seen)
        )  # fmt: skip
        row = seen.row(setting.name, torch.from_numpy(made))
        row.values["entries"] = [float(np.mean(c)) for c in material.by_seed(counts)]
        rows.append(row)
    again = seen.performed_again()
    rows.append(seen.row("truth performed again", again))
    rows.append(seen.row("somebody else", again.roll(1, 0)))
    return Table(
        "memory", "which parts of the memory bank does a stream of pictures need?", FIGURES, rows, material.count,
        reference_of(pipeline.denoiser), trained_with(pipeline.denoiser),
    )  # fmt: skip


def _share(tell: Tell, k: int, text: str, done: float) -> None:
    tell(text, 0.4 + 0.6 * (k + done) / len(SETTINGS))


def _made(seen: Seen, model: DiT, part: Material, **options: Any) -> np.ndarray:
    """Latents of the part's clips, each from its own picture."""
    whose = torch.stack([seen.person(clip).latent for clip in part.clips])
    return latents(model, part, whose, **options).float().cpu().numpy()


class Seen:
    """The clips' characters and true latents `[B, N, P, C]`, and what is measured against them."""

    def __init__(self, codec: PictureCodec, material: Material, people: Sequence[Person], truth: Tensor) -> None:
        self.codec, self.material, self.people, self.truth = codec, material, people, truth
        self.where = [
            codec.background(person, clip.controls) for person, clip in zip(people, material.clips, strict=True)
        ]

    @staticmethod
    def of(pipeline: Any, material: Material, tell: Tell) -> Seen:
        codec, people, truth = PictureCodec.of(pipeline), [], []
        for k, clip in enumerate(material.clips):
            tell(f"pictures of clip {k + 1} of {len(material.clips)}", 0.2 + 0.2 * k / len(material.clips))
            people.append(codec.person(clip.identity))
            truth.append(codec.truth(clip.identity, clip.controls))
        return Seen(codec, material, people, torch.stack(truth))

    def person(self, clip: Any) -> Person:
        return self.people[next(i for i, other in enumerate(self.material.clips) if other is clip)]

    def performed_again(self) -> Tensor:
        """Latents of the truth's second go at the same sound."""
        clips = [clip.again(i) for i, clip in enumerate(self.material.clips)]
        return torch.stack([self.codec.truth(clip.identity, clip.controls) for clip in clips])

    def row(self, name: str, made: Tensor) -> Row:
        """Of latents `[B, N, P, C]` of the material's clips."""
        values: dict[str, list[float]] = {figure.key: [] for figure in FIGURES if figure.key != "entries"}
        length = self.truth.shape[1]
        last = max(1, length // 4)
        every = list(range(0, length, EVERY))
        for rows in self.material.by_seed(range(len(self.people))):
            moves = latent_figures.figures(made[rows, :length], self.truth[rows], STEP)
            who = [(made[i, :length], self.people[i], self.where[i]) for i in rows]
            found = {
                "likeness": [likeness(x, person) for x, person, _ in who],
                "likeness_end": [likeness(x[-last:], person) for x, person, _ in who],
                "background_db": [self.codec.background_db(*each, every) for each in who],
                "background_end_db": [self.codec.background_db(*each, every[-len(every) // 4 :]) for each in who],
                "correlation": [moves["r"]],
                "spread_ratio": [moves["spread"]],
                "speed_ratio": [moves["speed"]],
                "acceleration_ratio": [moves["acceleration"]],
                "jump_ratio": [moves["jump"] / moves["jump_truth"]],
            }
            for key, several in found.items():
                known = [x for x in several if np.isfinite(x)]
                values[key].append(float(np.mean(known)) if known else float("nan"))
        return Row(name, values)
