# SPDX-License-Identifier: Apache-2.0
"""The robot's own voice in its microphone: what to do about it.

Modes, of which a robot takes the simplest that it gets along with:

- `mute`: nothing is heard while the robot speaks. Needs nothing, and nobody can interrupt by voice.
- `threshold`: a voice counts where the microphone is louder than the echo can be (`echo_threshold`).
- `cancel`: an adaptive filter takes the echo away first, so that softer voices count as well (`echo_canceller`).
- `none`: the microphone has no echo: a headset, or a device that cancels it itself.

What the robot plays is known to the sample (the topic `audio`), and so is when: this module lays it beside what the
microphone hears. Time is counted in samples, never read from a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Protocol

import numpy as np

from flowact_ros.dialogue.vad_silero import SileroVadConfig
from flowact_ros.media.resample import StreamResampler
from flowact_ros.timebase import ENCODER_RATE

MUTE, THRESHOLD, CANCEL, NONE = MODES = ("mute", "threshold", "cancel", "none")

RATE = ENCODER_RATE  # [Hz] of everything in here
HOP = RATE // 100  # samples that are judged at once: 10 ms
KEPT = 5 * RATE  # samples of what was played that are remembered
MOST_WAIT = RATE // 4  # samples that the microphone waits for news of what is played
OFF_BY = RATE // 50  # samples by which the two may be laid wrong before they are laid anew
JUMP = RATE // 2  # farther off than this, sound was lost or a clock was set: it is not waited for
WINDOW = 5 * RATE  # samples of the microphone whose stamps are compared


class EchoError(ValueError):
    """A setting makes no sense, or a package is missing: one line."""


class Suppressor(Protocol):
    """The microphone without the echo."""

    delay: int  # samples

    def describe(self) -> str:
        """What is known of the echo, for diagnostics. Before it is, nobody is heard while the robot speaks."""
        ...

    def push(self, mic: np.ndarray, played: np.ndarray) -> np.ndarray:
        """float32 [n * HOP] of the microphone and of what was played meanwhile -> as many samples of others' voices.

        Sample k of all outputs is sample k of all inputs, `delay` samples later.
        """
        ...


def load_suppressor(mode: str) -> Suppressor | None:
    """That of a mode; None for those that have none. Raises EchoError, with the remedy for a missing package."""
    from flowact_ros.dialogue.echo_canceller import Canceller
    from flowact_ros.dialogue.echo_threshold import Threshold

    if mode not in MODES:
        raise EchoError(f"unknown echo mode {mode!r}; available: {', '.join(MODES)}")
    if mode == THRESHOLD:
        return Threshold()
    return Canceller() if mode == CANCEL else None


def strict(config: SileroVadConfig) -> SileroVadConfig:
    """For what a suppressor leaves: shreds of the robot's voice are voices, too, but short and blurred ones."""
    threshold, onset_s = max(config.threshold, 0.6), max(config.onset_s, 0.128)
    return replace(
        config,
        threshold=threshold,
        release=max(config.release, threshold - 0.15),
        onset_s=onset_s,
        onset_window_s=max(config.onset_window_s, 2 * onset_s),
    )


class Played:
    """What the robot played lately, by when."""

    def __init__(self) -> None:
        self._sound = np.zeros(0, np.float32)
        self._resampler: StreamResampler | None = None
        self._pushed = 0  # samples at the source's rate since the stream was laid
        self._begin = 0.0  # [samples] where it was laid
        self.end: int | None = None  # the sample after the last one known

    def push(self, pcm: np.ndarray, rate: int, start_ns: int) -> None:
        """float32 mono [T]; start_ns: when its first sample is to be heard."""
        start = start_ns * RATE / 1e9
        expected = self._begin + self._pushed * RATE / rate
        stream = self._resampler
        if stream is None or stream.src != rate or abs(start - expected) > OFF_BY:
            stream = self._resampler = StreamResampler(rate, RATE, quality="MQ")
            self._lay(round(start))
            self._begin, self._pushed = start, 0
        self._pushed += len(pcm)
        self._append(stream.push(pcm))

    def _lay(self, start: int) -> None:
        """Goes on at `start`: silence in between, or what was known from there on is forgotten."""
        if self.end is None or start - self.end > KEPT or self.end - start > len(self._sound):
            self._sound, self.end = np.zeros(0, np.float32), start
        elif start >= self.end:
            self._append(np.zeros(start - self.end, np.float32))
        else:
            self._sound, self.end = self._sound[: start - self.end], start

    def _append(self, sound: np.ndarray) -> None:
        assert self.end is not None
        self._sound = np.concatenate([self._sound, sound])[-KEPT:]
        self.end += len(sound)

    def read(self, start: int, count: int) -> np.ndarray:
        """Silence where nothing is known."""
        out = np.zeros(count, np.float32)
        if self.end is None:
            return out
        first = self.end - len(self._sound)
        low, high = max(start, first), min(start + count, self.end)
        if high > low:
            out[low - start : high - start] = self._sound[low - first : high - first]
        return out


class EchoFilter:
    """One microphone's stream, at RATE, without the robot's voice.

    Both are laid on one axis by their stamps. A message may be stamped late, as it came, but never early: what counts
    is the earliest of the last seconds.
    """

    def __init__(self, suppressor: Suppressor, played: Played) -> None:
        self._suppressor, self._played = suppressor, played
        self._waiting = np.zeros(0, np.float32)  # of the microphone
        self._taken = 0  # samples of it that were looked at
        self._pushed = 0
        self._offsets: deque[tuple[int, int]] = deque()  # (pushed, where the stream began by that stamp)
        self._origin: int | None = None  # where it began, as it is laid
        self._skip = suppressor.delay

    def push(self, mic: np.ndarray, start_ns: int) -> np.ndarray:
        """float32 [T], whose first sample was heard at `start_ns` -> what is ready of the output, in order."""
        self._align(start_ns)
        self._pushed += len(mic)
        self._waiting = np.concatenate([self._waiting, mic])
        count = self._ready() // HOP * HOP
        if not count:
            return np.zeros(0, np.float32)
        assert self._origin is not None
        sound, self._waiting = self._waiting[:count], self._waiting[count:]
        out = self._suppressor.push(sound, self._played.read(self._origin + self._taken, count))
        self._taken += count
        skipped = min(self._skip, len(out))
        self._skip -= skipped
        return out[skipped:]

    def _align(self, start_ns: int) -> None:
        began = start_ns * RATE // 1_000_000_000 - self._pushed
        if self._origin is None or abs(began - self._offsets[-1][1]) > JUMP:
            self._offsets.clear()
        while self._offsets and self._offsets[-1][1] >= began:
            self._offsets.pop()
        self._offsets.append((self._pushed, began))
        while self._offsets[0][0] < self._pushed - WINDOW:
            self._offsets.popleft()
        earliest = self._offsets[0][1]
        if self._origin is None or abs(earliest - self._origin) > OFF_BY:
            self._origin = earliest

    def _ready(self) -> int:
        """Samples that need not wait: the robot's voice at that time is known, or nobody plays anything."""
        assert self._origin is not None
        end = self._origin + self._taken + len(self._waiting)
        behind = 0 if self._played.end is None else end - self._played.end
        return len(self._waiting) if behind > MOST_WAIT else len(self._waiting) - max(0, behind)
