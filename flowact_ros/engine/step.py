# SPDX-License-Identifier: Apache-2.0
"""One step of the stream, from its inputs to its frames: the same code live and in a replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Pipeline, Reference, StreamState
from flowact_ros.engine.ring import RingEntry, Snapshot
from flowact_ros.timebase import FRAMES_PER_LATENT

# parts of a call that a pipeline may have timed itself (Pipeline.timings)
_PARTS = {"denoise": ("audio", "text", "deepen"), "decode": ("output",)}


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


class Stopwatch:
    """Milliseconds by stage, with the parts that a pipeline has timed itself taken out of the whole."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float]) -> None:
        self.stages: dict[str, float] = {}
        self._pipeline, self._clock = pipeline, clock

    def __call__(self, stage: str, call: Callable[[], Any]) -> Any:
        began = self._clock()
        result = call()
        spent = 1000.0 * (self._clock() - began)
        timings = getattr(self._pipeline, "timings", None) or {}
        for part in _PARTS.get(stage, ()):
            value = min(spent, timings.get(part, 0.0))
            if part in timings:
                self.stages[part] = self.stages.get(part, 0.0) + value
            spent -= value
        self.stages[stage] = self.stages.get(stage, 0.0) + spent
        return result


def think(
    pipeline: Pipeline, step: Step, timed: Stopwatch, stop: Callable[[int], bool] = lambda latent: False
) -> Snapshot:
    """Denoises a step: the snapshot before its first latent, which holds all of its latents.

    stop(latent): has it become useless to make this latent, the first one? Then the snapshot holds none.
    """
    count, start = step.record.latents, step.before
    if start.done:
        start = timed("commit", lambda: resume(pipeline, step.before))
    state, decoder = start.state, start.decoder
    if step.record.resets != start.resets:  # a cut: from the reference alone
        state = pipeline.start(step.reference, step.record.seed)
        decoder = pipeline.start_decoder(step.reference)
    if state.latent_index != step.latent:  # after a cut, or after latents that were skipped
        state = replace(state, latent_index=step.latent)
    text, useless = step.record.instruction, lambda: stop(step.latent)
    latents = timed("denoise", lambda: pipeline.denoise(state, step.pcm, count, text, useless))
    return Snapshot(state, latents, 0, decoder, step.record.resets)


def draw(
    pipeline: Pipeline, step: Step, before: Snapshot, timed: Stopwatch, painting: Any = None
) -> tuple[RingEntry, Any]:
    """Decodes the latent right after `before` -> its entry, and the decoder's state after it.

    painting: of this latent, where `pipeline.paint` made one. Raises EngineError if the pipeline gives wrong shapes.
    """
    given = (before.latents[before.done], before.decoder, *(() if painting is None else (painting,)))
    frames, decoder = timed("decode", lambda: pipeline.decode(*given))
    _check(frames, pipeline)
    return RingEntry(step.latent + before.done, frames, before, step.record.behaviour), decoder


def remember(pipeline: Pipeline, before: Snapshot, done: int, timed: Stopwatch) -> StreamState:
    """Commits the first `done` latents of a step to memory."""
    return timed("commit", lambda: pipeline.advance(before.state, before.latents[:done]))


def make(
    pipeline: Pipeline,
    step: Step,
    push: Callable[[RingEntry], None],
    *,
    stop: Callable[[int], bool] = lambda latent: False,
    clock: Callable[[], float] = time.monotonic,
) -> Made:
    """Denoises, decodes latent by latent into `push`, commits what was decoded: one after the other.

    stop(latent): is it useless to go on with this latent? Raises EngineError if the pipeline gives wrong shapes.
    """
    began, core = clock(), time.process_time()
    timed = Stopwatch(pipeline, clock)
    here = think(pipeline, step, timed, stop)
    first = here
    while here.latents is not None and here.done < step.record.latents and not stop(step.latent + here.done):
        entry, decoder = draw(pipeline, step, here, timed)
        push(entry)
        here = replace(here, done=here.done + 1, decoder=decoder)
    state = remember(pipeline, first, here.done, timed) if here.done else first.state
    after = Snapshot(state, None, 0, here.decoder, here.resets)
    return Made(here.done, after, clock() - began, time.process_time() - core, timed.stages)


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
