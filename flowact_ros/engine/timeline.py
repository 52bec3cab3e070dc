# SPDX-License-Identifier: Apache-2.0
"""Which speech sample sounds when: a FIFO of utterances laid into content time, with a way back.

Content time is counted in samples at 24 kHz from frame 0. `committed` is the first sample that has no sound yet; what
lies before it is fixed unless a rewind takes it back, and then the speech in it returns to the head of the FIFO. No
sample is ever lost or doubled: each is laid once in every history that is shown.

No threads and no clock here: the stream calls it under its lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from flowact_ros.engine.interfaces import SpeechSpan
from flowact_ros.engine.utterance import Utterance
from flowact_ros.timebase import SAMPLE_RATE, SAMPLES_PER_LATENT


@dataclass(frozen=True, eq=False)
class _Laid:
    """Samples [start, end) of content time that belong to `owner`."""

    start: int
    end: int
    owner: Utterance


class Timeline:
    """The laid track and the queue behind it.

    start_samples: buffered samples with which an open utterance may start (a closed one starts with any).
    underruns: times an utterance ran dry and went on later; inserted: silent samples put inside utterances; cut:
    samples of interrupted utterances that never sounded, of the rate at which they came.
    """

    def __init__(self, start_samples: int = SAMPLES_PER_LATENT) -> None:
        self.start_samples = start_samples
        self.committed = 0
        self.speech_end = 0  # end of the last speech laid
        self.underruns = 0
        self.inserted = 0
        self.cut = 0
        self.unterminated = 0  # utterances ended by the next one instead of by `last`
        self.queue: deque[Utterance] = deque()
        self._laid: deque[_Laid] = deque()
        self._base = 0  # content time of _track[0]
        self._track = np.zeros(16 * SAMPLES_PER_LATENT, np.float32)

    # ---- the queue

    @property
    def queued(self) -> int:
        """Samples that wait to be laid."""
        return sum(utterance.buffered for utterance in self.queue)

    def feed(
        self,
        utterance: Utterance,
        pcm: np.ndarray,
        *,
        close: bool = False,
        now: float = 0.0,
        released: int = 0,
    ) -> None:
        """More samples of an utterance, which joins the end of the queue if it is not in it. `close`: no more come.

        now: clock time; released: content samples that have left (speech beyond them makes the new one wait).
        """
        if utterance.cancelled:
            self._count_cut(utterance, len(pcm))
            return
        utterance.last_push = now
        if (
            not utterance.started
            and utterance not in self.queue
            and (self.queue or self.speech_end > released)
        ):
            utterance.first_push = None  # it waits its turn: no onset out of silence
        if utterance not in self.queue and len(pcm):
            utterance.closed = False
            self.queue.append(utterance)
        utterance.append(pcm)
        utterance.closed = utterance.closed or close

    def close_orphan(self, before: float) -> None:
        """An utterance whose end never came must not hold the queue for ever: none since clock time `before`."""
        head = self.queue[0] if self.queue else None
        if head is not None and not head.closed and not head.flowing and head.last_push < before:
            head.closed = True
            self.unterminated += 1

    def _startable(self, utterance: Utterance) -> bool:
        return utterance.flowing or utterance.closed or utterance.buffered >= self.start_samples

    def _head(self) -> Utterance | None:
        """The utterance that may be laid now; spent ones are removed on the way."""
        while self.queue:
            head = self.queue[0]
            if not self._startable(head) and len(self.queue) > 1 and self._startable(self.queue[1]):
                head.closed = True  # its end never came, but the next speech is here
                self.unterminated += 1
            if head.buffered or not head.closed:
                return head if self._startable(head) else None
            head.flowing = False
            self.queue.popleft()
        return None

    @property
    def flowing(self) -> bool:
        """Speech is being laid: the sample after `committed` continues it, or is missing."""
        head = self.queue[0] if self.queue else None
        return head is not None and head.flowing and (head.buffered > 0 or not head.closed)

    @property
    def onset(self) -> bool:
        """An utterance could start (or resume after running dry) right now."""
        return not self.flowing and self._head() is not None

    @property
    def gathering(self) -> bool:
        """An utterance has begun to arrive but cannot start yet."""
        return not self.flowing and bool(self.queue) and self._head() is None

    def supply(self) -> tuple[int, bool]:
        """Samples that would be laid without a break, and whether silence may follow them (else more must come)."""
        self._head()
        count = 0
        for utterance in self.queue:
            if not self._startable(utterance):
                return count, True
            count += utterance.buffered
            if not utterance.closed:
                return count, False
        return count, True

    # ---- laying

    def commit(self, end: int) -> None:
        """Lays speech (else silence) up to `end`."""
        while self.committed < end:
            head = self._head()
            if head is None:
                self._put(np.zeros(end - self.committed, np.float32), None)
                return
            head.flowing = head.started = True
            if head.dry is not None and head.buffered:
                self.underruns += 1
                self.inserted += self.committed - head.dry
                head.dry = None
            pcm = head.take(end - self.committed)
            if len(pcm):
                self._put(pcm, head)
            elif not head.closed:  # ran dry: gather again before going on; an underrun if it does go on
                head.flowing = False
                head.dry = self.committed

    def commit_silence(self, end: int) -> bool:
        """Lays silence up to `end` whatever waits (the engine is late). True where that breaks into speech."""
        count = end - self.committed
        if count <= 0:
            return False
        breaks = self.flowing and self.speech_end == self.committed
        self.inserted += count * self.flowing
        self._put(np.zeros(count, np.float32), None)
        return breaks

    def _put(self, pcm: np.ndarray, owner: Utterance | None) -> None:
        start = self.committed - self._base
        if start + len(pcm) > len(self._track):
            grown = np.zeros(max(2 * len(self._track), start + len(pcm)), np.float32)
            grown[:start] = self._track[:start]
            self._track = grown
        self._track[start : start + len(pcm)] = pcm
        end = self.committed + len(pcm)
        if owner is not None:
            self._laid.append(_Laid(self.committed, end, owner))
            if not owner.tail:
                self.speech_end = end
        self.committed = end

    # ---- reading

    def read(self, start: int, end: int) -> np.ndarray:
        """A copy of content time [start, end); silence before 0, before the kept past and after `committed`."""
        out = np.zeros(end - start, np.float32)
        first, last = max(start, self._base), min(end, self.committed)
        if last > first:
            out[first - start : last - start] = self._track[first - self._base : last - self._base]
        return out

    def peek(self, count: int) -> np.ndarray:
        """The `count` samples that would be laid next as things are; silence where none would be."""
        out = np.zeros(count, np.float32)
        self._head()
        at = 0
        for utterance in self.queue:
            if at >= count or not self._startable(utterance):
                break
            pcm = utterance.peek(count - at)
            out[at : at + len(pcm)] = pcm
            at += len(pcm)
        return out

    def owners(self, start: int, end: int) -> list[tuple[Utterance, int]]:
        """Utterances that sound in [start, end), in order, with how many samples each."""
        found: list[tuple[Utterance, int]] = []
        for laid in self._laid:
            if laid.start >= end:
                break
            overlap = min(laid.end, end) - max(laid.start, start)
            if overlap > 0 and not laid.owner.tail:
                found.append((laid.owner, overlap))
        return found

    def spans(self, start: int, end: int) -> tuple[SpeechSpan, ...]:
        """Speech in [start, end), neighbours of one utterance joined."""
        spans: list[SpeechSpan] = []
        for laid in self._laid:
            first, last = max(laid.start, start), min(laid.end, end)
            if last <= first or laid.owner.tail:
                continue
            if spans and spans[-1].end == first and spans[-1].utterance_id == laid.owner.name:
                spans[-1] = SpeechSpan(spans[-1].start, last, laid.owner.name)
            else:
                spans.append(SpeechSpan(first, last, laid.owner.name))
        return tuple(spans)

    # ---- the way back

    def rewind(self, position: int) -> None:
        """Takes content time from `position` on back: its speech returns to the head of the queue."""
        if position >= self.committed:
            return
        if position < self._base:
            raise ValueError(f"cannot rewind to sample {position}: the past is kept from sample {self._base}")
        returned: Utterance | None = None
        while self._laid and self._laid[-1].end > position:
            laid = self._laid.pop()
            cut = max(laid.start, position)
            laid.owner.give_back(self.read(cut, laid.end))
            if not self.queue or self.queue[0] is not laid.owner:
                self.queue.appendleft(laid.owner)
            laid.owner.flowing, laid.owner.dry = False, None
            returned = laid.owner
            if cut > laid.start:
                self._laid.append(_Laid(laid.start, cut, laid.owner))
                break
        self._track[position - self._base : self.committed - self._base] = 0.0
        self.committed = position
        for utterance in self.queue:
            utterance.flowing = False
        if returned is not None:
            returned.flowing = True  # it had started once: what came back may be laid at once
        elif self._laid and self._laid[-1].end == position and self.queue:
            self.queue[0].flowing = self.queue[0] is self._laid[-1].owner and self._startable(self.queue[0])
        past = (laid.end for laid in reversed(self._laid) if not laid.owner.tail)
        self.speech_end = next(past, min(self.speech_end, position))

    def cancel(self, name: str | None, fade: int, released: int) -> list[Utterance]:
        """Marks utterances `name` (None: all) that sound after `released` or wait; frees all but a fade's worth.

        What is laid of them stays laid until a rewind returns it and `purge` removes it. Returns them.
        """
        marked: list[Utterance] = []
        ahead = [laid.owner for laid in self._laid if laid.end > released]
        for utterance in [*ahead, *self.queue]:
            if (name is None or utterance.name == name) and not utterance.cancelled and not utterance.tail:
                utterance.cancelled = True
                utterance.closed = True
                self._count_cut(utterance, utterance.buffered - min(fade, utterance.buffered))
                utterance.keep(fade)
                marked.append(utterance)
        return marked

    def purge(self, fade: int) -> None:
        """Removes cancelled utterances from the queue; one cut while it sounds fades out over `fade` samples."""
        owner = self._laid[-1].owner if self._laid and self._laid[-1].end == self.committed else None
        cut = (
            owner if owner is not None and owner.cancelled and self.queue and self.queue[0] is owner else None
        )
        kept = [utterance for utterance in self.queue if not utterance.cancelled]
        gone = [utterance for utterance in self.queue if utterance.cancelled]
        self.queue.clear()
        if cut is not None and cut.buffered and fade:
            tail = Utterance("", tail=True)
            pcm = cut.take(fade)
            tail.append(pcm * np.linspace(1.0, 0.0, len(pcm), dtype=np.float32))
            tail.closed = tail.started = tail.flowing = True
            self.queue.append(tail)
        for utterance in gone:
            self._count_cut(utterance, utterance.buffered)
        self.queue.extend(kept)

    def _count_cut(self, utterance: Utterance, samples: int) -> None:
        self.cut += round(samples * utterance.rate / SAMPLE_RATE)

    def trim(self, position: int) -> None:
        """Forgets content time before `position`; memory stays bounded."""
        while self._laid and self._laid[0].end <= position:
            self._laid.popleft()
        cut = min(position, self.committed) - self._base
        if cut >= len(self._track) // 2 and cut > SAMPLE_RATE // 2:
            kept = self.committed - self._base - cut
            self._track[:kept] = self._track[cut : cut + kept].copy()
            self._base += cut
