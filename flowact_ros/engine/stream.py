# SPDX-License-Identifier: Apache-2.0
"""The live stream itself: one history of frames, made a step ahead of the clock and taken back when the world changes.

`plan` and `release` are quick and run under the lock. The heavy part holds it only to hand over: `run` makes a step
from its sound to its frames; or `think` denoises it while `draw`, in another thread, decodes the one before, and
the first thread may `paint` for the second when there is nothing to denoise yet.
No threads here: `Session` lends them, tests drive it with a clock of their own.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flowact_ros.engine import pacing
from flowact_ros.engine.controls import Instruction, Instructions
from flowact_ros.engine.intake import Feed
from flowact_ros.engine.interfaces import MAX_LOOKAHEAD, ChunkRecord, EngineError, Frame, Pipeline, Reference
from flowact_ros.engine.metrics import LaneCost, Meter
from flowact_ros.engine.policy import Situation, choose, gathered, in_time_from, overloaded, shortest_lead
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.step import Step, Stopwatch, draw, make, remember, think
from flowact_ros.engine.timeline import Timeline
from flowact_ros.engine.undrawn import Undrawn, UndrawnQueue, Work
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)

_LOG = logging.getLogger(__name__)
_MAX_WAIT_S = 0.1  # look again at least this often: the clock may be a simulated one
_FIRST_COST_S = 0.1  # of a latent, before any step was seen
_IDENTITY_STEPS = 8  # steps between two looks at the identity
_HEAD_START = 12  # frames made before the first one leaves: nobody knows yet what a step costs
_MOST_UNDRAWN = 2  # latents that may wait for their pictures when the next step begins


class Stream:
    """State of one avatar's stream. Public methods expect `cond` to be held, unless they say otherwise."""

    def __init__(
        self,
        pipeline: Pipeline,
        reference: Reference,
        seed: int,
        config: SessionConfig,
        clock: Callable[[], float],
    ) -> None:
        if not 0 <= pipeline.lookahead_samples <= MAX_LOOKAHEAD:
            raise EngineError(
                f"the audio encoder looks {pipeline.lookahead_samples} samples ahead: at most {MAX_LOOKAHEAD} fit"
            )
        self.cond = threading.Condition()
        self.pipeline, self.config, self.seed = pipeline, config, seed
        self.offline = False
        self.on_chunk: Callable[[ChunkRecord], None] | None = None
        self.meter = Meter()
        self.cost = LaneCost(_FIRST_COST_S)
        self.instructions = Instructions()
        self.reference = reference
        self.resets = 0
        self.timeline = Timeline(config.start_latents * SAMPLES_PER_LATENT + pipeline.lookahead_samples)
        self.ring = Ring()
        self.next_frame = 0  # the next one to leave
        self.t0: float | None = None
        least = FRAMES_PER_LATENT  # whatever the ring may hold
        self._head_start = min(_HEAD_START, max(least, config.idle_frames // least * least))
        self._fade = int(config.fade_s * SAMPLE_RATE)
        self._clock = clock
        self._began = clock()
        self.undrawn = UndrawnQueue()
        self._drew = False  # since something was given up: else a machine that is always late would show nothing
        self._steps = 0
        self._latent = 0  # the next one to make
        self._resumed = 0  # latents right before this one were skipped
        self._now = Snapshot(pipeline.start(reference, seed), None, 0, pipeline.start_decoder(reference), 0)
        self._covered = 0  # content samples that earlier records hold
        self._rewind_wanted = False
        self._small = True
        self._picture: np.ndarray | None = None
        self._picture_frame = 0
        self._behaviour = ""

    # ---- time

    def now(self) -> float:
        """Clock time; offline it is the content's own."""
        return self.next_frame / FRAME_RATE - self.config.output_lead_s if self.offline else self._clock()

    def leaves(self, frame: int) -> float:
        """When a frame leaves; never, before the clock has started."""
        if self.t0 is None:
            return math.inf
        return pacing.stamp(frame, self.t0) - self.config.output_lead_s

    @property
    def ahead(self) -> int:
        """Frames made and unshown."""
        first = max(self.next_frame, self._resumed * FRAMES_PER_LATENT)
        return max(0, self._latent * FRAMES_PER_LATENT - first)

    @property
    def due(self) -> bool:
        """The next frame has been made, and nothing is about to take it back."""
        return self.ring.picture(self.next_frame) is not None and not (
            self._rewind_wanted or self.timeline.onset
        )

    @property
    def lead(self) -> float:
        """No rewind closer to now than this: the time to make one latent."""
        if self.offline:
            return 0.0
        if self.config.lead_s is not None:
            return self.config.lead_s
        return shortest_lead(self.cost, self.config)

    @property
    def released(self) -> int:
        """Content samples that have left."""
        return self.next_frame * SAMPLES_PER_FRAME

    # ---- control

    def feed(self, feeds: list[Feed]) -> None:
        """Speech from the intake."""
        for item in feeds:
            self.timeline.feed(
                item.utterance, item.pcm, close=item.close, now=self.now(), released=self.released
            )
        if feeds:
            self.cond.notify_all()

    def instruct(self, instruction: Instruction) -> None:
        """Takes effect with the next step; an urgent one rewinds; one for speech that waits behind other, with it."""
        waits = any(u.name == instruction.utterance_id and u.name for u in list(self.timeline.queue)[1:])
        self.instructions.set(instruction, wait=waits)
        if instruction.priority > self.config.urgent_above:
            self.want_rewind()

    def reset(self, reference: Reference | None = None) -> None:
        """One clean cut: the next step starts from the reference alone (another one, if given)."""
        self.reference = reference or self.reference
        self.resets += 1
        self.want_rewind()

    def interrupt(self, name: str | None) -> bool:
        """Cuts speech (of one utterance, or all). True if there was any."""
        marked = self.timeline.cancel(name, self._fade, self.released)
        sounding = {id(u) for u in marked if u.flowing}
        sounding |= {
            id(u) for u, _ in self.timeline.owners(self.released, self.timeline.committed) if u.cancelled
        }
        if sounding:
            self.meter.reactions.interrupted(self.now(), [u for u in marked if id(u) in sounding])
            self.want_rewind()
        elif not self._rewind_wanted:
            self.timeline.purge(self._fade)
        return bool(marked)

    def want_rewind(self) -> None:
        """Something that must be seen soon has changed."""
        self._rewind_wanted = True
        self.cond.notify_all()

    # ---- making

    def plan(self) -> Step | float:
        """The next step, its sound laid, or how many seconds to wait at most."""
        now = self.now()
        self.timeline.close_orphan(now - self.config.orphan_s)
        if not self.offline:
            least = gathered(self.cost, self.config)
            self.timeline.start_samples = least * SAMPLES_PER_LATENT + self.pipeline.lookahead_samples
        if self._rewind_wanted:
            self._rewind(now, 0)
            self.timeline.purge(self._fade)
            self._rewind_wanted = False
        elif self.timeline.onset:
            self._rewind(now, self.timeline.speech_end)
        elif self._drew and (item := self.undrawn.first) and self._missed(item.latent):
            self._go_back(item.latent)  # drawing is so late that none of its pictures would be seen
            self._drew = False
        if len(self.undrawn) > _MOST_UNDRAWN:
            return _MAX_WAIT_S
        self._skip_lost()
        supply, bounded = self.timeline.supply()
        first = self._latent * FRAMES_PER_LATENT
        situation = Situation(
            slack=self.leaves(first) - now - self.cost.queue(len(self.undrawn)),
            ahead=self.ahead,
            flowing=self.timeline.flowing or self.timeline.onset,
            gathering=self.timeline.gathering,
            supply=supply + self.timeline.committed - first * SAMPLES_PER_FRAME,  # skipped ones take some
            bounded=bounded,
            small=self._small or self.timeline.onset,
            lookahead=self.pipeline.lookahead_samples,
            offline=self.offline,
        )
        count, wait = choose(situation, self.cost, self.config)
        return self._step(count) if count else min(wait, _MAX_WAIT_S)

    def _step(self, count: int) -> Step:
        start, end = self._latent * SAMPLES_PER_LATENT, (self._latent + count) * SAMPLES_PER_LATENT
        self.timeline.commit(end)
        ahead = self.pipeline.lookahead_samples
        look = self.timeline.peek(ahead)
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
        )
        self._covered = end
        self._small = False
        self._steps += 1
        return Step(self._now, pcm, record, self.reference)

    def run(self, step: Step) -> None:
        """Makes the frames of a step. Does not expect the lock; the caller is the only one that runs steps."""
        made = make(self.pipeline, step, self._push, stop=self._abandon, clock=self._clock)
        with self.cond:
            self._latent = step.latent + made.done
            self._now = made.after
            if made.done < step.record.latents:
                self.meter.rewinds += 1
                self._take_back(self._latent)
            else:
                self.cost.whole(made.done, made.wall)
            self.meter.step(made.done, made.wall, made.wall, made.core, made.stages)
            self.cond.notify_all()
        self._report(step)

    def think(self, step: Step) -> None:
        """The denoiser's half of a step: its latents wait for `draw`. Does not expect the lock; one caller."""
        work = Work(step, Stopwatch(self.pipeline, self._clock), self._clock(), left=step.record.latents)
        core = time.thread_time()
        before = think(self.pipeline, step, work.timed, self._abandon)
        with self.cond:
            handed = self._clock() - work.began
            if useless := before.latents is None or self._abandon(step.latent):
                work.left = 0
                self.meter.rewinds += 1
                self._now, self._latent = replace(before, latents=None), step.latent
                self._take_back(self._latent)
            else:
                self._latent = step.latent + work.left
                decoder = self.undrawn.add(before, work)
            self.cond.notify_all()
        if not useless:
            count = step.record.latents
            state = remember(self.pipeline, before, count, work.timed)
            with self.cond:
                self._now = Snapshot(state, None, 0, decoder, before.resets)
        with self.cond:
            work.core += time.thread_time() - core
            work.thought = self._clock() - work.began
            if not useless:
                self.cost.thought(step.record.latents, work.thought, handed)
            self._finish(work)
        self._report(step)

    def draw(self) -> None:
        """The decoder's half: the next latent's pictures, or a short wait. Does not expect the lock; one caller."""
        with self.cond:
            item = self.undrawn.first
            if item is None or item.in_work or self._abandon(item.latent):
                self.cond.wait(_MAX_WAIT_S)
                return
            item.taken = True
        began, core, work = self._clock(), time.thread_time(), item.work
        before = replace(item.before, decoder=item.before.decoder.value)
        entry, item.after.value = draw(self.pipeline, work.step, before, work.timed, item.painting)
        with self.cond:
            wall = self._clock() - began + item.painted
            work.timed.stages["decode"] += 1000.0 * item.painted
            work.core += time.thread_time() - core
            work.drawn += wall
            self.cost.drew(wall)
            if self.undrawn.drawn(item):
                self._drew = True
                self._push(entry)
                self._finish(work)
            self.cond.notify_all()

    def unpainted(self) -> Undrawn | None:
        """For a thread with time to spare: a latent to `paint` behind the one that `draw` is at."""
        item = self.undrawn.spare() if hasattr(self.pipeline, "paint") else None
        if item is None or self._abandon(item.latent):
            return None
        item.taken = True
        return item

    def paint(self, item: Undrawn) -> None:
        """Does most of the work of `draw` for it. Does not expect the lock."""
        began, core = self._clock(), time.thread_time()
        painting = self.pipeline.paint(item.before.latents[item.before.done])
        with self.cond:
            item.painting, item.painted = painting, self._clock() - began
            item.work.core += time.thread_time() - core
            self.cond.notify_all()

    def _finish(self, work: Work) -> None:
        """Counts a step once both of its halves are over."""
        if work.over:
            wall = self._clock() - work.began
            self.meter.step(work.done, wall, max(work.thought, work.drawn), work.core, work.timed.stages)

    def _report(self, step: Step) -> None:
        identity = getattr(self.pipeline, "identity", None)
        if identity is not None and step.record.step % _IDENTITY_STEPS == 0:
            self.meter.identity = float(identity(self._now.state))
        if self.on_chunk is not None:
            try:
                self.on_chunk(step.record)
            except Exception:  # whoever listens must not stop the stream
                _LOG.exception("on_chunk failed for step %d", step.record.step)

    def _push(self, entry: RingEntry) -> None:
        with self.cond:
            late = max(0, self.next_frame - entry.latent * FRAMES_PER_LATENT)
            self.meter.dropped += min(late, FRAMES_PER_LATENT)
            if late < FRAMES_PER_LATENT:
                self.ring.push(entry)
            self.cond.notify_all()

    # ---- the way back

    def _missed(self, latent: int) -> bool:
        """All of its frames have left without it."""
        return self.next_frame >= (latent + 1) * FRAMES_PER_LATENT

    def _abandon(self, latent: int) -> bool:
        """Is it useless to make frames from `latent` on, since a rewind will take them back?"""
        with self.cond:
            if not self._rewind_wanted and not self.timeline.onset:
                return False
            floor = 0 if self._rewind_wanted else self.timeline.speech_end
            return self._target(latent, self.now(), floor)

    def _target(self, latent: int, now: float, floor: int) -> bool:
        frame = latent * FRAMES_PER_LATENT
        early = frame >= self.next_frame and self.leaves(frame) >= now + self.lead
        return early and latent * SAMPLES_PER_LATENT >= floor

    def _rewind(self, now: float, floor: int) -> None:
        """To the first boundary that is far enough from now and not before sample `floor`."""
        latent = next((x.latent for x in (*self.ring, *self.undrawn) if self._target(x.latent, now, floor)), None)
        if latent is not None:
            self._go_back(latent)

    def _go_back(self, latent: int) -> None:
        """To the boundary before a latent that was made or is undrawn."""
        self.meter.remade += (self._latent - latent) * FRAMES_PER_LATENT
        self.meter.rewinds += 1
        snapshot, undrawn = self.ring.truncate(latent), self.undrawn.take_back(latent)
        for work in dict.fromkeys(item.work for item in undrawn):
            self._finish(work)
        self._now = snapshot or (undrawn[0].before if undrawn else self._now)
        self._latent = latent
        self._take_back(latent)

    def _take_back(self, latent: int) -> None:
        """Sound from `latent` on returns to the queue, but for what has left."""
        start = latent * SAMPLES_PER_LATENT
        self.timeline.rewind(max(start, self.released))
        self._covered = min(self._covered, start)
        self._small = True

    def _skip_lost(self) -> None:
        """Goes on where frames can still be in time: after the engine fell a whole latent behind, and in one that
        cannot keep up as soon as it would be late at all, since frames that are late were made for nothing.
        """
        lost = self._missed(self._latent)
        most = self.config.step_latents
        if self.offline or self.t0 is None or not (lost or overloaded(self.cost, most)):
            return
        queue = self.cost.queue(len(self.undrawn))
        latent = in_time_from(self.next_frame, self.cost, most, queue)
        if latent > self._latent:
            self.meter.skipped += latent - self._latent
            self._latent = self._resumed = latent

    # ---- leaving

    def release(self) -> Frame | float:
        """The next frame, if it is time for it, else how many seconds to wait at most."""
        now = self.now()
        picture = self.ring.picture(self.next_frame)
        if self.t0 is None:
            if picture is None or (not self.offline and FRAMES_PER_LATENT * len(self.ring) < self._head_start):
                return _MAX_WAIT_S
            self.t0 = now + self.config.output_lead_s
            self.meter.first_frame_s = None if self.offline else now - self._began
        c = self.config
        while True:
            decision = pacing.decide(
                self.next_frame, now, self.t0, picture is not None,
                lead=c.output_lead_s, grace=c.grace_s, reanchor=c.reanchor_s,
            )  # fmt: skip
            if decision.action is not pacing.Action.REANCHOR:
                break
            self.t0 += decision.seconds
            self.meter.reanchors += 1
        if decision.action is pacing.Action.WAIT:
            return min(decision.seconds, _MAX_WAIT_S)
        return self._leave(now, picture)

    def _leave(self, now: float, picture: np.ndarray | None) -> Frame:
        k, timeline = self.next_frame, self.timeline
        start, end = k * SAMPLES_PER_FRAME, (k + 1) * SAMPLES_PER_FRAME
        self.meter.stalls += timeline.commit_silence(end)
        entry = self.ring.entry(k)
        if picture is not None and entry is not None:
            self._picture, self._picture_frame, self._behaviour = picture, k, entry.behaviour
        assert self._picture is not None  # the clock starts with a picture
        owners = timeline.owners(start, end)
        if not self.offline:
            self.meter.reactions.sounding(now, [owner for owner, _ in owners])
        self.meter.release(now, picture is None, (k - self._picture_frame) / FRAME_RATE)
        frame = Frame(
            index=k,
            pts=pacing.stamp(k, self.t0 or 0.0),
            rgb=self._picture,
            audio=timeline.read(start, end),
            utterance_id=max(owners, key=lambda o: o[1])[0].name if owners else "",
            behaviour=self._behaviour or ("speaking" if owners else "idle"),
            speaking=bool(owners),
            repeated=picture is None,
        )
        self.next_frame = k + 1
        self.ring.drop_before(k + 1)
        item = self.undrawn.first
        first = item.latent if item else self._latent  # the earliest that a step may begin with
        kept = min(first * SAMPLES_PER_LATENT, self._covered, end) - self.pipeline.context_samples
        timeline.trim(kept)
        self.cond.notify_all()
        return frame
