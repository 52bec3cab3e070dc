# SPDX-License-Identifier: Apache-2.0
"""Frames on their way out: the ring of what is made, the clock that they leave by, and the sound beside them.

No threads and no lock: whoever calls holds that of the stream.
"""

from __future__ import annotations

import math

from flowact_ros.engine import pacing
from flowact_ros.engine.interfaces import Frame
from flowact_ros.engine.metrics import Meter
from flowact_ros.engine.ring import Ring, RingEntry
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.timeline import Timeline
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLES_PER_FRAME
from flowact_ros.vocabulary import IDLE, SPEAKING

MAX_WAIT_S = 0.1  # look again at least this often: the clock may be a simulated one
_HEAD_START = 12  # frames made before the first one leaves: nobody knows yet what a step costs


class Playout:
    """began: clock time at which the stream did; offline: frames leave as soon as they are made."""

    def __init__(self, timeline: Timeline, meter: Meter, config: SessionConfig, began: float) -> None:
        self.ring = Ring()
        self.next_frame = 0  # the next one to leave
        self.t0: float | None = None  # stamp of frame 0, once the clock has started
        self.offline = False
        self._timeline, self._meter, self._config, self._began = timeline, meter, config, began
        self._shown: tuple[int, RingEntry] | None = None  # the picture on the screen: its frame, and where it is

    @property
    def ahead(self) -> int:
        """Frames made and unshown."""
        return self.ring.unshown(self.next_frame)

    @property
    def released(self) -> int:
        """Content samples that have left."""
        return self.next_frame * SAMPLES_PER_FRAME

    @property
    def ready(self) -> bool:
        """The next frame has been made."""
        return self.ring.picture(self.next_frame) is not None

    def leaves(self, frame: int) -> float:
        """When a frame leaves; never, before the clock has started."""
        if self.t0 is None:
            return math.inf
        return pacing.stamp(frame, self.t0) - self._config.output_lead_s

    def missed(self, latent: int) -> bool:
        """All of its frames have left without it."""
        return self.next_frame >= (latent + 1) * FRAMES_PER_LATENT

    def push(self, entry: RingEntry) -> None:
        """A latent was drawn. What is late of it counts as dropped."""
        late = max(0, self.next_frame - entry.latent * FRAMES_PER_LATENT)
        self._meter.dropped += min(late, FRAMES_PER_LATENT)
        if late < FRAMES_PER_LATENT:
            self.ring.push(entry)

    def release(self, now: float) -> tuple[Frame, RingEntry | None] | float:
        """The next frame, if it is time for it, and where it is in the ring (None: it repeats the picture before it);
        else how many seconds to wait at most.
        """
        c, ready = self._config, self.ready
        if self.t0 is None:
            if not ready or (not self.offline and FRAMES_PER_LATENT * len(self.ring) < _HEAD_START):
                return MAX_WAIT_S
            self.t0 = now + c.output_lead_s
            self._meter.first_frame_s = None if self.offline else now - self._began
        while True:
            decision = pacing.decide(
                self.next_frame, now, self.t0, ready,
                lead=c.output_lead_s, grace=c.grace_s, reanchor=c.reanchor_s,
            )  # fmt: skip
            if decision.action is not pacing.Action.REANCHOR:
                break
            self.t0 += decision.seconds
            self._meter.reanchors += 1
        if decision.action is pacing.Action.WAIT:
            return min(decision.seconds, MAX_WAIT_S)
        return self._leave(now, self.t0)

    def _leave(self, now: float, t0: float) -> tuple[Frame, RingEntry | None]:
        k, timeline = self.next_frame, self._timeline
        start, end = k * SAMPLES_PER_FRAME, (k + 1) * SAMPLES_PER_FRAME
        self._meter.stalls += timeline.commit_silence(end)
        entry = self.ring.entry(k)
        if entry is not None:
            self._shown = k, entry
        assert self._shown is not None  # the clock starts with a picture
        of, shown = self._shown
        owners = timeline.owners(start, end)
        if not self.offline:
            self._meter.reactions.sounding(now, [owner for owner, _ in owners])
        self._meter.release(now, entry is None, (k - of) / FRAME_RATE)
        frame = Frame(
            index=k,
            pts=pacing.stamp(k, t0),
            rgb=shown.frames[of % FRAMES_PER_LATENT],
            motion=shown.motion[of % FRAMES_PER_LATENT],
            audio=timeline.read(start, end),
            utterance_id=max(owners, key=lambda o: o[1])[0].name if owners else "",
            behaviour=shown.behaviour or (SPEAKING if owners else IDLE),
            speaking=bool(owners),
            repeated=entry is None,
        )
        self.next_frame = k + 1
        self.ring.drop_before(k + 1)
        return frame, entry
