# SPDX-License-Identifier: Apache-2.0
"""Does a stream of pictures lose who it shows, over minutes? With and without refinement, or of two denoisers.

Streams of held-out characters run side by side for minutes. Of each minute the last ten seconds are kept: their
likeness to the reference, the fidelity of their background and their movement (`pictured`). A stream is a seed, so that
intervals are over characters. Beside them stand the truth through the same VAE, which cannot drift, and a planted
drift, which must be found: the truth whose latents go half of the way to somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import initial_noise, rollout
from flowact_ros.evaluation.experiments.material import Tell, sigmas_of, within
from flowact_ros.evaluation.experiments.pictured import Person, PictureCodec, likeness
from flowact_ros.evaluation.experiments.plot import Curve, curves
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.evaluation.generate import STEP
from flowact_ros.evaluation.long_motion import FIRST, perform
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

MINUTE = 60 * FRAME_RATE // FRAMES_PER_LATENT  # latents
WINDOW = 60  # latents at the end of each minute that are looked at: whole chunks, ten seconds
EVERY = 10  # latents of a window: how often a picture is drawn for the background
PLANTED = 0.5  # how far the planted drift goes from the reference to somebody else's

FIGURES = (
    Figure("likeness_first", "likeness to the reference, minute 1", None),
    Figure("likeness_last", "likeness, last minute", None),
    Figure("likeness_slope", "likeness, change a minute", 0.0, 4),
    Figure("background_first_db", "background, minute 1 [dB]", None, 1),
    Figure("background_last_db", "background, last minute [dB]", None, 1),
    Figure("background_slope_db", "background, change a minute [dB]", 0.0, 3),
    Figure("speed_ratio", "movement, last minute / truth"),
    Figure("speed_kept", "movement, last minute / minute 1"),
)


@dataclass(frozen=True)
class Streams:
    """Characters, what their streams hear and read (rows of the condition), and of the truth's windows the latents
    `[S, M, WINDOW, P, C]` and the pixels that never move, `[H, W]` each.
    """

    codec: PictureCodec
    people: list[Person]
    condition: Condition
    truth: Tensor
    where: list[Tensor]

    @property
    def minutes(self) -> int:
        return self.truth.shape[1]


@torch.inference_mode()
def prepare(pipeline: Any, streams: int, minutes: int, tell: Tell) -> Streams:
    """Of a pipeline of a spatial preset."""
    codec, people, conditions, truth, where = PictureCodec.of(pipeline), [], [], [], []
    for n in range(streams):
        tell(f"truth {n + 1} of {streams}", 0.3 * n / streams)
        long, condition, identity = perform(pipeline, FIRST + n, 60 * minutes)
        raw = torch.as_tensor(long.motion, dtype=torch.float32)
        ends = [(k + 1) * MINUTE * FRAMES_PER_LATENT for k in range(minutes)]
        parts = [raw[end - WINDOW * FRAMES_PER_LATENT : end] for end in ends]
        people.append(codec.person(identity))
        truth.append(torch.stack([codec.truth(identity, part) for part in parts]))
        where.append(codec.background(people[-1], torch.cat(parts)))
        conditions.append(condition)
    together = Condition(torch.cat([c.audio for c in conditions]), torch.cat([c.text for c in conditions]))
    return Streams(codec, people, together, torch.stack(truth), where)


@torch.inference_mode()
def windows(model: DiT, streams: Streams, name: str, tell: Tell, start: float, end: float) -> Tensor:
    """The windows `[S, M, WINDOW, P, C]` of what the model makes, each stream with noise of its own."""
    device = next(model.parameters()).device
    count, done = streams.minutes * MINUTE, within(tell, name, start, end)

    def noise(first: int, number: int) -> Tensor:
        return initial_noise(model.config, range(len(streams.people)), first, number).to(device)

    told = streams.condition
    parts = (
        Condition(told.audio[:, k : k + STEP].to(device), told.text[:, k : k + STEP].to(device))
        for k in range(0, count, STEP)
    )
    bank = MemoryBank.start(model, torch.stack([person.latent for person in streams.people]).to(device))
    kept = []
    for k, (chunk, _) in zip(range(0, count, STEP), rollout(model, bank, parts, noise, sigmas_of(model, None))):
        if k % MINUTE >= MINUTE - WINDOW:
            kept.append(chunk.float().cpu())
        done(k / count)
    return torch.cat(kept, 1).unflatten(1, (streams.minutes, WINDOW))


def planted(streams: Streams) -> Tensor:
    """The truth's windows, which turn into the next stream's character: half of the way in the last minute."""
    own = torch.stack([person.latent for person in streams.people])
    far = torch.linspace(0, PLANTED, streams.minutes)[None, :, None, None, None]
    return streams.truth + far * (own.roll(1, 0) - own)[:, None, None]


def compare(name: str, question: str, streams: Streams, made: dict[str, Tensor], reference: str | None) -> Table:
    """The table; made: windows by the row's name; reference: the row that the others are compared with."""
    every = {"truth": streams.truth, **made, "planted drift": planted(streams)}
    curves_of = {key: by_minute(streams, x) for key, x in every.items()}
    true = curves_of["truth"]["speed"]
    rows = [Row(key, _values(found, true)) for key, found in curves_of.items()]
    facts = {
        "minutes": streams.minutes, "window_s": WINDOW * FRAMES_PER_LATENT / FRAME_RATE,
        "by_minute": {key: {k: v.mean(0).tolist() for k, v in found.items()} for key, found in curves_of.items()},
    }  # fmt: skip
    return Table(name, question, FIGURES, rows, len(streams.people), reference, facts)


def by_minute(streams: Streams, made: Tensor) -> dict[str, np.ndarray]:
    """Likeness, background [dB] and speed (mean change of a latent), `[S, M]` each."""
    at = list(range(EVERY - 1, WINDOW, EVERY))
    whose = list(zip(streams.people, streams.where, made))
    return {
        "likeness": np.array([[likeness(x, person) for x in rows] for person, _, rows in whose]),
        "background": np.array(
            [[streams.codec.background_db(x, person, where, at) for x in rows] for person, where, rows in whose]
        ),
        "speed": made.diff(dim=2).abs().mean((2, 3, 4)).numpy(),
    }


def _values(found: dict[str, np.ndarray], true_speed: np.ndarray) -> dict[str, list[float]]:
    minutes = np.arange(1, found["speed"].shape[1] + 1)

    def slopes(key: str) -> list[float]:
        return [float(np.polyfit(minutes, row, 1)[0]) if np.isfinite(row).all() else float("nan") for row in found[key]]

    return {
        "likeness_first": found["likeness"][:, 0].tolist(),
        "likeness_last": found["likeness"][:, -1].tolist(),
        "likeness_slope": slopes("likeness"),
        "background_first_db": found["background"][:, 0].tolist(),
        "background_last_db": found["background"][:, -1].tolist(),
        "background_slope_db": slopes("background"),
        "speed_ratio": (found["speed"][:, -1] / true_speed[:, -1]).tolist(),
        "speed_kept": (found["speed"][:, -1] / found["speed"][:, 0]).tolist(),
    }


def plot_minutes(table: Table, path: Path) -> None:
    """The likeness by minute, beside the table's JSON at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = table.facts["by_minute"]
    rows: Sequence[Curve] = [Curve(name, values["likeness"]) for name, values in found.items()]
    curves(path.with_name(f"{path.stem}_minutes.png"), "likeness to the reference, by minute", rows)
