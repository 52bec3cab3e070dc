# SPDX-License-Identifier: Apache-2.0
"""Records of the steps that were made: with what they drew, and now and then with a keyframe."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, DrawnLatent, Pipeline, Reference
from flowact_ros.engine.keyframe import has_place_for_one, keyframe
from flowact_ros.engine.ring import RingEntry
from flowact_ros.engine.step import Step
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

KEYFRAME_LATENTS = 60 * FRAME_RATE // FRAMES_PER_LATENT  # a minute of latents between keyframes at most
KEYFRAME_RECORDS = 200  # and so many records: a history of 256 of them then always holds a keyframe
SAMPLED_EVERY = 24  # rows and columns of a picture of which a pixel is kept

_LOG = logging.getLogger(__name__)


class Records:
    """Completes the records of one stream and hands them on, from the thread that makes the steps.

    listener: gets every record; on_reference: gets a character's reference before the first record that shows it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.listener: Callable[[ChunkRecord], None] | None = None
        self.on_reference: Callable[[Reference], None] | None = None
        self._pipeline = pipeline
        self._keyframe_at: int | None = None  # first latent of the last step that a replay can begin with
        self._since = 0  # records after it
        self._shown = ""  # id of the reference that was told last

    def tell(self, step: Step, drawn: Sequence[RingEntry]) -> None:
        """A step was made; drawn: what it gave the ring. Whoever listens cannot stop the stream."""
        if self.listener is None:
            return
        try:
            if step.reference.id != self._shown and self.on_reference is not None:
                self.on_reference(step.reference)
            self._shown = step.reference.id
            self.listener(self._completed(step, drawn))
        except Exception:
            _LOG.exception("on_chunk failed for step %d", step.record.step)

    def _completed(self, step: Step, drawn: Sequence[RingEntry]) -> ChunkRecord:
        saved = b""
        if self._due(step) and has_place_for_one(step):
            fresh = not step.record.step and not step.before.state.latent_index  # from its reference alone
            saved = b"" if fresh else keyframe(self._pipeline, step)
            self._keyframe_at, self._since = step.latent, 0
        self._since += 1
        return replace(
            step.record,
            drawn=tuple(drawn_latent(entry) for entry in drawn),
            keyframe=saved,
            provenance=self._pipeline.provenance,
        )

    def _due(self, step: Step) -> bool:
        at = self._keyframe_at
        taken_back = at is None or step.latent <= at  # a rewind goes before the step that had the keyframe
        return taken_back or step.latent - at >= KEYFRAME_LATENTS or self._since >= KEYFRAME_RECORDS


def drawn_latent(entry: RingEntry) -> DrawnLatent:
    """What is kept of a latent's frames."""
    return DrawnLatent(entry.latent, entry.motion, digest_of(entry.frames), sample(entry.frames[0]))


def digest_of(frames: np.ndarray) -> int:
    """First 8 bytes of the BLAKE2b hash of uint8 frames [n, H, W, 3], as a little-endian number."""
    digest = hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def sample(rgb: np.ndarray) -> np.ndarray:
    """A pixel of each square of `SAMPLED_EVERY` rows and columns of uint8 [H, W, 3], from its middle: [h, w, 3]."""
    offset = min(SAMPLED_EVERY // 2, *(side // 2 for side in rgb.shape[:2]))
    return np.ascontiguousarray(rgb[offset::SAMPLED_EVERY, offset::SAMPLED_EVERY])
