# SPDX-License-Identifier: Apache-2.0
"""What is evaluated: performances of characters, voices and sentences that training never saw, and recorded speech."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import (
    NAMED,
    STYLES,
    Identity,
    feature_boxes,
    identity_from_seed,
    mouth_opening,
    neutral,
    neutral_picture,
    render,
)
from flowact_ros.data.clips import make_performance
from flowact_ros.data.performance import Performance, again
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.evaluation.events import of_motion
from flowact_ros.evaluation.recognition import all_nine
from flowact_ros.evaluation.rig_metrics import Take
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLE_RATE, SAMPLES_PER_FRAME

SPEAKING = 0.75  # share of a clip with speech
FIRST_LONG = 200  # number of the first performance of long runs
DIALOGUE = 0.5  # share of a long run with speech
MOST_RECORDED_S = 20.0


class EvaluationError(RuntimeError):
    """An evaluation that cannot be carried out: one line."""


@dataclass(frozen=True)
class Clip:
    """A performance of one character. Frames are `[T, 3, size, size]` uint8. voice: the synthesizer's, where known."""

    name: str
    identity: Identity
    performance: Performance
    size: int
    voice: str = ""

    @property
    def frames(self) -> int:
        return self.performance.frames

    @property
    def pcm(self) -> np.ndarray:
        return self.performance.pcm

    @cached_property
    def controls(self) -> Tensor:
        return torch.as_tensor(self.performance.controls, dtype=torch.float32)

    def picture(self) -> np.ndarray:
        """The reference, uint8 [H, W, 3]: the neutral character."""
        return neutral_picture(self.identity, self.size)

    def paint(self, controls: Tensor | np.ndarray, size: int | None = None) -> Tensor:
        """This character by the world's own renderer, with any raw motion `[T, K]`."""
        return render(self.identity, torch.as_tensor(controls), size=size or self.size)

    def boxes(self, controls: Tensor | np.ndarray) -> dict[str, np.ndarray]:
        found = feature_boxes(self.identity, torch.as_tensor(controls), self.size)
        return {name: box.numpy() for name, box in found.items()}

    def take(self, series: np.ndarray) -> Take:
        """A series `[T, R]` of this clip, with what is said and asked for."""
        return Take(series, self.performance.phonemes, self.performance.kinds)

    def of_motion(self, motion: np.ndarray) -> Take:
        """The take of raw motion `[T, K]`, as a perfect readout would read it."""
        opening = mouth_opening(self.identity, torch.as_tensor(motion)).numpy()
        return self.take(of_motion(np.asarray(motion), opening))

    def true(self) -> Take:
        return self.of_motion(self.performance.controls)

    def again(self, seed: int) -> Clip:
        """The same sound and instructions lived through once more by the behaviour scripts: what a script animator
        with phoneme times would show, and how alike two truths are."""
        return replace(self, performance=again(self.performance, np.random.default_rng([seed, 0xA9A1])))

    def with_sound_of(self, other: Clip) -> Clip:
        """A control: another clip's sound."""
        return replace(self, performance=replace(self.performance, pcm=np.resize(other.pcm, self.pcm.shape)))

    def with_texts_of_others(self) -> Clip:
        """A control: every behaviour is asked for with the text of the next one."""
        told = self.performance.instruction
        turned = [(at, told[(k + 1) % len(told)][1]) for k, (at, _) in enumerate(told)]
        return replace(self, performance=replace(self.performance, instruction=turned))


def _whole(performance: Performance) -> Performance:
    """Cut to whole latents."""
    count = performance.frames // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    return replace(
        performance,
        controls=performance.controls[:count],
        pcm=performance.pcm[: count * SAMPLES_PER_FRAME],
        behaviour=performance.behaviour[:count],
        instruction=[entry for entry in performance.instruction if entry[0] < count],
        kinds=[entry for entry in performance.kinds if entry[0] < count],
    )


def _character(number: int, split: str) -> tuple[str, Identity]:
    """A character of the split for every number, the styles in turn."""
    seed = CHARACTER_SEEDS[split][number % len(CHARACTER_SEEDS[split])]
    return f"seed:{seed}", identity_from_seed(seed, STYLES[number % len(STYLES)])


def speech_clips(count: int, seconds: float, size: int, split: str = "heldout", first: int = 0) -> list[Clip]:
    """Clips that mostly speak, number `first` … of a split, each with another character."""
    clips = []
    for number in range(first, first + count):
        name, identity = _character(number, split)
        spec = make_performance(number, split, seconds, speaking=SPEAKING)
        clips.append(Clip(name, identity, _whole(spec.performance), size, spec.voice.backend))
    return clips


def behaviour_clips(count: int, size: int, split: str = "heldout") -> list[Clip]:
    """Clips with every one of nine behaviours, five seconds each."""
    clips = []
    for number in range(count):
        name, identity = _character(number, split)
        clips.append(Clip(name, identity, _whole(all_nine(number, split)), size))
    return clips


def long_clips(
    minutes: float, size: int, split: str = "heldout", seconds: float = 24.0, first: int = FIRST_LONG
) -> list[Clip]:
    """Dialogue-like performances for rates of events, number `first` … of a split."""
    count = math.ceil(60 * minutes / seconds)
    clips = []
    for number in range(first, first + count):
        name, identity = _character(number, split)
        spec = make_performance(number, split, seconds, speaking=DIALOGUE)
        clips.append(Clip(name, identity, _whole(spec.performance), size, spec.voice.backend))
    return clips


def recorded_clip(path: str | Path, character: str, size: int) -> Clip:
    """A named character who says recorded speech. Its controls are neutral: there is no truth for the lips.

    Raises MediaError, EvaluationError for less than 2 s of sound.
    """
    pcm, rate = read_audio(path)
    pcm = resample(pcm, rate, SAMPLE_RATE)[: int(MOST_RECORDED_S * SAMPLE_RATE)]
    count = len(pcm) // SAMPLES_PER_FRAME // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    if count < 2 * FRAME_RATE:
        raise EvaluationError(
            f"{path} holds {len(pcm) / SAMPLE_RATE:.1f} s of sound; at least 2 s are needed"
        )
    said = Performance(
        controls=neutral(count).numpy(),
        pcm=np.ascontiguousarray(pcm[: count * SAMPLES_PER_FRAME]),
        behaviour=np.zeros(count, np.int8),
        instruction=[(0, "talking to the viewer")],
        phonemes=[],
        kinds=[(0, "speaking")],
    )
    return Clip(Path(path).stem, NAMED[character], said, size)
