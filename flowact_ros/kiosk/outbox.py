# SPDX-License-Identifier: Apache-2.0
"""The bounded queue in front of one page: a slow page loses old frames, never the stream its pace."""

from __future__ import annotations

from collections import deque

from flowact_ros.kiosk.protocol import AUDIO, FRAME, STATE

MAX_FRAMES = 12  # 480 ms: an older frame would be drawn late anyway
MAX_AUDIO_SECONDS = 2.0


class Outbox:
    """Messages in order of arrival. Not thread-safe: it belongs to the server's loop.

    Beyond `max_frames` the oldest frame goes, beyond `max_audio_seconds` the oldest sound, and only the newest state
    is kept. `dropped_frames` and `dropped_audio` count what went.
    """

    def __init__(self, max_frames: int = MAX_FRAMES, max_audio_seconds: float = MAX_AUDIO_SECONDS) -> None:
        self.max_frames = max_frames
        self.max_audio_seconds = max_audio_seconds
        self.dropped_frames = 0
        self.dropped_audio = 0
        self._queue: deque[tuple[int, float, bytes]] = deque()
        self._frames = 0
        self._audio_seconds = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, kind: int, message: bytes, seconds: float = 0.0) -> None:
        """Queues one packed message; `seconds` is the length of its sound."""
        if kind == STATE:
            self._drop_oldest(STATE)
        self._queue.append((kind, seconds, message))
        self._count(kind, seconds, 1)
        while self._frames > self.max_frames and self._drop_oldest(FRAME):
            self.dropped_frames += 1
        while self._audio_seconds > self.max_audio_seconds + 1e-9 and self._drop_oldest(AUDIO):
            self.dropped_audio += 1

    def get(self) -> bytes | None:
        """The next message, or None when there is none."""
        if not self._queue:
            return None
        kind, seconds, message = self._queue.popleft()
        self._count(kind, seconds, -1)
        return message

    def _drop_oldest(self, kind: int) -> bool:
        for index, (queued, seconds, _) in enumerate(self._queue):
            if queued == kind:
                del self._queue[index]
                self._count(kind, seconds, -1)
                return True
        return False

    def _count(self, kind: int, seconds: float, sign: int) -> None:
        if kind == FRAME:
            self._frames += sign
        elif kind == AUDIO:
            self._audio_seconds += sign * seconds
