# SPDX-License-Identifier: Apache-2.0
"""From pushed chunks to clean speech at 24 kHz: checks, order, gaps, repeats, resampling.

A chunk may carry `first_sample` (its place, counted at its own rate, in the utterance or in a longer stream) and
`sequence` (one more a chunk). With them, chunks that come early wait for the missing ones (a few chunks, a short
time), repeats are dropped and lost audio becomes silence of the same length, up to a limit.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import soxr

from flowact_ros.engine.interfaces import AudioError, AudioQueueFull
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.utterance import Utterance
from flowact_ros.timebase import SAMPLE_RATE

_LOG = logging.getLogger(__name__)
RATES = (4_000, 384_000)  # [Hz] of pushed audio
_REMEMBERED = 64  # utterances whose place is kept, so that their late repeats are known
_REPEAT_S = 1.0  # repeats of a finished utterance come within this time
_RESTART_CHUNKS = 64  # a sequence that falls back further comes from a publisher that began anew


@dataclass(frozen=True, eq=False)
class Chunk:
    """A checked chunk: pcm float32 [n], finite, within [-1, 1], at `rate` Hz."""

    pcm: np.ndarray
    rate: int
    first: int | None
    sequence: int | None
    last: bool


@dataclass(frozen=True, eq=False)
class Feed:
    """What the timeline gets: samples at 24 kHz for an utterance, and whether it ends with them."""

    utterance: Utterance
    pcm: np.ndarray
    close: bool


@dataclass
class IntakeCounts:
    """What was wrong with the input, in chunks or samples."""

    repeats: int = 0  # chunks dropped because they had been heard
    lost_chunks: int = 0  # gaps
    lost_samples: int = 0  # that they stood for, at the input rate
    shortened: int = 0  # gaps longer than the limit
    reordered: int = 0  # chunks that waited for an earlier one
    bad_samples: int = 0  # NaN or infinite, replaced by silence
    clipped: int = 0  # samples beyond +-1


@dataclass
class _Stream:
    """Where one utterance stands."""

    utterance: Utterance
    rate: int
    resampler: soxr.ResampleStream | None
    next_first: int | None = None  # place expected next
    next_sequence: int | None = None
    fresh: bool = True  # nothing delivered yet
    finished: bool = False  # its `last` was delivered
    held: list[Chunk] = field(default_factory=list)
    held_since: float = 0.0
    delivered: int = 0  # chunks
    delivered_at: float = 0.0
    old_run: int = 0  # repeats in a row: more than a window of them means that the expected place was wrong

    def ahead(self, chunk: Chunk) -> int:
        """How far beyond the expected place it lies: samples if known, else chunks; <= 0: it is next, or old."""
        if chunk.first is not None and self.next_first is not None:
            return chunk.first - self.next_first
        if chunk.sequence is not None and self.next_sequence is not None:
            return chunk.sequence - self.next_sequence
        return 0

    def old(self, chunk: Chunk) -> bool:
        """All of it was delivered before."""
        if chunk.sequence is not None and self.next_sequence is not None:
            return chunk.sequence < self.next_sequence
        if chunk.first is not None and self.next_first is not None:
            return chunk.first + len(chunk.pcm) <= self.next_first and chunk.first < self.next_first
        return False

    def restart(self, chunk: Chunk, window: int, now: float) -> bool:
        """Its place fell back so far that it is no repeat: the publisher began anew."""
        if chunk.sequence is not None and self.next_sequence is not None:
            if chunk.sequence >= self.next_sequence:  # a new chunk at an old place
                return chunk.first == 0 and bool(self.next_first)
            return self.next_sequence - chunk.sequence > _RESTART_CHUNKS
        if chunk.first is None or self.next_first is None:
            return False
        if self.finished:  # a name that is given again at once is more likely a late repeat
            return chunk.first == 0 and (not self.utterance.name or now - self.delivered_at > _REPEAT_S)
        return chunk.first == 0 and self.delivered > 2 * window + 1


def check_chunk(
    pcm: np.ndarray,
    sample_rate: int,
    first_sample: int | None,
    sequence: int | None,
    last: bool,
    counts: IntakeCounts,
) -> Chunk:
    """pcm float [n] or int16 [n] -> Chunk. Raises AudioError with one line; bad samples become silence."""
    rate, first, number = _whole(sample_rate), _whole(first_sample), _whole(sequence)
    if rate is None or not RATES[0] <= rate <= RATES[1]:
        raise AudioError(
            f"sample rate is {sample_rate!r}: a whole number in [{RATES[0]}, {RATES[1]}] Hz is needed"
        )
    for name, given, value in (("first_sample", first_sample, first), ("sequence", sequence, number)):
        if given is not None and (value is None or value < 0):
            raise AudioError(f"{name} is {given!r}: a whole number >= 0 is needed")
    try:
        pcm = np.asarray(pcm)
    except ValueError as error:
        raise AudioError(f"audio is no array: {error}") from None
    if pcm.ndim != 1:
        raise AudioError(f"audio has shape {list(pcm.shape)}: one channel, shape [samples], is needed")
    if pcm.dtype == np.int16:
        pcm = pcm.astype(np.float32) / 32768.0
    elif pcm.dtype.kind != "f":
        raise AudioError(f"audio has type {pcm.dtype}: float32 in [-1, 1] or int16 is needed")
    finite = np.isfinite(pcm)
    if not finite.all():
        bad = int(pcm.size - finite.sum())
        if not counts.bad_samples:
            _LOG.warning("audio holds %d NaN or infinite samples: they became silence", bad)
        counts.bad_samples += bad
        pcm = np.where(finite, pcm, 0.0)
    if pcm.size and max(float(pcm.max()), -float(pcm.min())) > 1.0:
        counts.clipped += int((np.abs(pcm) > 1.0).sum())
        pcm = np.clip(pcm, -1.0, 1.0)
    return Chunk(np.array(pcm, np.float32), rate, first, number, bool(last))  # a copy: buffers are used again


def _whole(value: object) -> int | None:
    """The whole number that it is, if it is one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return None


