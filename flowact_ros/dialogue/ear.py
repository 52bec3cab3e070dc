# SPDX-License-Identifier: Apache-2.0
"""A microphone's sound, of any rate and cut, through resampling and voice activity into utterances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowact_ros.dialogue.echo import EchoFilter
from flowact_ros.dialogue.hearing import Hearing, Request
from flowact_ros.dialogue.recognizer import RATE
from flowact_ros.dialogue.vad import VoiceActivityDetector, VoiceEvent
from flowact_ros.media.resample import StreamResampler

_BLOCK = RATE // 10  # sound is heard in pieces of at most so many samples, whatever comes at once


class Ear:
    """Detector and hearing over one stream. Both count the same samples, those at RATE."""

    def __init__(
        self,
        sample_rate: int,
        detector: VoiceActivityDetector,
        hearing: Hearing,
        echo: Callable[[], EchoFilter] | None = None,
    ) -> None:
        """detector and hearing: for sound at RATE; echo: makes what takes the robot's voice out of a stream."""
        self.sample_rate = sample_rate
        self._make_echo = echo
        self._echo = echo() if echo else None
        self._resampler = StreamResampler(sample_rate, RATE)
        self._detector, self.hearing = detector, hearing
        self._heard = 0  # samples, at the microphone's rate

    @property
    def detector(self) -> VoiceActivityDetector:
        return self._detector

    @property
    def seconds(self) -> float:
        """Sound heard since the stream began: where the next sample is on the time axis of what comes out."""
        return self._heard / self.sample_rate

    def hear(self, pcm: np.ndarray, start_ns: int = 0) -> tuple[list[VoiceEvent], list[Request]]:
        """float32 mono [T] at the microphone's rate -> voices that began or ended, and what is to be recognised.

        start_ns: when its first sample was heard, on the clock by which the robot's own voice is told.
        """
        sound = self._resampler.push(pcm)
        if self._echo is not None:
            sound = self._echo.push(sound, start_ns)
        self._heard += len(pcm)
        voices: list[VoiceEvent] = []
        requests: list[Request] = []
        for start in range(0, len(sound), _BLOCK):
            block = sound[start : start + _BLOCK]
            events = self._detector.push(block)
            voices += events
            requests += self.hearing.push(block, events, self._detector.quiet_since_s)
        return voices, requests

    def finish(self) -> list[Request]:
        """The stream ends, or is not listened to any more; what comes next is a new one."""
        requests = self.hearing.finish()
        self._detector.reset()
        self._resampler = StreamResampler(self.sample_rate, RATE)
        self._echo = self._make_echo() if self._make_echo else None
        self._heard = 0
        return requests
