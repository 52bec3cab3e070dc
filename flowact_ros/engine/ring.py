# SPDX-License-Identifier: Apache-2.0
"""Frames that are made but not shown, and at every latent boundary between them the way back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowact_ros.engine.gaze import REST, Gaze
from flowact_ros.engine.interfaces import StreamState
from flowact_ros.timebase import FRAMES_PER_LATENT


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The stream right before one latent: the state before its step, and what the step made before it.

    All parts are immutable and shared, so a snapshot costs references. `resets`: generation of the character that the
    state was started from. gaze: where the look is.
    """

    state: StreamState
    latents: Any  # Latents of the whole step; None where a step ended
    done: int  # latents of the step that come before this boundary
    resets: int
    gaze: Gaze = REST


@dataclass(frozen=True, eq=False)
class RingEntry:
    """One latent's frames, with what is needed to make them again."""

    latent: int
    frames: np.ndarray  # uint8 [4, H, W, 3]
    motion: np.ndarray  # float32 [4, K]
    before: Snapshot
    behaviour: str
    own: np.ndarray  # float32 [4, K], as the sampler gave it: without the look that was told


class Ring:
    """Unshown frames in order. Bounded by its user: a step only starts when there is room for it."""

    def __init__(self) -> None:
        self._entries: deque[RingEntry] = deque()

    def __len__(self) -> int:
        """Latents held, a partly shown one included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[RingEntry]:
        return iter(self._entries)

    def push(self, entry: RingEntry) -> None:
        """Adds the next latent. Raises ValueError if it does not come after the last one."""
        if self._entries and entry.latent <= self._entries[-1].latent:
            raise ValueError(
                f"latent {entry.latent} pushed after latent {self._entries[-1].latent}: order is lost"
            )
        self._entries.append(entry)

    def entry(self, frame: int) -> RingEntry | None:
        """The entry that holds frame `frame`, if it is here."""
        latent = frame // FRAMES_PER_LATENT
        for entry in self._entries:
            if entry.latent == latent:
                return entry
            if entry.latent > latent:
                break
        return None

    def picture(self, frame: int) -> np.ndarray | None:
        """uint8 [H, W, 3] of frame `frame`, if it is here."""
        entry = self.entry(frame)
        return None if entry is None else entry.frames[frame % FRAMES_PER_LATENT]

    def unshown(self, frame: int) -> int:
        """Frames from `frame` on that are here."""
        left = ((e.latent + 1) * FRAMES_PER_LATENT - frame for e in self._entries)
        return sum(min(FRAMES_PER_LATENT, max(0, count)) for count in left)

    def drop_before(self, frame: int) -> None:
        """Forgets latents whose frames all lie before `frame`."""
        while self._entries and (self._entries[0].latent + 1) * FRAMES_PER_LATENT <= frame:
            self._entries.popleft()

    def truncate(self, latent: int) -> Snapshot | None:
        """Forgets `latent` and all after it; returns the snapshot before the first one forgotten, if any was."""
        snapshot = None
        while self._entries and self._entries[-1].latent >= latent:
            snapshot = self._entries.pop().before
        return snapshot
