# SPDX-License-Identifier: Apache-2.0
"""One stretch of speech: a FIFO of samples that can be given back, and what is known about its end."""

from __future__ import annotations

from collections import deque

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE


class Utterance:
    """Samples float32 at 24 kHz waiting to be laid, in order.

    closed: no more will come; started: some of it was laid once; flowing: it is being laid now (it started and has
    not run dry); shown: the first frame with its sound has left; cancelled: interrupted; tail: only the fade of an
    interrupted one, not speech.
    """

    def __init__(
        self, name: str, *, first_push: float | None = None, tail: bool = False, rate: int = SAMPLE_RATE
    ) -> None:
        self.name = name
        self.rate = rate  # [Hz] at which it came: in its samples what is lost is counted
        self.first_push = first_push  # clock time of its first push into silence, for TTFF
        self.last_push = 0.0
        self.tail = tail
        self.buffered = 0
        self.closed = False
        self.started = False
        self.flowing = False
        self.shown = False
        self.cancelled = False
        self.dry: int | None = None  # content sample at which it ran dry while more was to come
        self._parts: deque[np.ndarray] = deque()

    def append(self, pcm: np.ndarray) -> None:
        """New samples behind the others."""
        if len(pcm):
            self._parts.append(pcm)
            self.buffered += len(pcm)

    def give_back(self, pcm: np.ndarray) -> None:
        """Samples that had been taken, before the others again."""
        if len(pcm):
            self._parts.appendleft(pcm)
            self.buffered += len(pcm)

    def take(self, count: int) -> np.ndarray:
        """Removes the next `count` samples (fewer if fewer are buffered)."""
        parts: list[np.ndarray] = []
        wanted = min(count, self.buffered)
        self.buffered -= wanted
        while wanted:
            part = self._parts.popleft()
            if len(part) > wanted:
                self._parts.appendleft(part[wanted:])
                part = part[:wanted]
            parts.append(part)
            wanted -= len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def peek(self, count: int) -> np.ndarray:
        """The next `count` samples (fewer if fewer are buffered), which stay."""
        parts: list[np.ndarray] = []
        wanted = min(count, self.buffered)
        for part in self._parts:
            if not wanted:
                break
            parts.append(part[:wanted])
            wanted -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def keep(self, count: int) -> None:
        """Forgets all but the next `count` samples."""
        kept = self.peek(count)
        self._parts.clear()
        self.buffered = 0
        self.append(kept)
