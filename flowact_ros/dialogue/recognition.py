# SPDX-License-Identifier: Apache-2.0
"""A recogniser at work in a thread of its own, behind a queue that knows what may be dropped.

A recogniser that cannot keep up drops the oldest partial requests; a final one is always answered, exactly once, though
without a text where so much waits behind it that nobody waits for this one any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flowact_ros.dialogue.hearing import Request
from flowact_ros.dialogue.recognizer import Hypothesis, Recognizer, RecognizerError

CAPACITY = 4  # requests that wait; final ones may be more, as many as are spoken
MOST_BEHIND_S = 30.0  # [s] of sound that waits behind a final request: it is left out then
REST = 2.0  # after a recognition nothing partial is begun for so many times as long as it took


@dataclass(frozen=True)
class Answer:
    """What a request brought. error: why there is no text; empty if there is."""

    request: Request
    hypothesis: Hypothesis
    error: str = ""


class Backlog:
    """Requests that wait, the oldest first. Not thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        self._capacity = capacity
        self._waiting: list[Request] = []
        self.dropped = 0  # partial requests that were never answered

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def seconds(self) -> float:
        """Of sound that waits."""
        return sum(request.end_s - request.start_s for request in self._waiting)

    def put(self, request: Request) -> None:
        """Partial requests about the same utterance are of no use any more: this one is about more of it."""
        kept = [other for other in self._waiting if other.final or other.utterance_id != request.utterance_id]
        while (
            len(kept) >= self._capacity and (old := next((r for r in kept if not r.final), None)) is not None
        ):
            kept.remove(old)
        if request.final or len(kept) < self._capacity:
            kept.append(request)
        self.dropped += len(self._waiting) + 1 - len(kept)
        self._waiting = kept

    def take(self) -> Request | None:
        return self._waiting.pop(0) if self._waiting else None


def same_sound(one: Request, other: Request) -> bool:
    """Are both about the same whole piece of an utterance?"""
    named = one.utterance_id == other.utterance_id and one.whole and other.whole
    return named and one.end_s == other.end_s


class Recognition:
    """Answers requests in a thread: `answer` is called there, once for each request that is not dropped.

    A final request about sound that was recognised ahead, in the pause before, costs nothing more. Partial texts in
    mid-sentence take a third of the time at most: on a slow computer there are fewer of them, so that the recogniser
    is free when a pause comes.
    """

    def __init__(
        self, recognizer: Recognizer, answer: Callable[[Answer], None], capacity: int = CAPACITY
    ) -> None:
        self._recognizer, self._answer = recognizer, answer
        self._backlog = Backlog(capacity)
        self._ahead: tuple[Request, Hypothesis] | None = None
        self._rests_until = float("-inf")
        self._work = threading.Condition()
        self._closing = self._busy = False
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="recognition", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait, the one that is being worked on not counted."""
        return len(self._backlog)

    @property
    def waiting_s(self) -> float:
        """Seconds of sound in them."""
        with self._work:
            return self._backlog.seconds

    @property
    def dropped(self) -> int:
        """Partial requests that were never answered."""
        return self._backlog.dropped + self._left_out

    def put(self, request: Request) -> None:
        with self._work:
            if not (request.final or request.whole) and time.monotonic() < self._rests_until:
                self._left_out += 1
                return
            self._backlog.put(request)
            self._work.notify_all()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Waits until all that was put has been answered; False if it was not within `timeout` [s]."""
        with self._work:
            return self._work.wait_for(lambda: not self._busy and not len(self._backlog), timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Ends the thread after the request that it works on; what waits is not answered. False if it still works."""
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._work:
                self._busy = False
                self._work.notify_all()
                self._work.wait_for(lambda: self._closing or len(self._backlog))
                request = None if self._closing else self._backlog.take()
                self._busy = request is not None
                behind_s = self._backlog.seconds
            if request is None:
                return
            late = request.final and behind_s > MOST_BEHIND_S
            self._answer(_too_late(request, behind_s) if late else self._recognize(request))

    def _recognize(self, request: Request) -> Answer:
        if self._ahead is not None and same_sound(self._ahead[0], request):
            return Answer(request, self._timed(self._ahead[1], request))
        began = time.monotonic()
        try:
            found = self._recognizer.recognize(request.pcm, final=request.final or request.whole)
            ended = time.monotonic()
            self._rests_until = ended + REST * (ended - began)
        except (
            Exception
        ) as error:  # whatever a backend's library raises: the thread has to live, and somebody waits
            kind = "" if isinstance(error, RecognizerError) else f"{type(error).__name__}: "
            return Answer(request, _nothing(request), kind + " ".join(str(error).split()))
        if request.whole:
            self._ahead = request, found
        return Answer(request, self._timed(found, request))

    @staticmethod
    def _timed(found: Hypothesis, request: Request) -> Hypothesis:
        """With the times of the sound that the request was cut from."""
        return replace(found, start_s=request.start_s, end_s=request.end_s, final=request.final)


def _nothing(request: Request) -> Hypothesis:
    """No text."""
    return Hypothesis("", 0.0, "", request.start_s, request.end_s, request.final)


def _too_late(request: Request, behind_s: float) -> Answer:
    """A room that is never silent would fill the memory, and be answered minutes after it has spoken."""
    reason = f"not recognised, since {behind_s:.0f} s of speech wait behind it: take a smaller model"
    return Answer(request, _nothing(request), reason)
