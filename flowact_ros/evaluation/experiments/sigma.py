# SPDX-License-Identifier: Apache-2.0
"""The renderer under motion noise: what becomes of edges, flicker and fidelity when motion trembles?

The world's renderer paints the same disturbed motion, so that only what the network adds is counted.
"""

from __future__ import annotations

import numpy as np
import torch

from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation.clips import speech_clips
from flowact_ros.evaluation.experiments.drawn import FIGURES, FLICKER, Subject, Sums, by_seed
from flowact_ros.evaluation.experiments.material import FIRST, Tell
from flowact_ros.evaluation.experiments.table import Row, Table
from flowact_ros.models.codec.motion import denormalise, normalise
from flowact_ros.timebase import FRAMES_PER_LATENT

SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.3)  # deviations, in the controls' scales
STRETCH = 12  # consecutive frames
CLIP_S = 10.0


def compare(pipeline: AvatarPipeline, seeds: int, frames: int, tell: Tell) -> Table:
    """The experiment. A seed is a character, `frames` frames of what it does, and noise."""
    every: dict[float, list[dict[str, float]]] = {sigma: [] for sigma in SIGMAS}
    stretches = max(1, frames // STRETCH)
    for seed in range(seeds):
        clip = speech_clips(1, CLIP_S, pipeline.height, first=FIRST + seed)[0]
        subject = Subject(pipeline.codec, clip)
        starts = np.linspace(0, clip.frames - STRETCH, stretches).astype(int)
        starts -= starts % FRAMES_PER_LATENT
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(stretches, STRETCH, clip.controls.shape[1], generator=generator)
        for k, sigma in enumerate(SIGMAS):
            tell(f"character {seed + 1} of {seeds}, noise {sigma:g}", (seed + k / len(SIGMAS)) / seeds)
            sums = Sums()
            for start, own in zip(starts, noise):
                calm = normalise(clip.controls[start : start + STRETCH])
                sums.add(subject, denormalise(calm + sigma * own))
            every[sigma].append(sums.values())
    rows = [Row(f"noise {sigma:g}", by_seed(found)) for sigma, found in every.items()]
    return Table(
        "sigma", "the renderer under motion noise", [*FIGURES, FLICKER], rows, seeds, rows[0].name,
        {"frames_a_seed": stretches * STRETCH},
    )  # fmt: skip
