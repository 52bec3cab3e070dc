# SPDX-License-Identifier: Apache-2.0
"""One step of the stream, from its inputs to its frames: the same code live and in a replay."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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

    done: latents behind which the stream stands, `after` is the snapshot there; drawn: those that were rendered;
    seconds: from the start to the last frame; wall: until the next step may begin; core: seconds of the processor until
    then; stages: milliseconds of denoise, render and commit; beside: the next step was not held up by rendering.
    """

    done: int
    after: Snapshot
    drawn: tuple[RingEntry, ...]
    seconds: float
    wall: float
    core: float
    stages: dict[str, float]
    beside: bool = False

    @property
    def render_s(self) -> float | None:
        """Seconds to render a latent; None if none was rendered."""
        return self._rendered_s / len(self.drawn) if self.drawn else None

    @property
    def besides_s(self) -> float:
        """Seconds of all but rendering."""
        return self.wall if self.beside else self.wall - self._rendered_s

    @property
    def period_s(self) -> float:
        """Seconds in which such steps follow each other: of the slower one, where rendering goes on beside the next."""
        return max(self.wall, self._rendered_s) if self.beside else self.wall

    @property
    def _rendered_s(self) -> float:
        return self.stages.get("render", 0.0) / 1000.0

    def delayed(self, seconds: float) -> Made:
        """The same, with the time for which other streams kept it from the device that they share."""
        stages = {"wait": 1000.0 * seconds, **self.stages}
        return replace(self, seconds=self.seconds + seconds, wall=self.wall + seconds, stages=stages)


class _Asked(NamedTuple):
    """A latent that is to be drawn, or passed over. own, turned: as denoised, and as drawn; gaze: after it."""

    latent: int
    before: Snapshot
    own: Latents
    turned: Latents
    gaze: Gaze
    seen: bool


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


def never(latent: int) -> bool:
    return False


