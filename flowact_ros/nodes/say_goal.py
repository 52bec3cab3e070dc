# SPDX-License-Identifier: Apache-2.0
"""One goal of `say` on its way: what of it the engine was not given yet, how much of it left, how it ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from rclpy.action.server import ServerGoalHandle

from flowact_msgs.action import Say
from flowact_ros.dialogue.speech import Word
from flowact_ros.dialogue.speech_text import SpokenText
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

LONGEST_BREAK_FRAMES = 50
REST_TIMEOUT_S = 2.0  # for the last frame of an interrupted one
PAUSE_S = 0.12  # between two sentences, beside what the voice itself leaves


class SayGoal:
    """Ready audio, or sentences that become sound one after the other. `frame_left` is called in the pacing thread,
    under the server's lock; the rest in the executor."""

    def __init__(self, handle: ServerGoalHandle, name: str, *, sentences: Sequence[str] = ()) -> None:
        self.handle, self.name = handle, name
        self.request = handle.request
        self.sentences = deque(sentences)  # that nobody was asked to speak yet
        self.asked = False  # one is being made
        self.rate = SAMPLE_RATE
        self.rest = np.zeros(0, np.float32)  # what the engine was not given yet
        self.closed = False  # the engine knows that no more comes
        self.duration_s = 0.0  # of the sound that is known
        self.said = SpokenText()
        self.frames = 0  # that left with its sound
        self.others = 0  # frames without its sound, since the last one with it and since all of it is known
        self.over = False  # its frames have begun and ended
        self.cut: tuple[int, str] | None = None  # (error code, message) once it is interrupted
        self.cut_at = 0.0
        self.fault: tuple[int, str] | None = None  # why the rest of its text cannot be spoken
        self.turn_since = 0.0  # when nothing stood before it any more
        self.fed_back = 0.0
        self.told_s = -1.0  # words that began until then were told
        self.told_word = ""

    @property
    def spoken_s(self) -> float:
        """Seconds of its sound that left with frames."""
        return min(self.frames / FRAME_RATE, self.duration_s)

    @property
    def ready_s(self) -> float:
        """Seconds of sound that wait here for the engine."""
        return len(self.rest) / self.rate

    @property
    def complete(self) -> bool:
        """All of its sound is known."""
        return not self.sentences and not self.asked

    def take(self, text: str, pcm: np.ndarray, rate: int, words: Sequence[Word] = ()) -> None:
        """More sound, float32 [T]. The rate is that of the first one."""
        if self.duration_s:
            self.rest = np.concatenate([self.rest, np.zeros(round(PAUSE_S * self.rate), np.float32)])
            self.duration_s += PAUSE_S
        self.rate = rate
        self.rest = np.concatenate([self.rest, pcm]) if len(self.rest) else pcm
        start_s, self.duration_s = self.duration_s, self.duration_s + len(pcm) / rate
        if text:
            self.said.add(text, start_s, self.duration_s, words)

    def fail(self, code: int, reason: str) -> None:
        """No more sound can be made. What there is will be spoken."""
        self.fault = (code, reason)
        self.sentences.clear()

    def interrupt(self, code: int, reason: str) -> None:
        if self.cut is None:
            self.cut, self.cut_at = (code, reason), time.monotonic()
            self.rest, self.asked = self.rest[:0], False
            self.sentences.clear()

    def piece(self, most_s: float) -> tuple[np.ndarray, bool]:
        """The next samples to give, and whether they are the last ones."""
        size = max(1, int(most_s * self.rate))
        return self.rest[:size], self.complete and size >= len(self.rest)

    def frame_left(self, own: bool) -> None:
        """A frame left, with its sound or not. Silence put in where the engine was late is not the end of it."""
        if own:
            self.frames += 1
            self.others = 0
        elif self.frames:
            # What passes while its next sentence is made does not count: a slow voice may need longer than any break.
            self.others = self.others + 1 if self.complete else 0
            all_left = self.frames >= int(self.duration_s * FRAME_RATE)
            self.over = self.complete and (all_left or self.others > LONGEST_BREAK_FRAMES)

    def ended(self, now: float) -> bool:
        """Its last frame has left: only then is it known how much was spoken."""
        if self.cut is None:
            return self.over or (self.complete and not self.duration_s)
        return self.over or not self.frames or self.others > 0 or now - self.cut_at > REST_TIMEOUT_S

    def outcome(self) -> tuple[int, str]:
        """(error code, message) of its result."""
        trouble = self.cut or self.fault
        if trouble is not None:
            return trouble
        if not self.duration_s:
            text = self.request.text.strip()[:40]
            return Say.Result.NOTHING_TO_SAY, f"nothing of the text {text!r} can be pronounced"
        return Say.Result.NONE, ""

    def new_words(self) -> list[str]:
        """The words that began since it was last asked, with an empty one between two that are the same: so each can
        be told from the one before it."""
        words: list[str] = []
        if not self.frames:
            return words
        for word in self.said.begun(self.told_s, self.spoken_s):
            words += ["", word] if word == self.told_word else [word]
            self.told_word = word
        self.told_s = self.spoken_s
        return words
