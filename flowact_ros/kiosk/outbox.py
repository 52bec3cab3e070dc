# SPDX-License-Identifier: Apache-2.0
"""The bounded queue in front of one page: a slow page loses old frames, never the stream its pace."""

from __future__ import annotations

from collections import deque

from flowact_ros.kiosk.protocol import AUDIO, FRAME, HELLO, STATE

MAX_FRAMES = 12  # 480 ms: an older frame would be drawn late anyway
MAX_AUDIO_SECONDS = 2.0
_ORDER = (HELLO, STATE, AUDIO, FRAME)  # a frame that is late is shown a little later, late sound is a gap


class Outbox:
    """Messages of a kind in order of arrival; sound goes before pictures. Not thread-safe: it belongs to one loop.

    Beyond `max_frames` the oldest frame goes, beyond `max_audio_seconds` the oldest sound, and only the newest state
    is kept. `dropped_frames` and `dropped_audio` count what went.
    """

    def __init__(self, max_frames: int = MAX_FRAMES, max_audio_seconds: float = MAX_AUDIO_SECONDS) -> None:
        self.max_frames = max_frames
        self.max_audio_seconds = max_audio_seconds
        self.dropped_frames = 0
        self.dropped_audio = 0
        self._queues: dict[int, deque[tuple[float, bytes]]] = {kind: deque() for kind in _ORDER}
        self._audio_seconds = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, kind: int, message: bytes, seconds: float = 0.0) -> None:
        """Queues one packed message; `seconds` is the length of its sound."""
        queue = self._queues[kind]
        if kind == STATE:
            queue.clear()
        queue.append((seconds, message))
        self._audio_seconds += seconds
        while kind == FRAME and len(queue) > self.max_frames:
            queue.popleft()
            self.dropped_frames += 1
        while self._audio_seconds > self.max_audio_seconds + 1e-9:
            self._audio_seconds -= self._queues[AUDIO].popleft()[0]
            self.dropped_audio += 1

    def get(self) -> bytes | None:
        """The next message, or None when there is none."""
        for kind in _ORDER:
            if self._queues[kind]:
                seconds, message = self._queues[kind].popleft()
                self._audio_seconds -= seconds
                return message
        return None
