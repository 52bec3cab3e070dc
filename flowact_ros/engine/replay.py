# SPDX-License-Identifier: Apache-2.0
"""The frames of a session again, from the records of its steps.

Same machine kind, backend and thread count: the same frames, bit by bit, rewinds and cuts included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Frame, Pipeline, Reference, SpeechSpan
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot
from flowact_ros.engine.step import Step, make
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLES_PER_FRAME, SAMPLES_PER_LATENT


class _Track:
    """Sound that the records so far hold, with whose it is."""

    def __init__(self) -> None:
        self._base = 0  # content time of _pcm[0]
        self._pcm = np.zeros(0, np.float32)
        self._spans: list[SpeechSpan] = []

    def lay(self, start: int, pcm: np.ndarray, spans: tuple[SpeechSpan, ...]) -> None:
        known = self._base + len(self._pcm)
        if not self._base <= start <= known:
            raise EngineError(
                f"a record's sound begins at sample {start}: it is known in [{self._base}, {known}]"
            )
        self._pcm = np.concatenate([self._pcm[: start - self._base], pcm])
        cut = [SpeechSpan(s.start, min(s.end, start), s.utterance_id) for s in self._spans if s.start < start]
        self._spans = [*cut, *spans]

    def read(self, start: int, end: int) -> np.ndarray:
        out = np.zeros(end - start, np.float32)
        first, last = max(start, self._base), min(end, self._base + len(self._pcm))
        if last > first:
            out[first - start : last - start] = self._pcm[first - self._base : last - self._base]
        return out

    def trim(self, start: int) -> None:
        """Forgets what lies before `start`."""
        cut = max(0, start - self._base)
        self._pcm, self._base = self._pcm[cut:], self._base + cut
        self._spans = [s for s in self._spans if s.end > start]

    def speaker(self, start: int, end: int) -> str | None:
        """Who sounds longest in [start, end)."""
        overlaps = [(min(s.end, end) - max(s.start, start), s.utterance_id) for s in self._spans]
        sounding = [overlap for overlap in overlaps if overlap[0] > 0]
        return max(sounding, key=lambda o: o[0])[1] if sounding else None


def replay(
    pipeline: Pipeline, references: Mapping[str, Reference], records: Iterable[ChunkRecord]
) -> Iterator[Frame]:
    """Records in order, from the first step -> the frames that the session made and did not take back.

    references: by ChunkRecord.reference_id. Stamps count from 0. Frames that the session skipped repeat the picture
    before them, as live. Raises EngineError if a record or a reference is missing.
    """
    records = list(records)
    if not records:
        return
    ends = _ends(records)
    track, ring, now = _Track(), Ring(), None
    shown, picture, behaviour = 0, None, ""
    for record, end in zip(records, ends, strict=True):
        if record.reference_id not in references:
            raise EngineError(f"step {record.step} shows reference {record.reference_id!r}: it was not given")
        reference = references[record.reference_id]
        if now is None:
            state, decoder = pipeline.start(reference, record.seed), pipeline.start_decoder(reference)
            now = Snapshot(state, None, 0, decoder, record.resets)
        snapshot = ring.truncate(record.first_sample // SAMPLES_PER_LATENT)
        if snapshot is not None:
            now = snapshot
        start = record.first_frame * SAMPLES_PER_FRAME
        stop = start + record.latents * SAMPLES_PER_LATENT
        used = record.pcm[: stop - record.first_sample]
        track.lay(record.first_sample, used, record.spans)
        look = record.pcm[len(used) :]
        pcm = np.concatenate([track.read(start - pipeline.context_samples, stop), look])
        now = make(pipeline, Step(now, pcm, record, reference), ring.push).after
        while shown < end:
            entry: RingEntry | None = ring.entry(shown)
            if entry is not None:
                picture, behaviour = entry.frames[shown % FRAMES_PER_LATENT], entry.behaviour
            if picture is None:
                raise EngineError(
                    f"the records begin at frame {record.first_frame}: frame {shown} is not in them"
                )
            at = shown * SAMPLES_PER_FRAME
            who = track.speaker(at, at + SAMPLES_PER_FRAME)
            yield Frame(
                index=shown,
                pts=shown / FRAME_RATE,
                rgb=picture,
                audio=track.read(at, at + SAMPLES_PER_FRAME),
                utterance_id=who or "",
                behaviour=behaviour or ("idle" if who is None else "speaking"),
                speaking=who is not None,
                repeated=entry is None,
            )
            shown += 1
        ring.drop_before(shown)
        track.trim(min(shown * SAMPLES_PER_FRAME, stop) - pipeline.context_samples - SAMPLES_PER_LATENT)


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
