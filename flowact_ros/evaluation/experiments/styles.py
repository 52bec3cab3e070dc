# SPDX-License-Identifier: Apache-2.0
"""Does the renderer draw a style that it was not trained on? True motion of unseen characters, style by style.

One row a renderer and style: the shipped weights, and those of a run whose training left a style out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowact_ros.data.characters import STYLES, identity_from_seed
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation.clips import speech_clips
from flowact_ros.evaluation.experiments.drawn import FIGURES, Subject, Sums, by_seed
from flowact_ros.evaluation.experiments.material import FIRST, Tell, load_state
from flowact_ros.evaluation.experiments.table import Row, Table
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import ModelConfig
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.lineage import run_state

CLIP_S = 10.0


def load_renderer(run: str, config: ModelConfig) -> LiveCodec:
    """Of a run of `flowact train renderer`. Raises ValueError."""
    renderer = Renderer(config.renderer)
    load_state(renderer, run_state(Path(run))["ema"], run)
    return LiveCodec(renderer)


def compare(
    pipeline: AvatarPipeline, codecs: Sequence[tuple[str, LiveCodec]], seeds: int, frames: int, tell: Tell
) -> Table:
    """The experiment. A seed is a performance, shown by a character of every style."""
    rows: list[Row] = []
    total = len(codecs) * len(STYLES) * seeds
    performances = [speech_clips(1, CLIP_S, pipeline.height, first=FIRST + seed)[0] for seed in range(seeds)]
    for name, codec in codecs:
        for s, style in enumerate(STYLES):
            every = []
            for seed, clip in enumerate(performances):
                tell(f"{name}, {style}", (len(rows) * seeds + seed) / total)
                number = CHARACTER_SEEDS["heldout"][(seed * len(STYLES) + s) % len(CHARACTER_SEEDS["heldout"])]
                latents = clip.frames // FRAMES_PER_LATENT - 1
                starts = np.linspace(0, latents, frames // FRAMES_PER_LATENT).astype(int) * FRAMES_PER_LATENT
                shown = replace(clip, identity=identity_from_seed(number, style))
                subject, sums = Subject(codec, shown), Sums()
                for start in starts:
                    sums.add(subject, shown.controls[start : start + FRAMES_PER_LATENT])
                every.append(sums.values())
            rows.append(Row(f"{name}: {style}", by_seed(every)))
    return Table("styles", "true motion through the renderer, style by style", list(FIGURES), rows, seeds)