class Making:
    """A step on its way: `denoise` it, then `draw` its frames and write memory, in the order that suits the device.

    One network after the other (`make`): frames are drawn first, since somebody waits for them. A device that draws by
    itself once the latents are there (`Pipeline.draws_beside`): memory is written first, by `commit`, and while the
    next step is denoised another thread waits for the frames.
    """

    def __init__(self, pipeline: Pipeline, step: Step, clock: Callable[[], float] = time.monotonic) -> None:
        self.step = step
        self._after: Snapshot | None = None  # all of it, once `commit` has written it
        self._pipeline, self._clock, self._timed = pipeline, clock, _Stopwatch(clock)
        self._began, self._core = clock(), time.process_time()
        self._wall = 0.0
        self._state, self._gaze = step.before.state, step.before.gaze
        self._latents: Latents | None = None

    @property
    def count(self) -> int:
        """Latents that were denoised: all, or none."""
        return 0 if self._latents is None else self.step.record.latents

    def denoise(self, stop: Callable[[int], bool] = never) -> None:
        """stop: see `make`."""
        pipeline, step, timed = self._pipeline, self.step, self._timed
        before, record, first = step.before, step.record, step.latent
        state = timed("commit", resume, pipeline, before) if before.done else before.state
        if record.resets != before.resets:  # a cut: from the reference alone
            state, self._gaze = pipeline.start(step.reference, record.seed), REST
        if record.refines:
            state = timed("commit", pipeline.refine, state)
        if state.latent_index != first:  # after a cut, or after latents that were skipped
            state = replace(state, latent_index=first)
        self._state = state
        self._latents = timed(
            "denoise", pipeline.denoise, state, step.pcm, record.latents, record.instruction, lambda: stop(first)
        )

    def commit(self) -> Snapshot:
        """Writes all of it to memory before it is drawn. For motion without a gaze: where it looks is not known yet."""
        self._after = self._committed(self.count)
        self._lap()
        return self._after

    def draw(
        self,
        push: Callable[[RingEntry], None],
        stop: Callable[[int], bool] = never,
        seen: Callable[[int], bool] = lambda latent: True,
    ) -> Made:
        """Latent by latent into `push`; then writes memory, unless that was done. Arguments as those of `make`.

        Where memory was written already and not all of it was drawn, the snapshot after it is one inside the step.
        """
        pipeline, record = self._pipeline, self.step.record
        done, drawn, asked = 0, [], deque[_Asked]()
        drawing = pipeline.draw(self._state.reference, self._asked(asked, stop, seen))
        while not (asked and stop(asked[0].latent)):  # one that was asked for ahead may have become useless
            frames = self._timed("render", next, drawing, None)
            while asked and not asked[0].seen:
                done, self._gaze = done + 1, asked.popleft().gaze
            if frames is None:
                break
            one = asked.popleft()
            frames, motion = _checked(pipeline, frames, pipeline.motion(one.turned))
            made = motion if one.turned is one.own else pipeline.motion(one.own)
            drawn.append(RingEntry(one.latent, frames, motion, one.before, record.behaviour, made))
            push(drawn[-1])
            done, self._gaze = done + 1, one.gaze
        drawing.close()
        seconds = self._clock() - self._began
        beside = self._after is not None
        if beside:
            after = self._after if done == self.count else self._inside(done)
        else:
            after = self._committed(done)
            self._lap()
        return Made(done, after, tuple(drawn), seconds, self._wall, self._core, self._timed.stages, beside)

    def _asked(
        self, asked: deque[_Asked], stop: Callable[[int], bool], seen: Callable[[int], bool]
    ) -> Iterator[Latents]:
        """The latents to be drawn, as they are asked for; into `asked` with those that are passed over."""
        pipeline, gaze, step = self._pipeline, self._gaze, self.step
        for k in range(self.count):
            latent, own = step.latent + k, self._latents[k : k + 1]
            if stop(latent):
                return
            before = Snapshot(self._state, self._latents, k, step.record.resets, gaze)
            turned, gaze = _looking(pipeline, own, gaze, step.record)
            asked.append(_Asked(latent, before, own, turned, gaze, seen(latent)))
            if asked[-1].seen:
                yield turned

    def _lap(self) -> None:
        """The next step may begin."""
        self._core, self._wall = time.process_time() - self._core, self._clock() - self._began

    def _inside(self, done: int) -> Snapshot:
        return Snapshot(self._state, self._latents, done, self.step.record.resets, self._gaze)

    def _committed(self, done: int) -> Snapshot:
        state = self._timed("commit", resume, self._pipeline, self._inside(done)) if done else self._state
        return Snapshot(state, None, 0, self.step.record.resets, self._gaze)


def make(
    pipeline: Pipeline,
    step: Step,
    push: Callable[[RingEntry], None],
    *,
    stop: Callable[[int], bool] = never,
    seen: Callable[[int], bool] = lambda latent: True,
    clock: Callable[[], float] = time.monotonic,
) -> Made:
    """Denoises, renders latent by latent into `push`, commits to memory.

    stop(latent): is it useless to go on with this latent, since it will be made again? seen(latent): can its frames
    still be shown? Else they are not rendered. Raises EngineError if the pipeline gives wrong shapes.
    """
    making = Making(pipeline, step, clock)
    making.denoise(stop)
    return making.draw(push, stop, seen)


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


def _checked(pipeline: Pipeline, frames: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wanted = (FRAMES_PER_LATENT, pipeline.height, pipeline.width, 3)
    if frames.shape != wanted or frames.dtype != np.uint8:
        raise EngineError(f"the renderer gave {frames.dtype} {list(frames.shape)}: uint8 {list(wanted)} is needed")
    if motion.ndim != 2 or len(motion) != FRAMES_PER_LATENT or motion.dtype != np.float32:
        raise EngineError(
            f"the pipeline gave motion {motion.dtype} {list(motion.shape)}: float32 [{FRAMES_PER_LATENT}, K] is needed"
        )
    return frames, motion
