# SPDX-License-Identifier: Apache-2.0
"""What experiments on motion run on: clips of all seeds side by side, and the streams that a denoiser makes of them.

A seed is a set of clips of its own (held-out characters, voices and sentences) with noise of its own. All settings of
an experiment get the same clips and the same noise. Nothing is drawn: figures are those of raw motion.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import DiagonalWindow, initial_noise, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation.clips import Clip, speech_clips
from flowact_ros.evaluation.generate import STEP, text_at
from flowact_ros.evaluation.rig_metrics import Take
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.codec.motion import denormalise, limited
from flowact_ros.models.config import ModelConfig, sampled_as, with_overrides
from flowact_ros.models.dit import KIND, Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.lineage import SHIPPED, run_schedule, run_state
from flowact_ros.training.state_files import STATE

FIRST = 2000  # number of the first clip: no other evaluation hears it
CLIP_S = 24.0  # length of a clip; a seed of a minute has two or three
SIZE = 480  # of the characters; nothing is drawn, but a mouth's opening is a fraction of the canvas
CHUNK = STEP * FRAMES_PER_LATENT  # frames
DENOISER = "denoiser.safetensors"  # in a folder of exported weights
TIMED = 8  # chunks of which one is timed

Tell = Callable[[str, float], None]
Done = Callable[[float], None]  # told 0 … 1
Finish = Callable[[Tensor], Tensor]
Bank = Callable[[DiT, Tensor], Any]  # what a memory begins as, for `rollout`: `MemoryBank.start`, or one like it


def within(tell: Tell, text: str, start: float, end: float) -> Done:
    """Tells of a part of the work that goes from `start` to `end` of the whole."""
    return lambda done: tell(text, start + (end - start) * done)


@dataclass(frozen=True, eq=False)
class Material:
    """Clips side by side: `seeds[i]` is the seed of clip i; the condition's rows are clips, as long as the longest."""

    clips: list[Clip]
    seeds: list[int]
    condition: Condition

    @property
    def count(self) -> int:
        """Seeds."""
        return len(set(self.seeds))

    def each(self) -> list[Material]:
        """One clip each."""
        return [
            Material([clip], [seed], Condition(self.condition.audio[i : i + 1], self.condition.text[i : i + 1]))
            for i, (clip, seed) in enumerate(zip(self.clips, self.seeds))
        ]

    def with_other_sound(self) -> Material:
        """A control: each clip hears the next one's."""
        return Material(self.clips, self.seeds, Condition(self.condition.audio.roll(1, 0), self.condition.text))

    def takes(self, motion: Iterable[np.ndarray]) -> list[list[Take]]:
        """Takes of raw motion `[T, K]`, one a clip, by seed; what lies behind the end of a clip is left out."""
        return self.by_seed([clip.of_motion(m[: clip.frames]) for clip, m in zip(self.clips, motion, strict=True)])

    def truth(self) -> list[list[Take]]:
        return self.by_seed([clip.true() for clip in self.clips])

    def again(self) -> list[list[Take]]:
        """The truth performed once more: how alike two truths of the same sound are."""
        return self.by_seed([clip.again(i).true() for i, clip in enumerate(self.clips)])

    def by_seed(self, of_clips: Sequence[Any]) -> list[list[Any]]:
        numbers = sorted(set(self.seeds))
        return [[x for x, seed in zip(of_clips, self.seeds, strict=True) if seed == n] for n in numbers]


def speech(pipeline: AvatarPipeline, seeds: int, minutes: float, tell: Tell, clip_s: float = CLIP_S) -> Material:
    """Clips that mostly speak, `minutes` a seed."""
    each = max(1, round(60 * minutes / clip_s))
    clips, numbers = [], []
    for seed in range(seeds):
        tell(f"clips of seed {seed + 1} of {seeds}", 0.2 * seed / seeds)
        clips += speech_clips(each, clip_s, SIZE, first=FIRST + seed * each)
        numbers += [seed] * each
    return material(pipeline, clips, numbers)


@torch.inference_mode()
def material(pipeline: AvatarPipeline, clips: Sequence[Clip], seeds: Sequence[int]) -> Material:
    """Of clips, each heard in whole. A shorter one goes on with its last latent's sound and text."""
    heard, told = [], []
    for clip in clips:
        window = pipeline.window
        sound = np.pad(clip.pcm, (window.context_samples, window.lookahead_samples))
        heard.append(window(sound).unflatten(0, (-1, FRAMES_PER_LATENT)))
        known = {text: pipeline.text_encoder.encode([text])[0] for _, text in clip.performance.instruction}
        steps = range(0, clip.frames, FRAMES_PER_LATENT)
        told.append(
            torch.stack([known[text_at(clip.performance.instruction, at // CHUNK * CHUNK)] for at in steps])
        )
    audio, text = (_side_by_side(rows).to(pipeline.device) for rows in (heard, told))
    return Material(list(clips), list(seeds), Condition(audio, text))


def _side_by_side(rows: Sequence[Tensor]) -> Tensor:
    """`[S_i, ...]` of several lengths -> `[B, S, ...]`, the last of each repeated."""
    longest = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, row[-1:].expand(longest - len(row), *row.shape[1:])]) for row in rows])


