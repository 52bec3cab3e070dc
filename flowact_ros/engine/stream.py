# SPDX-License-Identifier: Apache-2.0
"""The live stream itself: a history of frames (`history`), what changes it, and what leaves of it (`playout`).

`plan` and `release` are quick and run under the lock; `run` makes a step and holds the lock only to hand it over. No
threads here: `Session` lends them, tests drive it with a clock of their own.
"""

from __future__ import annotations

import numpy as np

from flowact_ros.engine.controls import Instruction
from flowact_ros.engine.gaze import columns_of
from flowact_ros.engine.history import History
from flowact_ros.engine.intake import Feed
from flowact_ros.engine.interfaces import EngineError, Frame, Reference
from flowact_ros.engine.ring import RingEntry
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_LATENT


class Stream(History):
    """One avatar's stream. Public methods expect `cond` to be held, unless they say otherwise."""

    _watched = 0  # cuts before the motion that the watch sees

    @property
    def waiting(self) -> str | None:
        """The utterance whose speech comes next and does not leave yet; None if there is none."""
        laid = (owner for owner, _ in self.timeline.owners(self.playout.released, self.timeline.committed))
        queued = (utterance for utterance in self.timeline.queue if utterance.buffered and not utterance.tail)
        return next((u.name for u in (*laid, *queued) if not u.cancelled), None)

    # ---- control

    def feed(self, feeds: list[Feed]) -> None:
        """Speech from the intake."""
        for item in feeds:
            self.timeline.feed(
                item.utterance, item.pcm, close=item.close, now=self.now(), released=self.playout.released
            )
        if feeds:
            self.cond.notify_all()
            self.on_change()

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
        marked = self.timeline.cancel(name, self._fade, self.playout.released)
        sounding = {id(u) for u in marked if u.flowing}
        sounding |= {
            id(u) for u, _ in self.timeline.owners(self.playout.released, self.timeline.committed) if u.cancelled
        }
        if sounding:
            self.meter.reactions.interrupted(self.now(), [u for u in marked if id(u) in sounding])
            self.want_rewind()
        elif not self._rewind_wanted:
            self.timeline.purge(self._fade)
        return bool(marked)

    # ---- leaving

    def release(self) -> Frame | float:
        """The next frame, if it is time for it, else how many seconds to wait at most."""
        out = self.playout.release(self.now())
        if not isinstance(out, tuple):
            return out
        frame, entry = out
        self._watch(frame, entry)
        heard = min(self._latent * SAMPLES_PER_LATENT, self._covered, self.playout.released)
        self.timeline.trim(heard - self.pipeline.context_samples)
        self.cond.notify_all()
        self.on_change()
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
