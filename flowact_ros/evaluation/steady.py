# SPDX-License-Identifier: Apache-2.0
"""One character for minutes: does it stay the same person in the same light?

Sampled pictures of the stream are compared with its reference and with the renderer's own pictures of the same
performances. A frozen picture would be perfect here: `quick` shows the motion beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import NAMED, neutral_picture
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation import metrics
from flowact_ros.evaluation.clips import heldout_clips, image_latents, stream
from flowact_ros.evaluation.report import Report
from flowact_ros.evaluation.sheets import SHEET_COLUMNS, small

SAMPLE_EVERY = 10  # frames between two looks at light and sharpness
IDENTITY_EVERY = 3  # of those looks, one at the identity
FIRST_CLIP = 100  # held-out clips from this number on fill the run
CLIP_S = 12.0
IDENTITY_SHARE = 0.25  # the first against the last quarter: half a minute of two
FADING = 1.15  # the control: true pictures that grow lighter by so much from start to end


def steady_run(
    report: Report,
    pipeline: AvatarPipeline,
    character: str,
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[int], None] = lambda frames: None,
) -> list[tuple[str, Tensor]]:
    """Adds the drift figures of `seconds` of a named character to the report; returns rows for a contact sheet."""
    size = pipeline.config.height
    identity, picture = NAMED[character], neutral_picture(NAMED[character], size)
    count = max(1, round(seconds / CLIP_S))
    clips = [
        c.as_character(identity, character) for c in heldout_clips(count, CLIP_S, size, first=FIRST_CLIP)
    ]
    frames = []
    for k, frame in enumerate(stream(pipeline, picture, [clip.performance for clip in clips], seed=seed)):
        if k % SAMPLE_EVERY == 0:
            frames.append(torch.from_numpy(frame.rgb).permute(2, 0, 1))
        tell(1)
    made = torch.stack(frames)
    # A look at the truth at the same times, whatever remains of a clip's length modulo the step.
    times = np.arange(0, sum(c.frames for c in clips), SAMPLE_EVERY)
    offsets = np.cumsum([0, *(c.frames for c in clips)])
    drawn = torch.cat(
        [c.truth_at(times[(times >= a) & (times < b)] - a) for c, a, b in zip(clips, offsets, offsets[1:])]
    )
    _light(report, made, drawn)
    _identity(report, pipeline, character, picture, made[::IDENTITY_EVERY], drawn[::IDENTITY_EVERY])
    chosen = torch.linspace(0, len(made) - 1, SHEET_COLUMNS).long()
    return [("long truth", small(drawn[chosen])), ("stream", small(made[chosen]))]


def _light(report: Report, made: Tensor, drawn: Tensor) -> None:
    changes, own = metrics.drift(metrics.statistics(made)), metrics.drift(metrics.statistics(drawn))
    fading = drawn.float() * torch.linspace(1.0, FADING, len(drawn))[:, None, None, None]
    control = metrics.drift(metrics.statistics(fading.clamp(0, 255).to(torch.uint8)))
    for name in metrics.STATISTICS:
        report.add(
            f"drift_{name}", f"{name}: first 15 % against last 15 %", 100 * changes[name], "%",
            truth=100 * own[name], control=100 * control[name] if name == "luma" else None, most=3.0, digits=2,
        )  # fmt: skip


def _identity(
    report: Report, pipeline: AvatarPipeline, character: str, picture: np.ndarray, made: Tensor, drawn: Tensor
) -> None:
    size = pipeline.config.height
    pictures = {
        name: torch.from_numpy(neutral_picture(who, size)).permute(2, 0, 1) for name, who in NAMED.items()
    }
    everyone = image_latents(pipeline, torch.stack(list(pictures.values())))
    reference = image_latents(pipeline, torch.from_numpy(picture).permute(2, 0, 1)[None])[0]

    def start_and_end(frames: Tensor) -> tuple[float, float]:
        values = metrics.cosines(image_latents(pipeline, frames), reference, everyone)
        first, last = metrics.ends(values, IDENTITY_SHARE)
        return float(first), float(last)

    first, last = start_and_end(made)
    own_first, own_last = start_and_end(drawn)
    strangers = torch.stack([z for name, z in zip(pictures, everyone, strict=True) if name != character])
    nearest = float(metrics.cosines(strangers, reference, everyone).max())
    report.add(
        "identity_fall", "identity: cosine lost from start to end", first - last, truth=own_first - own_last,
        control=own_first - nearest, most=0.02, digits=4,
    )  # fmt: skip
    report.add(
        "identity_end", "identity: cosine at the end (control: the most alike stranger)", last, truth=own_last,
        control=nearest, least=round(0.9 * own_last, 3),
    )  # fmt: skip
