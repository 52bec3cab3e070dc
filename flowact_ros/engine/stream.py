# SPDX-License-Identifier: Apache-2.0
"""The live stream itself: one history of frames, made a step ahead of the clock and taken back when the world changes.

`plan` and `release` are quick and run under the lock; `run` makes a step from its sound to its frames and holds the
lock only to hand them over. No threads here: `Session` lends them, tests drive it with a clock of their own.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

import numpy as np

from flowact_ros.engine import pacing
from flowact_ros.engine.controls import Instruction, Instructions
from flowact_ros.engine.gaze import columns_of
from flowact_ros.engine.intake import Feed
from flowact_ros.engine.interfaces import MAX_LOOKAHEAD, ChunkRecord, EngineError, Frame, Pipeline, Reference
from flowact_ros.engine.looking import Looking
from flowact_ros.engine.metrics import Meter, StepCost
from flowact_ros.engine.policy import Situation, choose, gathered, in_time_from, overloaded, shortest_lead
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.step import Step, make
from flowact_ros.engine.timeline import Timeline
from flowact_ros.engine.watch import Watch
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)
from flowact_ros.vocabulary import IDLE, SPEAKING

_LOG = logging.getLogger(__name__)
_MAX_WAIT_S = 0.1  # look again at least this often: the clock may be a simulated one
_FIRST_COST_S = 0.1  # of a latent, before any step was seen
_HEAD_START = 12  # frames made before the first one leaves: nobody knows yet what a step costs


class Stream:
    """State of one avatar's stream. Public methods expect `cond` to be held, unless they say otherwise."""

    def __init__(
        self,
        pipeline: Pipeline,
        reference: Reference,
        seed: int,
        config: SessionConfig,
        clock: Callable[[], float],
        looking: Looking | None = None,
    ) -> None:
        if not 0 <= pipeline.lookahead_samples <= MAX_LOOKAHEAD:
            raise EngineError(
                f"the networks look {pipeline.lookahead_samples} samples ahead: at most {MAX_LOOKAHEAD} fit"
            )
        self.cond = threading.Condition()
        self.pipeline, self.config, self.seed = pipeline, config, seed
        self.offline = False
        self.on_chunk: Callable[[ChunkRecord], None] | None = None
        self.meter = Meter()
        self.cost = StepCost(_FIRST_COST_S)
        self.instructions = Instructions()
        self.looking = looking or Looking()
        self.watch = None if pipeline.training_motion is None else Watch(pipeline.training_motion)
        self.reference = reference
        self.resets = 0
        self.timeline = Timeline(config.start_latents * SAMPLES_PER_LATENT + pipeline.lookahead_samples)
        self.ring = Ring()
        self.next_frame = 0  # the next one to leave
        self.t0: float | None = None
        self._fade = int(config.fade_s * SAMPLE_RATE)
        self._clock = clock
        self._began = clock()
        self._steps = 0
        self._latent = 0  # the next one to make
        self._now = Snapshot(pipeline.start(reference, seed), None, 0, 0)
        self._covered = 0  # content samples that earlier records hold
        self._rewind_wanted = False
        self._watched = 0  # cuts before the motion that the watch sees
        self._small = True
        self._shown: tuple[int, RingEntry] | None = None  # the picture on the screen: its frame, and where it is

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
        return self.ring.unshown(self.next_frame)

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

    @property
    def waiting(self) -> str | None:
        """The utterance whose speech comes next and does not leave yet; None if there is none."""
        laid = (owner for owner, _ in self.timeline.owners(self.released, self.timeline.committed))
        queued = (utterance for utterance in self.timeline.queue if utterance.buffered and not utterance.tail)
        return next((u.name for u in (*laid, *queued) if not u.cancelled), None)

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
        taken = self.instructions.set(instruction, wait=waits)
        if taken and instruction.priority >= self.config.urgent_from:
            self.want_rewind()

    def look_at(self, x: float, y: float) -> None:
        """Takes effect with the next step; what is far from where it looks now rewinds."""
        if columns_of(self.pipeline.control_names) is None:
            raise EngineError("this model's motion has no gaze: it cannot be told where to look")
        if self.looking.give(x, y, self.now()):
            self.want_rewind()

    def look_away(self) -> None:
        """From the point given last; takes effect with the next step."""
        self.looking.release()

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
        self._skip_lost()
        supply, bounded = self.timeline.supply()
        first = self._latent * FRAMES_PER_LATENT
        situation = Situation(
            slack=self.leaves(first) - now,
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

    def run(self, step: Step) -> None:
        """Makes the frames of a step. Does not expect the lock; the caller is the only one that runs steps."""
        made = make(self.pipeline, step, self._push, stop=self._abandon, seen=self._seen, clock=self._clock)
        with self.cond:
            self._latent = step.latent + made.done
            self._now = made.after
            if made.done < step.record.latents:
                self.meter.rewinds += 1
                self._take_back(self._latent)
            else:
                self.cost.add(made.done, made.besides_s, made.render_s)
            self.meter.step(made)
            self.meter.refinements += step.record.refines
            self.cond.notify_all()
        try:
            if self.on_chunk is not None:
                self.on_chunk(step.record)
        except Exception:  # whoever listens must not stop the stream
            _LOG.exception("on_chunk failed for step %d", step.record.step)

    def _seen(self, latent: int) -> bool:
        """Can some of its frames still be shown? If not they count as dropped."""
        with self.cond:
            missed = self._missed(latent)
            self.meter.dropped += FRAMES_PER_LATENT * missed
            return not missed

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
        latent = in_time_from(self.next_frame, self.cost, most)
        if latent > self._latent:
            self.meter.skipped += latent - self._latent
            self._latent = latent

    # ---- leaving

    def release(self) -> Frame | float:
        """The next frame, if it is time for it, else how many seconds to wait at most."""
        now = self.now()
        ready = self.ring.picture(self.next_frame) is not None
        if self.t0 is None:
            if not ready or (not self.offline and FRAMES_PER_LATENT * len(self.ring) < _HEAD_START):
                return _MAX_WAIT_S
            self.t0 = now + self.config.output_lead_s
            self.meter.first_frame_s = None if self.offline else now - self._began
        c = self.config
        while True:
            decision = pacing.decide(
                self.next_frame, now, self.t0, ready,
                lead=c.output_lead_s, grace=c.grace_s, reanchor=c.reanchor_s,
            )  # fmt: skip
            if decision.action is not pacing.Action.REANCHOR:
                break
            self.t0 += decision.seconds
            self.meter.reanchors += 1
        if decision.action is pacing.Action.WAIT:
            return min(decision.seconds, _MAX_WAIT_S)
        return self._leave(now)

    def _leave(self, now: float) -> Frame:
        k, timeline = self.next_frame, self.timeline
        start, end = k * SAMPLES_PER_FRAME, (k + 1) * SAMPLES_PER_FRAME
        self.meter.stalls += timeline.commit_silence(end)
        entry = self.ring.entry(k)
        if entry is not None:
            self._shown = k, entry
        assert self._shown is not None  # the clock starts with a picture
        of, shown = self._shown
        owners = timeline.owners(start, end)
        if not self.offline:
            self.meter.reactions.sounding(now, [owner for owner, _ in owners])
        self.meter.release(now, entry is None, (k - of) / FRAME_RATE)
        frame = Frame(
            index=k,
            pts=pacing.stamp(k, self.t0 or 0.0),
            rgb=shown.frames[of % FRAMES_PER_LATENT],
            motion=shown.motion[of % FRAMES_PER_LATENT],
            audio=timeline.read(start, end),
            utterance_id=max(owners, key=lambda o: o[1])[0].name if owners else "",
            behaviour=shown.behaviour or (SPEAKING if owners else IDLE),
            speaking=bool(owners),
            repeated=entry is None,
        )
        self._watch(frame, entry)
        self.next_frame = k + 1
        self.ring.drop_before(k + 1)
        timeline.trim(min(self._latent * SAMPLES_PER_LATENT, self._covered, end) - self.pipeline.context_samples)
        self.cond.notify_all()
        return frame

    def _watch(self, frame: Frame, entry: RingEntry | None) -> None:
        """Shows what leaves to the watch, and does what it asks for."""
        if self.watch is None:
            return
        if entry is not None and entry.before.resets != self._watched:
            self._watched = entry.before.resets
            self.watch.cut()
        own = None if entry is None else entry.own[frame.index % FRAMES_PER_LATENT]
        self.watch.frame(own, float(np.mean(np.square(frame.audio))) if frame.speaking else 0.0)
        if self.watch.take_reset():
            self.meter.recoveries += 1
            self.reset()
