# SPDX-License-Identifier: Apache-2.0
"""One step of the stream, from its inputs to its frames: the same code live and in a replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Pipeline, Reference
from flowact_ros.engine.ring import RingEntry, Snapshot
from flowact_ros.timebase import FRAMES_PER_LATENT

# parts of a call that a pipeline may have timed itself (Pipeline.timings)
_PARTS = {"denoise": ("audio", "text"), "decode": ("output",)}


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
    """What became of a step: latents decoded, the snapshot after them, wall and processor seconds, ms by stage."""

    done: int
    after: Snapshot
    wall: float
    core: float
    stages: dict[str, float]


def make(
    pipeline: Pipeline,
    step: Step,
    push: Callable[[RingEntry], None],
    *,
    stop: Callable[[int], bool] = lambda latent: False,
    clock: Callable[[], float] = time.monotonic,
) -> Made:
    """Denoises, decodes latent by latent into `push`, commits what was decoded.

    stop(latent): is it useless to go on with this latent? Raises EngineError if the pipeline gives wrong shapes.
    """
    began, core = clock(), time.process_time()
    stages: dict[str, float] = {}

    def timed(stage: str, call: Callable[[], Any]) -> Any:
        t = clock()
        result = call()
        spent = 1000.0 * (clock() - t)
        timings = getattr(pipeline, "timings", None) or {}
        for part in _PARTS.get(stage, ()):
            value = min(spent, timings.get(part, 0.0))
            if part in timings:
                stages[part] = stages.get(part, 0.0) + value
            spent -= value
        stages[stage] = stages.get(stage, 0.0) + spent
        return result

    count, start = step.record.latents, step.before
    if start.done:
        start = timed("commit", lambda: resume(pipeline, step.before))
    state, decoder = start.state, start.decoder
    if step.record.resets != start.resets:  # a cut: from the reference alone
        state, decoder = (
            pipeline.start(step.reference, step.record.seed),
            pipeline.start_decoder(step.reference),
        )
    if state.latent_index != step.latent:  # after a cut, or after latents that were skipped
        state = replace(state, latent_index=step.latent)
    latents = timed("denoise", lambda: pipeline.denoise(state, step.pcm, count, step.record.instruction))
    done = 0
    while done < count and not stop(step.latent + done):
        latent, before = latents[done], decoder
        frames, decoder = timed(
            "decode", lambda latent=latent, before=before: pipeline.decode(latent, before)
        )
        _check(frames, pipeline)
        here = Snapshot(state, latents, done, before, step.record.resets)
        push(RingEntry(step.latent + done, frames, here, step.record.behaviour))
        done += 1
    if done:
        before_step, kept = state, latents[:done]
        state = timed("commit", lambda: pipeline.advance(before_step, kept))
    after = Snapshot(state, None, 0, decoder, step.record.resets)
    return Made(done, after, clock() - began, time.process_time() - core, stages)


def resume(pipeline: Pipeline, snapshot: Snapshot) -> Snapshot:
    """A boundary inside a step -> the same boundary as the start of another step."""
    state = snapshot.state
    if snapshot.done:
        state = pipeline.advance(state, snapshot.latents[: snapshot.done])
    return Snapshot(state, None, 0, snapshot.decoder, snapshot.resets)


def _check(frames: Any, pipeline: Pipeline) -> None:
    wanted = (FRAMES_PER_LATENT, pipeline.height, pipeline.width, 3)
    if frames.shape != wanted or frames.dtype != np.uint8:
        raise EngineError(
            f"the decoder gave {frames.dtype} {list(frames.shape)}: uint8 {list(wanted)} is needed"
        )