def noise_of(material: Material, config: ModelConfig) -> Callable[[int, int], Tensor]:
    """Noise of all streams for `rollout`: each clip's is its own, of its sound and its seed."""
    numbers = [
        seed + zlib.crc32(clip.pcm.tobytes() + clip.name.encode())
        for clip, seed in zip(material.clips, material.seeds)
    ]

    def noise(first: int, count: int) -> Tensor:
        return initial_noise(config, numbers, first, count).to(material.condition.audio.device)

    return noise


@torch.inference_mode()
def latents(
    model: DiT,
    material: Material,
    reference: Tensor,
    *,
    steps: int | None = None,
    order: str = "sequential",
    bank: Bank = MemoryBank.start,
    finish: Finish = lambda made: made,
    tell: Done = lambda done: None,
) -> Tensor:
    """Latents `[B, S, P, C]` of all clips, free-running from `reference` `[B, P, C]` on, as the sampler gave them.

    steps: evaluations a chunk, the preset's where it is None; order: "sequential" or "diagonal", which alone commits
    what `finish` made of a chunk
    """
    condition = material.condition
    count = condition.audio.shape[1]
    noise = noise_of(material, model.config)
    start = bank(model, reference.to(condition.audio.device))
    starts = range(0, count, STEP)
    parts = [condition.slots(k, min(k + STEP, count)) for k in starts]
    sigmas = sigmas_of(model, steps)
    made = []
    if order == "diagonal":
        window = DiagonalWindow(start, sigmas, model.config.schedule.in_flight, finish=finish)
        for k, part in zip(starts, parts):
            window, done = window.push(model, noise(k, part.audio.shape[1]), part)
            made += [] if done is None else [done]
            tell(k / count)
        made += window.flush(model)[1]
    else:
        for k, (chunk, _) in zip(starts, rollout(model, start, parts, noise, sigmas)):
            made.append(chunk)
            tell(k / count)
    return torch.cat(made, 1)


@torch.inference_mode()
def run(
    model: DiT,
    material: Material,
    *,
    steps: int | None = None,
    order: str = "sequential",
    bank: Bank = MemoryBank.start,
    tell: Done = lambda done: None,
) -> np.ndarray:
    """Raw motion `[B, T, K]` of all clips, free-running from the neutral pose on; options as of `latents`."""
    neutral = torch.zeros(len(material.clips), *model.config.dit.latent_shape)
    made = latents(model, material, neutral, steps=steps, order=order, bank=bank, finish=limited, tell=tell)
    return denormalise(limited(made)).flatten(1, 2).cpu().numpy()


def sigmas_of(model: DiT, steps: int | None) -> tuple[float, ...]:
    schedule = model.config.schedule
    return step_sigmas(schedule if steps is None else with_overrides(schedule, {"steps": steps}))


def configured(model: DiT, overrides: dict[str, Any]) -> DiT:
    """The same network (its weights are shared) under another configuration, e.g. `{"memory": {"long_term": 7}}`."""
    other = copy(model)
    other.config = with_overrides(model.config, overrides)
    return other


def chunk_costs(
    model: DiT, material: Material, repeats: int, steps: int | None = None, order: str = "sequential"
) -> tuple[list[float], list[float]]:
    """Processor milliseconds of one thread that the first chunk takes until it is there, and a later one, of one
    stream; `repeats` of each. Commits are counted, hearing and drawing are not.
    """
    one = material.each()[0]
    whole = one.condition
    size = min(whole.audio.shape[1] // STEP, TIMED) * STEP
    first, later = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats):
            spent = [_spent(model, one, condition, steps, order) for condition in
                     (whole.slots(0, STEP), whole.slots(0, size))]  # fmt: skip
            first.append(1e3 * spent[0])
            later.append(1e3 * (spent[1] - spent[0]) / max(1, size // STEP - 1))
    finally:
        torch.set_num_threads(threads)
    return first, later


def _spent(model: DiT, one: Material, condition: Condition, steps: int | None, order: str) -> float:
    began = time.process_time()
    run(model, Material(one.clips, one.seeds, condition), steps=steps, order=order)
    return time.process_time() - began


def load_state(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Raises ValueError, one line, for weights of another network."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{source} holds weights of another preset or version: {first}") from None


def load_denoiser(source: str, config: ModelConfig) -> DiT:
    """A denoiser of `config`, sampled as it is made for: of a run, a folder or file of exported weights, or "shipped".

    Raises ValueError, CheckpointError.
    """
    model, path = DiT(config), Path(source)
    if source == SHIPPED:
        path = weights_dir() / config.name / DENOISER
    elif (path / DENOISER).is_file() and not (path / STATE).is_file():
        path = path / DENOISER
    if path.suffix == ".safetensors":
        card = load_weights(path, model, kind=KIND, config=config.denoiser_contract())
    else:
        state = run_state(path)
        load_state(model, state["ema"], source)
        card = {"schedule": run_schedule(state)}
    model.config = sampled_as(config, card)
    return model.eval().requires_grad_(False)