class Intake:
    """The streams that are open, and a few that are not. Not thread-safe: the session holds a lock around it."""

    def __init__(self, config: SessionConfig) -> None:
        self.counts = IntakeCounts()
        self._config = config
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._now = 0.0
        self._ends: tuple[int | None, int | None] = (
            None,
            None,
        )  # (place, sequence) that continue the last chunk

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
        chunk = check_chunk(pcm, sample_rate, first_sample, sequence, last, self.counts)
        held = sum(len(c.pcm) / c.rate for s in self._streams.values() for c in s.held)
        waiting, coming = queued / SAMPLE_RATE + held, len(chunk.pcm) / chunk.rate
        if waiting + coming > self._config.queue_s:
            raise AudioQueueFull(
                f"{waiting:.1f} s of speech wait and {coming:.1f} s more came: the limit is "
                f"{self._config.queue_s:g} s; push later or interrupt"
            )
        feeds: list[Feed] = []
        self._now = now
        self._offer(utterance_id, chunk, now, feeds)
        return feeds

    def poll(self, now: float, *, everything: bool = False) -> list[Feed]:
        """Chunks that waited long enough for missing ones (or all that wait) go on without them."""
        feeds: list[Feed] = []
        for name, stream in list(self._streams.items()):
            if stream.held and (everything or now - stream.held_since >= self._config.hold_s):
                while stream.held and not stream.finished:
                    self._accept_loss(stream, feeds)
                self._carry_over(name, stream, now, feeds)
        return feeds

    def holding(self) -> bool:
        """Some chunk waits for an earlier one."""
        return any(stream.held for stream in self._streams.values())

    # ---- order

    def _offer(self, name: str, chunk: Chunk, now: float, feeds: list[Feed]) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            unmarked_restart = not name and stream.utterance.cancelled and not chunk.first
            if stream.restart(chunk, self._config.reorder_window, now) or unmarked_restart:
                stream = None
            elif stream.old(chunk) and stream.old_run <= 2 * self._config.reorder_window:
                stream.old_run += 1
                self.counts.repeats += 1
                return
            elif stream.finished:
                stream = None
        if stream is None:
            if not len(chunk.pcm) and name not in self._streams:
                return  # an end without a beginning
            stream = self._open(name, chunk, now)
        if chunk.rate != stream.rate:
            raise AudioError(
                f"sample rate changed from {stream.rate} to {chunk.rate} Hz inside utterance {name!r}: "
                "one rate per utterance is needed"
            )
        begins = stream.fresh and (chunk.first, chunk.sequence) != (None, None)
        if (
            begins
            and not (0 in (chunk.first, chunk.sequence) or self._continues(chunk))
            or stream.ahead(chunk) > 0
        ):
            self._hold(stream, chunk, now, feeds)
        else:
            self._deliver(stream, chunk, feeds)
            self._drain(stream, feeds)
        self._carry_over(name, stream, now, feeds)

    def _open(self, name: str, chunk: Chunk, now: float) -> _Stream:
        resampler = None
        if chunk.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(chunk.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        stream = _Stream(Utterance(name, first_push=now), chunk.rate, resampler)
        self._streams.pop(name, None)
        self._streams[name] = stream
        while len(self._streams) > _REMEMBERED:
            self._streams.popitem(last=False)
        return stream

    def _continues(self, chunk: Chunk) -> bool:
        place, sequence = self._ends
        return (chunk.first is not None and chunk.first == place) or (
            chunk.sequence is not None and chunk.sequence == sequence
        )

    def _hold(self, stream: _Stream, chunk: Chunk, now: float, feeds: list[Feed]) -> None:
        def key(c: Chunk) -> int:
            return c.first if c.first is not None else (c.sequence or 0)

        if any(key(c) == key(chunk) and len(c.pcm) == len(chunk.pcm) for c in stream.held):
            self.counts.repeats += 1
            return
        if not stream.held:
            stream.held_since = now
        stream.held.append(chunk)
        stream.held.sort(key=key)
        self.counts.reordered += 1
        while len(stream.held) > self._config.reorder_window and not stream.finished:
            self._accept_loss(stream, feeds)

    def _drain(self, stream: _Stream, feeds: list[Feed]) -> None:
        while stream.held and not stream.finished and stream.ahead(stream.held[0]) <= 0:
            chunk = stream.held.pop(0)
            if stream.old(chunk):
                self.counts.repeats += 1
            else:
                self._deliver(stream, chunk, feeds)

    def _carry_over(self, name: str, stream: _Stream, now: float, feeds: list[Feed]) -> None:
        """Chunks that lie behind the end of an utterance of the same name belong to the next one."""
        if stream.finished and stream.held:
            held, stream.held = stream.held, []
            for chunk in held:
                self._offer(name, chunk, now, feeds)

    def _accept_loss(self, stream: _Stream, feeds: list[Feed]) -> None:
        """The earliest held chunk goes on; what is missing before it becomes silence, up to the limit."""
        chunk = stream.held.pop(0)
        gap = 0 if stream.fresh else stream.ahead(chunk)
        if gap > 0:
            self.counts.lost_chunks += 1
            if chunk.first is not None and stream.next_first is not None:
                self.counts.lost_samples += gap
                limit = int(self._config.gap_s * stream.rate)
                self.counts.shortened += gap > limit
                silence = np.zeros(min(gap, limit), np.float32)
                self._deliver(
                    stream, replace(chunk, pcm=silence, sequence=None, first=None, last=False), feeds
                )
        stream.next_first = chunk.first
        self._deliver(stream, chunk, feeds)
        self._drain(stream, feeds)

    # ---- delivery

    def _deliver(self, stream: _Stream, chunk: Chunk, feeds: list[Feed]) -> None:
        pcm = chunk.pcm
        stream.old_run = 0
        stream.delivered += 1
        stream.delivered_at = self._now
        if chunk.first is not None:
            heard = 0 if stream.next_first is None else stream.next_first - chunk.first
            if 0 < heard < len(pcm):
                pcm = pcm[heard:]
            stream.next_first = chunk.first + len(
                chunk.pcm
            )  # also if it lies further back than a repeat would
        elif stream.next_first is not None:
            stream.next_first += len(chunk.pcm)
        if chunk.sequence is not None:
            stream.next_sequence = chunk.sequence + 1
        self._ends = (stream.next_first, stream.next_sequence)
        stream.fresh = False
        stream.finished = chunk.last
        if stream.resampler is not None:
            pcm = stream.resampler.resample_chunk(pcm, last=chunk.last)
            if chunk.last:
                stream.resampler = None  # it holds buffers as long as the longest chunk, and the stream is remembered
        feeds.append(Feed(stream.utterance, np.ascontiguousarray(pcm, np.float32), chunk.last))
