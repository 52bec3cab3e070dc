# SPDX-License-Identifier: Apache-2.0
"""The frames of a session again, from the records of its steps.

Same machine kind, backend and thread count: the same frames, bit by bit, rewinds and cuts included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Frame, Pipeline, Reference, SpeechSpan
from flowact_ros.engine.keyframe import begin_from
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot
from flowact_ros.engine.step import Step, make
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)
from flowact_ros.vocabulary import IDLE, SPEAKING


class _Track:
    """Sound that the records so far hold, from sample `base` on, with whose it is."""

    def __init__(self, base: int) -> None:
        self.base = base  # content time of _pcm[0]
        self._pcm = np.zeros(0, np.float32)
        self._spans: list[SpeechSpan] = []

    @staticmethod
    def before(start: int, context: np.ndarray, first: int) -> _Track:
        """For a record of sound from `first` on, whose step begins at `start` and hears `context` before it."""
        if first <= start - len(context):  # the record holds it, too
            return _Track(first)
        track = _Track(start - len(context))
        track.lay(track.base, context, ())
        return track

    def lay(self, start: int, pcm: np.ndarray, spans: tuple[SpeechSpan, ...]) -> None:
        known = self.base + len(self._pcm)
        if not self.base <= start <= known:
            raise EngineError(
                f"a record's sound begins at sample {start}: it is known in [{self.base}, {known}]"
            )
        self._pcm = np.concatenate([self._pcm[: start - self.base], pcm])
        cut = [SpeechSpan(s.start, min(s.end, start), s.utterance_id) for s in self._spans if s.start < start]
        self._spans = [*cut, *spans]

    def read(self, start: int, end: int) -> np.ndarray:
        if start < self.base and self.base > 0:  # before the stream it was silent
            raise EngineError(f"the records hold sound from sample {self.base} on: sample {start} is needed")
        out = np.zeros(end - start, np.float32)
        first, last = max(start, self.base), min(end, self.base + len(self._pcm))
        if last > first:
            out[first - start : last - start] = self._pcm[first - self.base : last - self.base]
        return out

    def trim(self, start: int) -> None:
        """Forgets what lies before `start`."""
        cut = max(0, start - self.base)
        self._pcm, self.base = self._pcm[cut:], self.base + cut
        self._spans = [s for s in self._spans if s.end > start]

    def speaker(self, start: int, end: int) -> str | None:
        """Who sounds longest in [start, end)."""
        overlaps = [(min(s.end, end) - max(s.start, start), s.utterance_id) for s in self._spans]
        sounding = [overlap for overlap in overlaps if overlap[0] > 0]
        return max(sounding, key=lambda o: o[0])[1] if sounding else None


def replay(
    pipeline: Pipeline,
    references: Mapping[str, Reference],
    records: Iterable[ChunkRecord],
    *,
    drawn: Callable[[ChunkRecord, RingEntry], None] | None = None,
    redraw: bool = False,
) -> Iterator[Frame]:
    """Consecutive records of one stream -> the frames that the session made and did not take back.

    references: by ChunkRecord.reference_id (see `recorded_references`). The frames begin with step 0, or with the first
    record with a keyframe, or with the first cut (another value of `resets`) before which the records hold the sound
    that it hears; earlier records give that sound only. Stamps count from frame 0. Frames that the session skipped
    repeat the picture before them, as live.
    drawn: is shown every latent that a step drew, before it may be taken back.
    redraw: motion comes from the records instead of the denoiser, so that a machine on which the denoiser computes
    otherwise shows the same motion; the frames then begin with the first record.
    Raises EngineError if a record or a reference is missing.
    """
    records = list(records)
    if not records:
        return
    check_steps(records)
    begin = 0 if redraw else beginning(records, pipeline.context_samples)
    ends = _ends(records)
    track, ring, now = _Track(records[0].first_sample), Ring(), None
    shown, place = 0, 0
    on_screen: RingEntry | None = None
    for number, (record, end) in enumerate(zip(records, ends, strict=True)):
        start = record.first_frame * SAMPLES_PER_FRAME
        stop = start + record.latents * SAMPLES_PER_LATENT
        used = record.pcm[: stop - record.first_sample]
        if number <= begin and record.first_sample < track.base:
            track = _Track(record.first_sample)
        if number == begin:
            reference = _reference(references, record)
            now = Snapshot(pipeline.start(reference, record.seed), None, 0, record.resets)
            shown = min(record.first_frame, end)
            if record.keyframe and not redraw:
                now, context = begin_from(pipeline, record, reference)
                track = _Track.before(start, context, record.first_sample)
        track.lay(record.first_sample, used, record.spans)
        if number < begin:
            track.trim(min(end * SAMPLES_PER_FRAME, stop) - pipeline.context_samples - SAMPLES_PER_LATENT)
            continue
        reference = _reference(references, record)
        now = ring.truncate(record.first_sample // SAMPLES_PER_LATENT) or now
        assert now is not None  # since the first record that is made

        def push(entry: RingEntry, record: ChunkRecord = record) -> None:
            ring.push(entry)
            if drawn is not None:
                drawn(record, entry)

        if redraw:
            _redraw(pipeline, record, reference, now, push)
        else:
            look = record.pcm[len(used) :]
            pcm = np.concatenate([track.read(start - pipeline.context_samples, stop), look])
            now = make(pipeline, Step(now, pcm, record, reference), push).after
        while shown < end:
            entry = ring.entry(shown)
            if entry is not None:
                on_screen, place = entry, shown % FRAMES_PER_LATENT
            if on_screen is None:  # after a cut from which latents were skipped: what was repeated lies before it
                shown += 1
                continue
            yield _frame(track, on_screen, place, shown, repeated=entry is None)
            shown += 1
        ring.drop_before(shown)
        track.trim(min(shown * SAMPLES_PER_FRAME, stop) - pipeline.context_samples - SAMPLES_PER_LATENT)


def said(records: Iterable[ChunkRecord]) -> list[tuple[int, str, np.ndarray]]:
    """The speech that consecutive records of one stream hold: (its first sample, whose it is, float32 [n] at 24 kHz).

    What an utterance lost when it was taken back for good is left out; one that pauses comes in parts.
    """
    pieces: list[tuple[int, np.ndarray, SpeechSpan]] = []  # in order, without overlaps
    for record in records:
        base = record.first_sample
        while pieces and pieces[-1][0] + len(pieces[-1][1]) > base:  # a rewind
            start, pcm, span = pieces.pop()
            if start < base:
                pieces.append((start, pcm[: base - start], span))
                break
        end = record.first_frame * SAMPLES_PER_FRAME + record.latents * SAMPLES_PER_LATENT
        for span in record.spans:
            start, stop = max(span.start, base), min(span.end, end)
            if stop > start:
                pieces.append((start, record.pcm[start - base : stop - base], span))
    joined: list[tuple[int, str, list[np.ndarray], int]] = []
    for start, pcm, span in pieces:
        if joined and joined[-1][1] == span.utterance_id and joined[-1][3] == start:
            first, name, parts, _ = joined.pop()
            joined.append((first, name, [*parts, pcm], start + len(pcm)))
        else:
            joined.append((start, span.utterance_id, [pcm], start + len(pcm)))
    return [(start, name, np.concatenate(parts)) for start, name, parts, _ in joined]


def _reference(references: Mapping[str, Reference], record: ChunkRecord) -> Reference:
    if record.reference_id not in references:
        raise EngineError(f"step {record.step} shows reference {record.reference_id!r}: it was not given")
    return references[record.reference_id]


def _frame(track: _Track, entry: RingEntry, place: int, index: int, *, repeated: bool) -> Frame:
    """Frame `index`, which shows picture `place` of `entry`."""
    at = index * SAMPLES_PER_FRAME
    who = track.speaker(at, at + SAMPLES_PER_FRAME)
    return Frame(
        index=index,
        pts=index / FRAME_RATE,
        rgb=entry.frames[place],
        motion=entry.motion[place],
        audio=track.read(at, at + SAMPLES_PER_FRAME),
        utterance_id=who or "",
        behaviour=entry.behaviour or (IDLE if who is None else SPEAKING),
        speaking=who is not None,
        repeated=repeated,
    )


def _redraw(
    pipeline: Pipeline, record: ChunkRecord, reference: Reference, before: Snapshot, push: Callable[[RingEntry], None]
) -> None:
    """Pushes what the record says was drawn, drawn again from its motion."""
    for latent in record.drawn:
        frames = pipeline.render_motion(reference, latent.motion)
        push(RingEntry(latent.latent, frames, latent.motion, before, record.behaviour, latent.motion))


def check_steps(records: list[ChunkRecord]) -> None:
    """Raises EngineError where records are missing between two of them, or another stream begins."""
    for before, record in pairwise(records):
        if record.step <= before.step:
            raise EngineError(
                f"step {record.step} follows step {before.step}: another stream begins there, replay it by itself"
            )
        if record.step > before.step + 1:
            raise EngineError(
                f"step {record.step} follows step {before.step}: {record.step - before.step - 1} records are missing"
            )


def beginning(records: list[ChunkRecord], context: int) -> int:
    """Index of the first record that needs nothing before the records: the stream's first, one with a keyframe, or a
    cut. context: samples of sound that are heard before a step. Raises EngineError if there is none.
    """
    held = records[0].first_sample  # sound is known from here on
    back = _rewound(records)
    for number, record in enumerate(records):
        held = min(held, record.first_sample)
        start = record.first_frame * SAMPLES_PER_FRAME
        cut = number > 0 and record.resets != records[number - 1].resets
        # What a later record goes back behind is made from a memory that no keyframe here holds.
        kept = bool(record.keyframe) and back[number] >= start
        if record.step == 0 or kept or (cut and start - context >= held):
            return number
    raise EngineError(
        f"none of the {len(records)} records from step {records[0].step} on can begin a replay: step 0, a keyframe "
        f"(there is one a minute), or a cut (set_reference, reset_memory) with {context / SAMPLE_RATE:.1f} s of sound "
        f"before it, is needed"
    )


def _rewound(records: list[ChunkRecord]) -> list[float]:
    """For each record, the earliest sample that a later record goes back to; inf for none."""
    earliest, found = math.inf, []
    for record in reversed(records):
        found.append(earliest)
        earliest = min(earliest, record.first_sample)
    return found[::-1]


def _ends(records: list[ChunkRecord]) -> list[int]:
    """For each record, the first frame after it that a later record does not take back."""
    ends: list[int] = []
    limit: int | None = None
    for record in reversed(records):
        end = record.first_frame + record.latents * FRAMES_PER_LATENT
        ends.append(end if limit is None else min(end, limit))
        back = (
            record.first_sample // SAMPLES_PER_FRAME
        )  # a skip may follow a rewind: sound tells how far it went
        limit = back if limit is None else min(limit, back)
    return ends[::-1]
