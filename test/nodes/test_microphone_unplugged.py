# SPDX-License-Identifier: Apache-2.0
"""A microphone that is unplugged and comes back, and a clock that is set meanwhile, on a simulated sound card."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes import audio_capture, topics
from flowact_ros.nodes.audio_capture import AudioCapture
from flowact_ros.nodes.convert import from_time

pytestmark = pytest.mark.usefixtures("within")
DEVICE = {"name": "USB Microphone", "max_input_channels": 1, "default_samplerate": 16000.0}


class SoundCard:
    """What stands in for sounddevice."""

    PortAudioError = OSError

    def __init__(self) -> None:
        self.plugged = True
        self._terminate = self._initialize = self.check_input_settings = lambda **_: None

    def query_devices(self, device: Any = "all", kind: str = "") -> Any:
        return ([DEVICE] if self.plugged else []) if device == "all" else DEVICE

    def InputStream(self, **options: Any) -> Stream:  # noqa: N802 - as the library has it
        return Stream(self, **options)


class Stream:
    def __init__(self, card: SoundCard, **options: Any) -> None:
        self.card, self.options, self.ended = card, options, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def run(self) -> None:
        count = self.options["blocksize"]
        while self.card.plugged and not self.ended.wait(0.02):
            self.options["callback"](np.full((count, 1), 0.5, np.float32), count, None, None)

    def close(self, ignore_errors: bool) -> None:
        self.ended.set()
        self.thread.join(5.0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SoundCard:
    card = SoundCard()
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    monkeypatch.setattr(audio_capture, "RETRY_S", 0.1)
    monkeypatch.setattr(audio_capture, "SILENT_S", 0.3)
    return card


@pytest.fixture
def capture(card: SoundCard) -> Iterator[tuple[AudioCapture, list[AudioChunk], Callable[..., None]]]:
    """A node that listens, what it publishes, and `until(condition)`."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    values = {"role": "mic", "source": "microphone"}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = AudioCapture(context=context, parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard: list[AudioChunk] = []
    node.create_subscription(AudioChunk, topics.MIC, heard.append, topics.AUDIO_QOS)
    node.autostart()

    def until(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=0.02)

    yield node, heard, until
    node.stop()
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    context.try_shutdown()


def test_a_microphone_that_is_unplugged_comes_back(card: SoundCard, capture: Any) -> None:
    node, heard, until = capture
    until(lambda: len(heard) > 3)
    card.plugged = False
    until(lambda: "no input device found; plug in a microphone" in node.last_error)
    assert node.state == "active"
    card.plugged = True
    heard.clear()
    # Counted anew: whoever listens can tell. What was on its way before it was unplugged may come first.
    until(lambda: 0 in [chunk.first_sample for chunk in heard[:-3]] and not node._fault)


def test_a_sound_system_that_fails_for_a_moment_is_asked_again(card: SoundCard, capture: Any) -> None:
    """PortAudio lists devices while one is unplugged: that may fail, and without a start there is no end of it."""
    node, heard, until = capture
    until(lambda: len(heard) > 3)
    runs, failures = [True], iter(("Unanticipated host error", "Unanticipated host error", ""))

    def terminate() -> None:
        if not runs:
            raise card.PortAudioError("PortAudio not initialized")
        runs.clear()

    def initialize() -> None:
        if reason := next(failures, ""):
            raise card.PortAudioError(reason)
        runs.append(True)

    card._terminate, card._initialize = terminate, initialize
    card.plugged = False
    until(lambda: "sound devices cannot be listed: Unanticipated host error" in node.last_error)
    card.plugged = True
    heard.clear()
    until(lambda: len(heard) > 3 and not node._fault)


def test_blocks_follow_a_clock_that_is_set(capture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, heard, until = capture
    until(lambda: len(heard) > 3)
    real = node.now_ns
    monkeypatch.setattr(node, "now_ns", lambda: real() + 3600 * 10**9)
    until(lambda: from_time(heard[-1].header.stamp) - time.time_ns() > 3590 * 10**9)
