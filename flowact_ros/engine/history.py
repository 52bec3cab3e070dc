# SPDX-License-Identifier: Apache-2.0
"""One history of frames: made step by step ahead of the clock, and taken back when the world changes.

`plan` says what the next step is, `run` makes it: from its sound to its frames, or, on a device that draws by itself,
to its latents, while another thread waits for the frames (`lend`). No threads here, and no input: see `stream`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial

import numpy as np

from flowact_ros.engine.beside import MOST, Drawing
from flowact_ros.engine.controls import Instructions
from flowact_ros.engine.interfaces import MAX_LOOKAHEAD, ChunkRecord, EngineError, Pipeline, StreamState
from flowact_ros.engine.looking import Looking
from flowact_ros.engine.metrics import CHUNK_S, Meter, StepCost
from flowact_ros.engine.playout import MAX_WAIT_S, Playout
from flowact_ros.engine.policy import Situation, choose, gathered, in_time_from, overloaded, shortest_lead
from flowact_ros.engine.records import Records
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.step import Made, Making, Step
from flowact_ros.engine.timeline import Timeline
from flowact_ros.engine.watch import Watch
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)

_FIRST_COST_S = 0.1  # of a latent, before any step was seen


class History:
    """State of one stream's frames. Public methods expect `cond` to be held, unless they say otherwise."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: StreamState,
        config: SessionConfig,
        clock: Callable[[], float],
        looking: Looking | None = None,
    ) -> None:
        """state: before its first latent, or, with latents behind it, that of another stream to go on from"""
        if not 0 <= pipeline.lookahead_samples <= MAX_LOOKAHEAD:
            raise EngineError(
                f"the networks look {pipeline.lookahead_samples} samples ahead: at most {MAX_LOOKAHEAD} fit"
            )
        self.cond = threading.Condition()
        self.on_change: Callable[[], None] = lambda: None  # what was said of the next step may hold no more
        #: Calls functions in another thread, in order; None: there is none.
        self.lend: Callable[[Callable[[], None]], None] | None = None
        self.pipeline, self.config, self.seed = pipeline, config, state.seed
        self.records = Records(pipeline)
        self.meter = Meter()
        self.cost = StepCost(_FIRST_COST_S)
        self.instructions = Instructions()
        self.looking = looking or Looking()
        self.watch = None if pipeline.training_motion is None else Watch(pipeline.training_motion)
        self.reference = state.reference
        self.resets = 0
        self.timeline = Timeline(config.start_latents * SAMPLES_PER_LATENT + pipeline.lookahead_samples)
        self.playout = Playout(self.timeline, self.meter, config, clock())
        self._fade = int(config.fade_s * SAMPLE_RATE)
        self._clock = clock
        self._steps = 0
        self._latent = 0  # the next one to make
        self._now = Snapshot(state, None, 0, 0)
        self._covered = 0  # content samples that earlier records hold
        self._rewind_wanted = False
        self._small = True
        self._drawings: list[Drawing] = []  # denoised steps whose frames are on their way, in order

    # ---- where it stands

    def now(self) -> float:
        """Clock time; offline it is the content's own."""
        if self.offline:
            return self.playout.next_frame / FRAME_RATE - self.config.output_lead_s
        return self._clock()

    @property
    def offline(self) -> bool:
        """Time does not matter: the next frame is what is waited for."""
        return self.playout.offline

    @offline.setter
    def offline(self, wanted: bool) -> None:
        self.playout.offline = wanted

    @property
    def ring(self) -> Ring:
        """Frames made."""
        return self.playout.ring

    @property
    def snapshot(self) -> Snapshot:
        """Where the next step begins."""
        return self._now

    @property
    def due(self) -> bool:
        """The next frame has been made, and nothing is about to take it back."""
        return self.playout.ready and not self._goes_back

    @property
    def lead(self) -> float:
        """No rewind closer to now than this: the time to make one latent."""
        if self.offline:
            return 0.0
        if self.config.lead_s is not None:
            return self.config.lead_s
        return shortest_lead(self.cost, self.config)

    def want_rewind(self) -> None:
        """Something that must be seen soon has changed."""
        self._rewind_wanted = True
        self.cond.notify_all()
        self.on_change()

    # ---- making

    def plan(self) -> Step | float:
        """The next step, its sound laid, or how many seconds to wait at most."""
        now = self.now()
        self._gather(now)
        if self._held_up:
            return MAX_WAIT_S
        if self._rewind_wanted:
            self._rewind(now, 0)
            self.timeline.purge(self._fade)
            self._rewind_wanted = False
        elif self.timeline.onset:
            self._rewind(now, self.timeline.speech_end)
        count, wait = self._choose(now)
        return self._step(count) if count else wait

    def outlook(self) -> tuple[float, float]:
        """(seconds until it may want a step, 0: it wants one now; clock time at which its pictures run out).

        For whoever has several streams make their steps in turn; nothing is laid or taken back. The time is that of the
        first frame that lacks, also where it cannot be had any more and the step goes on behind it: else a stream that
        expects long steps would be put off for those that expect short ones.
        """
        now, playout = self.now(), self.playout
        self._gather(now)
        if self._goes_back:
            return (MAX_WAIT_S if self._held_up else 0.0), now + self.lead
        count, wait = (0, MAX_WAIT_S) if self._held_up else self._choose(now)
        lacks = playout.next_frame + playout.ahead + self._coming
        leaves = playout.leaves(min(self._latent * FRAMES_PER_LATENT, lacks))
        return (0.0 if count else wait), leaves if math.isfinite(leaves) else now + CHUNK_S

    @property
    def _goes_back(self) -> bool:
        """Something is about to take frames back."""
        return self._rewind_wanted or self.timeline.onset

    @property
    def _held_up(self) -> bool:
        """The next step waits for frames that are on their way: for those that it may take back, or for too many."""
        return len(self._drawings) >= MOST or (bool(self._drawings) and self._goes_back)

    @property
    def _coming(self) -> int:
        """Frames on their way."""
        return FRAMES_PER_LATENT * sum(drawing.left for drawing in self._drawings if not drawing.void)

    def _gather(self, now: float) -> None:
        """Has speech wait for as much of it as steps of this cost need."""
        self.timeline.close_orphan(now - self.config.orphan_s)
        if not self.offline:
            least = gathered(self.cost, self.config)
            self.timeline.start_samples = least * SAMPLES_PER_LATENT + self.pipeline.lookahead_samples

    def _choose(self, now: float) -> tuple[int, float]:
        """(latents to make now, 0) or (0, seconds to wait at most)."""
        self._skip_lost()
        supply, bounded = self.timeline.supply()
        first = self._latent * FRAMES_PER_LATENT
        situation = Situation(
            slack=self.playout.leaves(first) - now,
            ahead=self.playout.ahead + self._coming,
            flowing=self.timeline.flowing or self.timeline.onset,
            gathering=self.timeline.gathering,
            supply=supply + self.timeline.committed - first * SAMPLES_PER_FRAME,  # skipped ones take some
            bounded=bounded,
            small=self._small or self.timeline.onset,
            lookahead=self.pipeline.lookahead_samples,
            offline=self.offline,
        )
        count, wait = choose(situation, self.cost, self.config)
        return count, min(wait, MAX_WAIT_S)

    def _step(self, count: int) -> Step:
        start, end = self._latent * SAMPLES_PER_LATENT, (self._latent + count) * SAMPLES_PER_LATENT
        self.timeline.commit(end)
        look = self.timeline.peek(self.pipeline.lookahead_samples)
        pcm = np.concatenate([self.timeline.read(start - self.pipeline.context_samples, end), look])
        first = min(start, self._covered)
        spans = self.timeline.spans(first, end)
        utterance = spans[-1].utterance_id if spans else ""
        instruction = self.instructions.at(utterance)
        record = ChunkRecord(
            step=self._steps,
            first_frame=self._latent * FRAMES_PER_LATENT,
            latents=count,
            first_sample=first,
            instruction=instruction.prompt,
            behaviour=instruction.behaviour,
            utterance_id=utterance,
            reference_id=self.reference.id,
            seed=self.seed,
            rewinds=self.meter.rewinds,
            resets=self.resets,
            pcm=np.concatenate([self.timeline.read(first, end), look]),
            spans=spans,
            look=self.looking.target(self.now(), self._latent, bool(spans)),
            refines=self.watch is not None and self.watch.take_refine(),
        )
        self._covered = end
        self._small = False
        self._steps += 1
        return Step(self._now, pcm, record, self.reference)

    def run(self, step: Step, waited: float | None = None) -> None:
        """Makes the frames of a step. Does not expect the lock; the caller is the only one that runs steps.

        waited: seconds for which other streams kept the device from it, where they share one. They are part of what a
        step costs: how far ahead it must begin, and whether it keeps up.
        """
        making = Making(self.pipeline, step, self._clock)
        making.denoise(self._abandon)
        if self.lend is None or not self.pipeline.draws_beside:
            made = making.draw(self._push, self._abandon, self._seen)
            with self.cond:
                self._stand(step, made.done, made.after)
                self._tell(step, made, waited)
            self.records.tell(step, made.drawn)
            return
        after = making.commit()
        with self.cond:
            drawing = Drawing(making, waited)
            drawing.void = self._now is not step.before  # frames before it were taken back meanwhile
            if not drawing.void:
                self._stand(step, making.count, after)
                drawing.void = not making.count
            self._drawings.append(drawing)
        self.lend(partial(self._draw, drawing))

    def _draw(self, drawing: Drawing) -> None:
        """Waits for the frames of a step, in the thread that was lent."""
        step = drawing.step

        def stop(latent: int) -> bool:
            drawing.reaches(latent)
            return drawing.void or self._abandon(latent)

        made = drawing.making.draw(self._push, stop, self._seen)
        with self.cond:
            self._drawings.remove(drawing)
            if not drawing.void and made.done < step.record.latents:
                self._stand(step, made.done, made.after)
                for later in self._drawings:
                    later.void = True
            self._tell(step, made, drawing.waited)
            self.on_change()
        self.records.tell(step, made.drawn)

    def _stand(self, step: Step, done: int, after: Snapshot) -> None:
        """The stream stands behind the first `done` latents of a step. What was laid behind them is taken back."""
        self._latent, self._now = step.latent + done, after
        if done < step.record.latents:
            self.meter.rewinds += 1
            self._take_back(self._latent)

    def _tell(self, step: Step, made: Made, waited: float | None) -> None:
        """What a step took."""
        made = made if waited is None else made.delayed(waited)
        if made.done == step.record.latents:
            self.cost.add(made.done, made.besides_s, made.render_s, made.beside)
        self.meter.step(made)
        self.meter.refinements += step.record.refines
        self.cond.notify_all()

    def _seen(self, latent: int) -> bool:
        """Can some of its frames still be shown? If not they count as dropped."""
        with self.cond:
            missed = self.playout.missed(latent)
            self.meter.dropped += FRAMES_PER_LATENT * missed
            return not missed

    def _push(self, entry: RingEntry) -> None:
        with self.cond:
            self.playout.push(entry)
            self.cond.notify_all()

    # ---- the way back

    def _abandon(self, latent: int) -> bool:
        """Is it useless to make frames from `latent` on, since a rewind will take them back?"""
        with self.cond:
            if not self._goes_back:
                return False
            floor = 0 if self._rewind_wanted else self.timeline.speech_end
            return self._target(latent, self.now(), floor)

    def _target(self, latent: int, now: float, floor: int) -> bool:
        frame, playout = latent * FRAMES_PER_LATENT, self.playout
        early = frame >= playout.next_frame and playout.leaves(frame) >= now + self.lead
        return early and latent * SAMPLES_PER_LATENT >= floor

    def _rewind(self, now: float, floor: int) -> None:
        """To the first boundary that is far enough from now and not before sample `floor`."""
        entry = next((entry for entry in self.ring if self._target(entry.latent, now, floor)), None)
        if entry is not None:
            self.ring.truncate(entry.latent)
            self.meter.remade += (self._latent - entry.latent) * FRAMES_PER_LATENT
            self.meter.rewinds += 1
            self._now, self._latent = entry.before, entry.latent
            self._take_back(entry.latent)

    def _take_back(self, latent: int) -> None:
        """Sound from `latent` on returns to the queue, but for what has left."""
        start = latent * SAMPLES_PER_LATENT
        self.timeline.rewind(max(start, self.playout.released))
        self._covered = min(self._covered, start)
        self._small = True

    def _skip_lost(self) -> None:
        """Goes on where frames can still be in time: after the engine fell a whole latent behind, and in one that
        cannot keep up as soon as it would be late at all, since frames that are late were made for nothing.
        """
        lost = self.playout.missed(self._latent)
        most = self.config.step_latents
        if self.offline or self.playout.t0 is None or not (lost or overloaded(self.cost, most)):
            return
        latent = in_time_from(self.playout.next_frame, self.cost, most)
        if latent > self._latent:
            self.meter.skipped += latent - self._latent
            self._latent = latent
