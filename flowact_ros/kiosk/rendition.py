# SPDX-License-Identifier: Apache-2.0
"""Which pictures a page gets: as they come over a good link, fewer and smaller ones over a bad one.

A link is judged by what it does, not by what it claims: frames that had to be dropped in front of it, and the time from
a frame's departure to the page's word that it has arrived.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from flowact_ros.kiosk.protocol import AUTO, FULL, LOW
from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg


@dataclass(frozen=True)
class Rendition:
    """`every`: each n-th frame is sent; `quality`: of the JPEG, None: as published; `shrink`: 2 halves both sides."""

    every: int = 1
    quality: int | None = None
    shrink: int = 1

    def of(self, jpeg: bytes) -> bytes:
        """The frame as this rendition has it. Raises MediaError for what is no JPEG."""
        if self.quality is None:
            return jpeg
        return encode_jpeg(decode_jpeg(jpeg)[:: self.shrink, :: self.shrink], self.quality)


# Of a face of 480 lines, measured: 3.7, 2.5, 1.1, 0.65 and 0.17 Mbit/s; the sound is 0.38 beside each.
LADDER = (
    Rendition(),
    Rendition(quality=65),
    Rendition(every=2, quality=50),
    Rendition(every=3, quality=40),
    Rendition(every=5, quality=40, shrink=2),
)
LOW_LEVEL = 3  # what a page that wishes for low bandwidth gets at the best

ANSWER_S = 0.4  # how often a page tells what has arrived
LATE_S = 0.5  # a link on which a frame takes longer is too slow for what is sent
PROBE_S = 1.0  # between frames on a link that does not answer
SILENT_S = 2.0  # without word from a page that used to answer
PATIENCE_S = 10.0  # without trouble before better pictures are tried
LONGEST_PATIENCE_S = 160.0
SETTLE_S = 2.0  # after a step down: what was sent before must have drained
HASTY_S = 12.0  # a step up that is taken back within so long was a mistake
MOST_UNANSWERED = 256


class Link:
    """How good the way to one page is, and the place on the ladder that fits it. Times are seconds of one clock."""

    def __init__(self, now_s: float) -> None:
        self.level = 0
        self.delay_s: float | None = None  # of the last frame the page has told of
        self._best, self._worst = 0, len(LADDER) - 1
        self._sent: deque[tuple[int, float]] = deque(maxlen=MOST_UNANSWERED)  # not answered yet
        self._answered_s: float | None = None
        self._calm_since_s = self._stepped_s = now_s
        self._raised_s = float("-inf")
        self._patience_s = PATIENCE_S
        self._dropped = 0

    @property
    def rendition(self) -> Rendition:
        return LADDER[self.level]

    def wish(self, want: str) -> None:
        """What somebody at the page has chosen."""
        self._best = {AUTO: 0, FULL: 0, LOW: LOW_LEVEL}[want]
        self._worst = 0 if want == FULL else len(LADDER) - 1
        self.level = min(max(self.level, self._best), self._worst)

    def full(self, now_s: float) -> bool:
        """Is what was sent before still on its way? More of it would only be later: buffers between here and the page
        hold seconds of pictures. Never of a page that does not answer at all, and for a second at most: an answer may
        be lost with the page's patience, and only a frame brings the next one."""
        if self._answered_s is None or not self._sent or now_s - self._sent[-1][1] > PROBE_S:
            return False
        return now_s - self._sent[0][1] > ANSWER_S + LATE_S

    def sent(self, sequence: int, now_s: float) -> None:
        """A frame has been queued for the page."""
        self._sent.append((sequence, now_s))

    def got(self, sequence: int, now_s: float) -> None:
        """The page has it."""
        while self._sent and self._sent[0][0] <= sequence:
            number, sent_s = self._sent.popleft()
            if number == sequence:
                self.delay_s, self._answered_s = now_s - sent_s, now_s

    def tick(self, dropped: int, now_s: float) -> None:
        """To be called about once a second. `dropped`: frames lost in front of this page so far."""
        lost, self._dropped = dropped - self._dropped, dropped
        if not self._troubled(lost, now_s):
            if now_s - self._calm_since_s >= self._patience_s and self.level > self._best:
                self.level -= 1
                self._calm_since_s = self._raised_s = now_s
            return
        self._calm_since_s = now_s
        if now_s - self._stepped_s < SETTLE_S or self.level >= self._worst:
            return
        if now_s - self._raised_s < HASTY_S:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        elif now_s - self._stepped_s > LONGEST_PATIENCE_S:
            self._patience_s = PATIENCE_S
        self.level += 1
        self._stepped_s, self.delay_s = now_s, None

    def _troubled(self, lost: int, now_s: float) -> bool:
        if lost > 0 or (self.delay_s is not None and self.delay_s > LATE_S):
            return True
        waits = bool(self._sent) and now_s - self._sent[0][1] > SILENT_S
        return waits and self._answered_s is not None and now_s - self._answered_s > SILENT_S
