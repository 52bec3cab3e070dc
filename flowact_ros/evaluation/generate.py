# SPDX-License-Identifier: Apache-2.0
"""What the networks make of a reference, sound and instructions: the one place where the evaluation asks for pictures.

The steps are those of the live stream without its clock: three latents, committed as they are, text in force when a
step begins. Pictures are drawn when they are asked for, so that long runs may ask for motion alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from flowact_ros.engine.interfaces import Pipeline
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.models.codec.motion import clamp, normalise
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_LATENT

STEP = 3  # latents
HALF_STEP = 6  # frames: an instruction takes effect with the step that begins nearest to it


def generate(
    pipeline: Pipeline,
    reference_rgb: np.ndarray,
    pcm: np.ndarray,
    instructions: Sequence[tuple[int, str]],
    seed: int,
    tell: Callable[[int], None] = lambda frames: None,
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """(frames uint8 `[H, W, 3]` one by one, motion float32 `[T, K]` in the rig's units) of whole latents of `pcm`.

    reference_rgb: uint8 `[H, W, 3]`; pcm: float32 `[N]` at 24 kHz; instructions: (first frame, text), the first at 0;
    tell: told the frames of every step. Raises ReferenceError_, and ValueError for less sound than one latent.
    """
    latents = len(pcm) // SAMPLES_PER_LATENT
    if latents < 1:
        raise ValueError(
            f"{len(pcm)} samples of sound; at least {SAMPLES_PER_LATENT}, one latent, are needed"
        )
    before, after = pipeline.context_samples, pipeline.lookahead_samples
    sound = np.concatenate(
        [np.zeros(before, np.float32), np.asarray(pcm, np.float32), np.zeros(after, np.float32)]
    )
    reference = pipeline.load_reference(reference_rgb)
    state = pipeline.start(reference, seed)
    parts, motion = [], []
    for first in range(0, latents, STEP):
        count = min(STEP, latents - first)
        at = first * SAMPLES_PER_LATENT
        heard = sound[at : at + before + count * SAMPLES_PER_LATENT + after]
        made = pipeline.denoise(state, heard, count, text_at(instructions, first * FRAMES_PER_LATENT))
        assert made is not None  # nobody asked it to stop
        state = pipeline.advance(state, made)
        parts.append(made)
        motion.append(pipeline.motion(made))
        tell(count * FRAMES_PER_LATENT)
    return (frame for part in parts for frame in pipeline.render(reference, part)), np.concatenate(motion)


def text_at(instructions: Sequence[tuple[int, str]], frame: int) -> str:
    """The text in force for a step that begins with `frame`."""
    text = ""
    for at, told in instructions:
        if at <= frame + HALF_STEP:
            text = told
    return text


def draw(pipeline: AvatarPipeline, reference_rgb: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Frames uint8 `[4 n, H, W, 3]` of a given raw motion `[4 n, K]`: what the renderer makes of the truth's."""
    reference = pipeline.load_reference(reference_rgb)
    return pipeline.codec.render(reference.appearance, normalise(clamp(torch.from_numpy(motion))))
