# SPDX-License-Identifier: Apache-2.0
"""One step of the stream, from its inputs to its frames: the same code live and in a replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowact_ros.engine.gaze import REST, Gaze, columns_of, turn
from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Latents, Pipeline, Reference, StreamState
from flowact_ros.engine.ring import RingEntry, Snapshot
from flowact_ros.timebase import FRAMES_PER_LATENT


@dataclass(frozen=True, eq=False)
class Step:
    """A step decided upon, its sound laid. before: where it starts; pcm: float32 [context + n*3840 + lookahead]."""

    before: Snapshot
    pcm: np.ndarray
    record: ChunkRecord
    reference: Reference

    @property
    def latent(self) -> int:
        """Index of its first latent."""
        return self.record.first_frame // FRAMES_PER_LATENT


@dataclass(frozen=True, eq=False)
class Made:
    """What became of a step.

    done: latents behind which the stream stands, `after` is the snapshot there; rendered: those that were drawn;
    seconds: from the start to the last frame; wall, core: of the whole step, by clock and processor; stages:
    milliseconds of denoise, render and commit.
    """

    done: int
    after: Snapshot
    rendered: int
    seconds: float
    wall: float
    core: float
    stages: dict[str, float]

    @property
    def render_s(self) -> float | None:
        """Seconds to render a latent; None if none was rendered."""
        return self.stages["render"] / 1000.0 / self.rendered if self.rendered else None

    @property
    def besides_s(self) -> float:
        """Seconds of all but rendering."""
        return self.wall - self.stages.get("render", 0.0) / 1000.0


class _Stopwatch:
    """Milliseconds by stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stages: dict[str, float] = {}
        self._clock = clock

    def __call__(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = self._clock()
        result = function(*arguments)
        self.stages[stage] = self.stages.get(stage, 0.0) + 1000.0 * (self._clock() - began)
        return result


def make(
    pipeline: Pipeline,
    step: Step,
    push: Callable[[RingEntry], None],
    *,
    stop: Callable[[int], bool] = lambda latent: False,
    seen: Callable[[int], bool] = lambda latent: True,
    clock: Callable[[], float] = time.monotonic,
) -> Made:
    """Denoises, renders latent by latent into `push`, commits to memory.

    stop(latent): is it useless to go on with this latent, since it will be made again? seen(latent): can its frames
    still be shown? Else they are not rendered. Raises EngineError if the pipeline gives wrong shapes.
    """
    began, core, timed = clock(), time.process_time(), _Stopwatch(clock)
    resets, first, count = step.record.resets, step.latent, step.record.latents
    state = timed("commit", resume, pipeline, step.before) if step.before.done else step.before.state
    gaze = step.before.gaze
    if resets != step.before.resets:  # a cut: from the reference alone
        state, gaze = pipeline.start(step.reference, step.record.seed), REST
    if step.record.refines:
        state = timed("commit", pipeline.refine, state)
    if state.latent_index != first:  # after a cut, or after latents that were skipped
        state = replace(state, latent_index=first)
    text = step.record.instruction
    latents = timed("denoise", pipeline.denoise, state, step.pcm, count, text, lambda: stop(first))
    done = rendered = 0
    while latents is not None and done < count and not stop(first + done):
        before = Snapshot(state, latents, done, resets, gaze)
        own = latents[done : done + 1]
        latent, gaze = _looking(pipeline, own, gaze, step.record)
        if seen(first + done):
            frames, motion = timed("render", _render, pipeline, state.reference, latent)
            made = motion if latent is own else pipeline.motion(own)
            push(RingEntry(first + done, frames, motion, before, step.record.behaviour, made))
            rendered += 1
        done += 1
    seconds = clock() - began
    after = Snapshot(state, latents, done, resets)
    after = Snapshot(timed("commit", resume, pipeline, after) if done else state, None, 0, resets, gaze)
    return Made(done, after, rendered, seconds, clock() - began, time.process_time() - core, timed.stages)


def resume(pipeline: Pipeline, snapshot: Snapshot) -> StreamState:
    """The state at a boundary inside a step: what the step made before it is committed to memory."""
    return pipeline.advance(snapshot.state, snapshot.latents[: snapshot.done])


def _looking(pipeline: Pipeline, latent: Latents, gaze: Gaze, record: ChunkRecord) -> tuple[Latents, Gaze]:
    """The latent as it is to be drawn, whose look goes to the record's target; what is committed is the one before."""
    columns = columns_of(pipeline.control_names)
    if columns is None or (record.look is None and gaze == REST):
        return latent, gaze
    motion, gaze = turn(pipeline.motion(latent), gaze, record.look, columns)
    return pipeline.with_motion(latent, motion), gaze


def _render(pipeline: Pipeline, reference: Reference, latent: Latents) -> tuple[np.ndarray, np.ndarray]:
    frames, motion = pipeline.render(reference, latent), pipeline.motion(latent)
    wanted = (FRAMES_PER_LATENT, pipeline.height, pipeline.width, 3)
    if frames.shape != wanted or frames.dtype != np.uint8:
        raise EngineError(f"the renderer gave {frames.dtype} {list(frames.shape)}: uint8 {list(wanted)} is needed")
    if motion.ndim != 2 or len(motion) != FRAMES_PER_LATENT or motion.dtype != np.float32:
        raise EngineError(
            f"the pipeline gave motion {motion.dtype} {list(motion.shape)}: float32 [{FRAMES_PER_LATENT}, K] is needed"
        )
    return frames, motion
