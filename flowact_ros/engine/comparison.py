# SPDX-License-Identifier: Apache-2.0
"""How frames that were made again compare with what the records say was drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord
from flowact_ros.engine.records import digest_of, sample
from flowact_ros.engine.ring import RingEntry
from flowact_ros.timebase import FRAMES_PER_LATENT

LEAST_PSNR = 30.0  # [dB] below it two runtimes do not draw the same


@dataclass
class Comparison:
    """Call it with every latent that a replay draws (`replay(drawn=...)`).

    latents: compared; same_frames, same_motion: of them, bit for bit; motion_error: greatest difference of a control;
    motion_from: step from which on motion differs, None: it does not; uncompared: drawn again and not recorded.
    """

    latents: int = 0
    same_frames: int = 0
    same_motion: int = 0
    motion_error: float = 0.0
    motion_from: int | None = None
    uncompared: int = 0
    _squared: list[float] = field(default_factory=list)  # mean squared error of each latent, in levels of 255

    def __call__(self, record: ChunkRecord, entry: RingEntry) -> None:
        known = next((drawn for drawn in record.drawn if drawn.latent == entry.latent), None)
        if known is None:  # live it came too late to be seen, or its step was broken off
            self.uncompared += 1
            return
        self.latents += 1
        self.same_frames += known.digest == digest_of(entry.frames)
        same = np.array_equal(known.motion, entry.motion)
        self.same_motion += same
        if not same:
            off = np.abs(known.motion - entry.motion).max() if known.motion.shape == entry.motion.shape else math.inf
            self.motion_error = max(self.motion_error, float(off))
            self.motion_from = record.step if self.motion_from is None else self.motion_from
        pixels = sample(entry.frames[0])
        if pixels.shape != known.pixels.shape:
            self._squared.append(255.0**2)
        else:
            self._squared.append(float(np.square(pixels.astype(np.float64) - known.pixels).mean()))

    @property
    def frames(self) -> int:
        return self.latents * FRAMES_PER_LATENT

    @property
    def exact(self) -> bool:
        """Something was compared, and all of it is the same."""
        return 0 < self.latents == self.same_frames == self.same_motion

    @property
    def psnr(self) -> tuple[float, float]:
        """[dB] of all latents together and of the worst one, on the pixels that were kept; inf where they are equal."""
        squared = self._squared or [0.0]
        return _decibels(sum(squared) / len(squared)), _decibels(max(squared))

    @property
    def alike(self) -> bool:
        """The same motion, drawn so that nobody sees a difference."""
        return 0 < self.latents == self.same_motion and self.psnr[1] >= LEAST_PSNR


def _decibels(squared: float) -> float:
    return math.inf if squared == 0 else 10 * math.log10(255.0**2 / squared)
