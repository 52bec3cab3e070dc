# SPDX-License-Identifier: Apache-2.0
"""From pushed chunks to clean speech at 24 kHz: order, gaps, repeats, ends, resampling.

A chunk may carry `first_sample` (its place, counted at its own rate, in the utterance or in a longer stream) and
`sequence` (one more a chunk). With them, chunks that come early wait for the missing ones (a few chunks, a short
time), repeats are dropped and lost audio becomes silence of the same length, up to a limit. What the numbers of
senders mean is found out in `numbering`; whatever is not heard is counted, and said once, in `losses`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import soxr

from flowact_ros.engine import losses
from flowact_ros.engine.chunks import Chunk, check_chunk
from flowact_ros.engine.interfaces import AudioError, AudioQueueFull
from flowact_ros.engine.losses import IntakeCounts, Notes
from flowact_ros.engine.numbering import REPEAT_S, Numbering, Place
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.utterance import Utterance
from flowact_ros.media.levels import FullScale, WithoutOffset
from flowact_ros.timebase import SAMPLE_RATE

_REMEMBERED = 64  # utterances whose place is kept, so that their late repeats are known
_INTERRUPTED_S = 10.0  # the rest of an interrupted utterance that is numbered is not heard for so long


@dataclass(frozen=True, eq=False)
class Feed:
    """What the timeline gets: samples at 24 kHz for an utterance, and whether it ends with them."""

    utterance: Utterance
    pcm: np.ndarray
    close: bool


@dataclass
class _Stream:
    """Where one utterance stands."""

    utterance: Utterance
    numbering: Numbering
    resampler: soxr.ResampleStream | None
    begun: bool = False  # its first chunk is there, whatever number it has
    fresh: bool = True  # nothing delivered yet
    finished: bool = False  # its end was delivered
    paused: bool = False  # it had none: nothing came for long
    held: list[Chunk] = field(default_factory=list)  # wait for earlier ones
    held_since: float = 0.0
    doubted: Chunk | None = None  # the first chunk again: a repeat, or the same sentence anew; the next one tells
    arrived_at: float = 0.0
    sounded_at: float = 0.0
    notes: Notes = field(default_factory=Notes)
    scale: FullScale = field(default_factory=FullScale)
    offset: WithoutOffset = field(default_factory=WithoutOffset)

    @property
    def rate(self) -> int:
        return self.numbering.rate

    @property
    def name(self) -> str:
        return self.utterance.name


class Intake:
    """The streams that are open, and a few that are not. Not thread-safe: the session holds a lock around it."""

    def __init__(self, config: SessionConfig) -> None:
        self.counts = IntakeCounts()
        self._config = config
        self._repeats = 2 * config.reorder_window + 1  # chunks that may come between one and its repeat
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._ends: tuple[int | None, int | None] = (None, None)  # numbers that continue the last chunk
        self._feeds: list[Feed] = []  # what the timeline did not get yet
        self._now = 0.0

    def push(
        self,
        pcm: np.ndarray,
        sample_rate: int,
        utterance_id: str,
        first_sample: int | None,
        sequence: int | None,
        last: bool,
        *,
        now: float,
        queued: int,
    ) -> list[Feed]:
        """One chunk in, what the timeline gets out. `queued`: samples at 24 kHz that wait there already.

        Raises AudioError; nothing is taken then.
        """
        chunk = replace(check_chunk(pcm, sample_rate, first_sample, sequence, last, self.counts), came=now)
        held = sum(len(c.pcm) / c.rate for s in self._streams.values() for c in s.held)
        waiting, coming = queued / SAMPLE_RATE + held, len(chunk.pcm) / chunk.rate
        if waiting + coming > self._config.queue_s:
            raise AudioQueueFull(
                f"{waiting:.1f} s of speech wait and {coming:.1f} s more came: the limit is "
                f"{self._config.queue_s:g} s; push later or interrupt"
            )
        self.counts.received += len(chunk.pcm)
        self._now = now
        try:
            self._offer(utterance_id, chunk, self._feeds)
        except AudioError:
            self.counts.drop(losses.OTHER_RATE, len(chunk.pcm))
            raise  # what other chunks brought about meanwhile comes with the next call
        return self._fed()

    def refuse(self, samples: int, reason: str) -> None:
        """Counts what was not even pushed, or pushed in vain and given up."""
        self.counts.received += samples
        self.counts.drop(reason, samples)

    def _fed(self) -> list[Feed]:
        feeds, self._feeds = self._feeds, []
        return feeds

    def poll(self, now: float, *, everything: bool = False) -> list[Feed]:
        """Chunks that waited long enough for missing ones (or all that wait) go on; what paused for long ends."""
        feeds = self._feeds
        self._now = now
        for name, stream in list(self._streams.items()):
            if stream.held and (everything or now - stream.held_since >= self._config.hold_s):
                self._release(stream, feeds)
                self._carry_over(name, stream, feeds)
            if stream.doubted is not None and now - stream.arrived_at >= REPEAT_S:
                self._drop(stream, losses.REPEATED, len(stream.doubted.pcm))
                stream.doubted = None
            self._end_if_paused(stream, feeds)
        return self._fed()

    def holding(self) -> bool:
        """Some chunk waits for an earlier one."""
        return any(stream.held for stream in self._streams.values())

    # ---- whose chunk it is

    def _offer(self, name: str, chunk: Chunk, feeds: list[Feed]) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            self._end_if_paused(stream, feeds)
            stream.numbering.see(chunk)
            stream = self._settle_doubt(name, stream, chunk, feeds)
            while chunk.rate != stream.rate and any(held.last for held in stream.held):
                self._release(stream, feeds)  # its end has come, and this is none of it: it waits for nothing more
                self._carry_over(name, stream, feeds)
                stream = self._streams[name]
            place = self._place(stream, chunk)
            if chunk.rate != stream.rate and not (stream.finished or place is Place.NEW or not name):
                raise AudioError(
                    f"sample rate changed from {stream.rate} to {chunk.rate} Hz inside utterance {name!r}: "
                    "one rate per utterance is needed, and an utterance_id of its own for each voice"
                )
            if place in (Place.HEARD, Place.LATE):
                self._drop(stream, losses.LATE if place is Place.LATE else losses.REPEATED, len(chunk.pcm))
                return
            if place is Place.AGAIN:
                stream.doubted, stream.arrived_at = chunk, self._now
                return
            stream = self._successor(name, stream, chunk, place, feeds)
        elif len(chunk.pcm):
            for other in self._streams.values():
                if other.fresh:
                    self._release(other, feeds)  # it came before, so it is said before
            stream = self._open(name, chunk, feeds)
        if stream is None:
            return  # an end without a beginning
        stream.arrived_at = self._now
        self._take(stream, chunk, feeds)
        self._carry_over(name, stream, feeds)

    def _place(self, stream: _Stream, chunk: Chunk) -> Place:
        """Its place by the numbers, and by what happened meanwhile."""
        place = stream.numbering.place(chunk, self._now)
        idle = self._now - stream.arrived_at
        if not len(chunk.pcm) and place is not Place.AHEAD:
            return Place.HEARD if place in (Place.HEARD, Place.AGAIN) else Place.NEXT  # only an end
        if place is Place.AGAIN and stream.finished and not stream.name:
            return Place.NEW  # nothing but its numbers tells it from the one before, and they say so
        if stream.utterance.cancelled and place in (Place.NEXT, Place.AHEAD):
            numbered = stream.numbering.counting
            if idle >= (_INTERRUPTED_S if numbered else self._config.orphan_s):
                return Place.NEW
            if not stream.name and not numbered:
                return Place.NEW  # nobody could say that it belongs to what was interrupted
        return place

    def _settle_doubt(self, name: str, stream: _Stream, chunk: Chunk, feeds: list[Feed]) -> _Stream:
        """The first chunk had come a second time. If the next one follows it, the sentence is said once more."""
        first, stream.doubted = stream.doubted, None
        if first is None:
            return stream
        if not (stream.finished or stream.numbering.believed(chunk)):
            self._release(stream, feeds)
            self._deliver(stream, first, feeds)  # the numbers stand still: they say nothing
            return stream
        if not self._follows(first, chunk) or (
            not stream.finished and stream.numbering.place(chunk, self._now) in (Place.NEXT, Place.AHEAD)
        ):
            self._drop(stream, losses.REPEATED, len(first.pcm))
            return stream
        self._end(stream, feeds)
        again = self._open(name, first, feeds)
        again.arrived_at = self._now
        self._take(again, first, feeds)
        again.numbering.see(chunk)
        return again

    @staticmethod
    def _follows(first: Chunk, chunk: Chunk) -> bool:
        if first.sequence is not None and chunk.sequence == first.sequence + 1:
            return True
        return first.first is not None and chunk.first == first.first + len(first.pcm)

    def _successor(
        self, name: str, stream: _Stream, chunk: Chunk, place: Place, feeds: list[Feed]
    ) -> _Stream | None:
        """The stream that a chunk goes on with: this one, one that begins with it, or none for a mere end."""
        if place is not Place.NEW and chunk.rate == stream.rate and not stream.finished:
            return stream
        if not len(chunk.pcm):
            return None  # its end had come already
        followed = not stream.finished  # its numbers fell back while it was going on: nothing was missed in between
        self._end(stream, feeds)
        goes_on = place is Place.NEXT or (place is Place.AHEAD and stream.paused)  # then something was lost
        goes_on = goes_on and chunk.rate == stream.rate
        successor = self._open(name, chunk, feeds, stream.numbering if goes_on else None)
        successor.begun = followed
        return successor

    def _open(
        self, name: str, chunk: Chunk, feeds: list[Feed], numbering: Numbering | None = None
    ) -> _Stream:
        resampler = None
        if chunk.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(chunk.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        if numbering is None:
            numbering = Numbering(chunk.rate, self._repeats)
            numbering.see(chunk)
        utterance = Utterance(name, first_push=self._now, rate=chunk.rate)
        stream = _Stream(utterance, numbering, resampler)
        self._streams.pop(name, None)
        self._streams[name] = stream
        while len(self._streams) > _REMEMBERED:
            self._end(self._streams.popitem(last=False)[1], feeds)
        return stream

    def _end_if_paused(self, stream: _Stream, feeds: list[Feed]) -> None:
        """Nothing came for long, and nothing of it sounds: it is over, whether its end was sent or not."""
        utterance = stream.utterance
        if stream.finished or stream.fresh or utterance.cancelled:
            return
        if utterance.flowing:
            stream.sounded_at = self._now
        elif self._now - max(stream.arrived_at, stream.sounded_at) >= self._config.orphan_s:
            self._end(stream, feeds)

    def _end(self, stream: _Stream, feeds: list[Feed]) -> None:
        """Ends what has no end of its own; what the resampler holds back is heard."""
        self._release(stream, feeds)
        if stream.finished:
            return
        stream.finished = stream.paused = True
        stream.numbering.forget_sound()
        utterance = stream.utterance
        if not (utterance.closed or utterance.cancelled):
            self.counts.unended += 1
            stream.notes.unended(stream.name, self.counts.unended)
        self._feed(stream, np.zeros(0, np.float32), True, feeds)

    # ---- order

    def _take(self, stream: _Stream, chunk: Chunk, feeds: list[Feed]) -> None:
        """A chunk of this utterance: on with it, or it waits for those before it."""
        if stream.fresh and not (stream.begun or self._begins(stream, chunk)):
            self._hold(stream, chunk, feeds)
        elif not stream.fresh and stream.numbering.place(chunk, self._now) is Place.AHEAD:
            self._hold(stream, chunk, feeds)
        else:
            if not stream.numbering.believed(chunk):
                self._release(stream, feeds)  # the numbers of those that wait turned out to mean nothing
                if stream.finished:
                    stream.held.append(chunk)  # behind the end: `_carry_over` goes on with it
                    return
            self._deliver(stream, chunk, feeds)
            self._drain(stream, feeds)

    def _begins(self, stream: _Stream, chunk: Chunk) -> bool:
        if not stream.numbering.believed(chunk) or 0 in chunk.numbers:
            return True
        return any(number is not None and number == end for number, end in zip(chunk.numbers, self._ends))

    def _hold(self, stream: _Stream, chunk: Chunk, feeds: list[Feed]) -> None:
        if any(c.numbers == chunk.numbers and c.digest == chunk.digest for c in stream.held):
            if stream.fresh:
                stream.doubted = chunk  # or numbers that stand still
            else:
                self._drop(stream, losses.REPEATED, len(chunk.pcm))
            return
        if not stream.held:
            stream.held_since = self._now
        stream.held.append(chunk)
        stream.held.sort(key=stream.numbering.key)
        self.counts.reordered += 1
        while len(stream.held) > self._config.reorder_window and not stream.finished:
            self._give_up(stream, feeds)

    def _drain(self, stream: _Stream, feeds: list[Feed]) -> None:
        """Those that waited for what has come."""
        while stream.held and not stream.finished:
            place = stream.numbering.place(stream.held[0], self._now)
            if place is Place.AHEAD:
                return
            chunk = stream.held.pop(0)
            if place in (Place.HEARD, Place.AGAIN):
                self._drop(stream, losses.REPEATED, len(chunk.pcm))
            else:
                self._deliver(stream, chunk, feeds)

    def _release(self, stream: _Stream, feeds: list[Feed]) -> None:
        while stream.held and not stream.finished:
            self._give_up(stream, feeds)

    def _carry_over(self, name: str, stream: _Stream, feeds: list[Feed]) -> None:
        """Chunks that lie behind the end of an utterance of the same name belong to the next one."""
        if stream.finished and stream.held:
            held, stream.held = stream.held, []
            for chunk in held:
                self._offer(name, chunk, feeds)

    def _give_up(self, stream: _Stream, feeds: list[Feed]) -> None:
        """The earliest held chunk goes on; what is missing before it becomes silence, up to the limit."""
        lost, samples = stream.numbering.give_up(stream.held)
        chunk = stream.held.pop(0)
        if lost:
            self.counts.lost_chunks += 1
            self.counts.lost_samples += samples
            limit = int(self._config.gap_s * stream.rate)
            self.counts.shortened += samples > limit
            filled = 0 if stream.fresh else min(samples, limit)
            if filled and not stream.utterance.cancelled:
                self.counts.filled += filled
                self._feed(stream, np.zeros(filled, np.float32), False, feeds)
            stream.notes.lost(stream.name, f"{samples} samples" if samples else f"{lost} chunks")
        self._deliver(stream, chunk, feeds)
        self._drain(stream, feeds)

    # ---- delivery

    def _drop(self, stream: _Stream, reason: str, samples: int) -> None:
        self.counts.drop(reason, samples, repeats=reason in (losses.REPEATED, losses.LATE))
        if samples:
            stream.notes.dropped(stream.name, reason, samples)

    def _deliver(self, stream: _Stream, chunk: Chunk, feeds: list[Feed]) -> None:
        known = stream.numbering.overlap(chunk)
        stream.numbering.delivered(chunk)
        self._ends = stream.numbering.ends
        stream.fresh = False
        stream.finished = chunk.last
        pcm = chunk.pcm[known:]
        if known:
            self.counts.drop(losses.REPEATED, known)
            stream.notes.dropped(stream.name, losses.REPEATED, known)
        if stream.utterance.cancelled:
            self._drop(stream, losses.INTERRUPTED, len(pcm))
            stream.resampler = None
            return
        self.counts.heard += len(pcm)
        self._feed(stream, self._levelled(stream, pcm), chunk.last, feeds)

    def _levelled(self, stream: _Stream, pcm: np.ndarray) -> np.ndarray:
        """At full scale 1."""
        scaled = stream.scale(pcm)
        if stream.scale.divisor != 1.0:
            self.counts.rescaled += len(pcm)
            stream.notes.once("scale", f"speech {stream.name!r}: {stream.scale.remark}")
        loud = int((np.abs(scaled) > 1.0).sum())
        self.counts.clipped += loud
        return np.clip(scaled, -1.0, 1.0) if loud else scaled

    def _feed(self, stream: _Stream, pcm: np.ndarray, close: bool, feeds: list[Feed]) -> None:
        if stream.resampler is not None:
            pcm = stream.resampler.resample_chunk(pcm, last=close)
            if close:
                stream.resampler = None  # it holds buffers as long as the longest chunk, and the stream is remembered
        pcm = stream.offset(np.ascontiguousarray(pcm, np.float32))
        if stream.offset.remark:
            stream.notes.once("offset", f"speech {stream.name!r}: {stream.offset.remark}")
        feeds.append(Feed(stream.utterance, pcm, close))
