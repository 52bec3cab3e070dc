# SPDX-License-Identifier: Apache-2.0
"""Minutes to hours of motion: the truth's, and the model's for the same sound and instructions, kept in a folder.

What the live watch calls wrong, and whether a stream drifts, shows in long stretches only. Streams of one length run
side by side from the neutral pose on, without pictures. `truth_N.npz` and `NAME_N.npz` are made once: a second call
reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.behaviours import CODES
from flowact_ros.data.characters import Identity
from flowact_ros.data.clips import make_performance
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import initial_noise, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation.generate import STEP, text_at
from flowact_ros.models.codec.motion import denormalise, limited
from flowact_ros.models.dit import Condition
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLES_PER_FRAME
from flowact_ros.vocabulary import SPEAKING

FIRST = 700_000  # number of the first performance: no other evaluation hears it
SPEECH = 0.55  # share of the time with speech
_HEARD = 60 * FRAME_RATE  # frames whose sound is encoded at once


@dataclass(frozen=True)
class Long:
    """One stream: raw motion float `[T, K]` and the mean squares of its frames' speech `[T]`."""

    motion: np.ndarray
    power: np.ndarray

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, motion=self.motion.astype(np.float32), power=self.power)
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> Long:
        with np.load(path) as file:
            return Long(file["motion"], file["power"])


def long_motion(
    pipeline: AvatarPipeline,
    folder: Path,
    name: str,
    streams: int,
    seconds: float,
    tell: Callable[[str, float], None] = lambda text, done: None,
) -> tuple[list[Long], list[Long]]:
    """(the truth's, the model's) motion of `streams` performances; name: of the model's files."""
    paths = [[folder / f"{kind}_{n}.npz" for n in range(streams)] for kind in ("truth", name)]
    if not all(path.exists() for both in paths for path in both):
        truths, conditions = [], []
        for n, path in enumerate(paths[0]):
            tell(f"truth {n + 1} of {streams}", 0.3 * n / streams)
            truth, condition, _ = perform(pipeline, FIRST + n, seconds)
            truth.save(path)
            truths.append(truth)
            conditions.append(condition)
        together = Condition(
            torch.cat([c.audio for c in conditions]), torch.cat([c.text for c in conditions])
        )
        made = list(_run(pipeline, together, tell))
        for path, motion, truth in zip(paths[1], np.concatenate(made, 1), truths, strict=True):
            Long(motion, truth.power[: len(motion)]).save(path)
    return [Long.load(p) for p in paths[0]], [Long.load(p) for p in paths[1]]


@torch.inference_mode()
def perform(pipeline: LatentPipeline, number: int, seconds: float) -> tuple[Long, Condition, Identity]:
    """A performance of held-out voices and sentences, what the denoiser knows of it, in whole steps, and whose."""
    frames = round(seconds * FRAME_RATE) // (STEP * FRAMES_PER_LATENT) * STEP * FRAMES_PER_LATENT
    spec = make_performance(number, "heldout", frames / FRAME_RATE, SPEECH)
    performance = spec.performance
    window = pipeline.window
    sound = np.pad(performance.pcm, (window.context_samples, window.lookahead_samples))
    beside = window.context_samples + window.lookahead_samples
    features = torch.cat(
        [
            window(sound[at * SAMPLES_PER_FRAME : min(at + _HEARD, frames) * SAMPLES_PER_FRAME + beside])
            for at in range(0, frames, _HEARD)
        ]
    )
    told = {text: pipeline.text_encoder.encode([text])[0] for _, text in performance.instruction}
    size = STEP * FRAMES_PER_LATENT
    words = torch.stack(
        [
            told[text_at(performance.instruction, at // size * size)]
            for at in range(0, frames, FRAMES_PER_LATENT)
        ]
    )
    power = np.square(performance.pcm, dtype=np.float64).reshape(-1, SAMPLES_PER_FRAME).mean(1)
    power *= performance.behaviour == CODES[SPEAKING]  # as live: a hiss between utterances is no speech
    condition = Condition(features.unflatten(0, (-1, FRAMES_PER_LATENT))[None], words[None])
    return Long(performance.controls, power), condition, spec.identity


@torch.inference_mode()
def _run(
    pipeline: AvatarPipeline, condition: Condition, tell: Callable[[str, float], None]
) -> Iterator[np.ndarray]:
    """Raw motion `[B, T, K]`, step by step; each stream has noise of its own."""
    model, shape = pipeline.denoiser, pipeline.config.dit.latent_shape
    streams, latents = condition.audio.shape[:2]
    device = next(model.parameters()).device

    def noise(first: int, count: int) -> Tensor:
        return initial_noise(pipeline.config, range(streams), first, count).to(device)

    bank = MemoryBank.start(model, torch.zeros(streams, *shape, device=device))
    steps = (_moved(condition.slots(k, k + STEP), device) for k in range(0, latents, STEP))
    made = rollout(model, bank, steps, noise, step_sigmas(pipeline.config.schedule))
    for k, (chunk, _) in enumerate(made):
        tell("the model's motion", 0.3 + 0.7 * k * STEP / latents)
        yield denormalise(limited(chunk)).flatten(1, 2).cpu().numpy()


def _moved(condition: Condition, device: torch.device) -> Condition:
    return Condition(condition.audio.to(device), condition.text.to(device))
