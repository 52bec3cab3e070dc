# SPDX-License-Identifier: Apache-2.0
"""The player on a simulated sound card, whose clock runs by itself and which can be unplugged."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes import audio_player, loudspeaker, topics
from flowact_ros.nodes.audio_player import AudioPlayer
from flowact_ros.nodes.convert import NANOSECONDS, audio_message, to_time
from flowact_ros.nodes.stamp_clock import ARRIVAL_NS, LEAD_NS, StampClock
from flowact_ros.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

pytestmark = pytest.mark.usefixtures("within")

RATE = 48000
PPM = 2000.0  # an absurd crystal: 8 ms in the seconds of this test, were it not corrected for
QUEUE_S = 0.03  # from the callback to the loudspeaker
DEVICES = [
    {"name": "Built-in Microphone", "max_input_channels": 2, "max_output_channels": 0},
    {"name": "USB Speaker", "max_input_channels": 0, "max_output_channels": 2},
]


class PortAudioError(Exception):
    pass


class SoundCard:
    """What stands in for sounddevice. `heard`: (true time of the first sample, samples) of every block."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.plugged = True
        self.rescans = 0
        self.heard: list[tuple[float, np.ndarray]] = []

    def _terminate(self) -> None:
        self.rescans += 1

    def _initialize(self) -> None:
        return

    def query_devices(self, device: Any = "all", kind: str = "") -> Any:
        devices = DEVICES if self.plugged else DEVICES[:1]
        return devices if device == "all" else {**DEVICES[1], "default_samplerate": float(RATE)}

    def OutputStream(self, **options: Any) -> Stream:  # noqa: N802 - as the library has it
        return Stream(self, **options)


class Stream:
    latency = QUEUE_S

    def __init__(self, card: SoundCard, **options: Any) -> None:
        self.card, self.options, self.ended = card, options, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def run(self) -> None:
        count, channels = self.options["blocksize"], self.options["channels"]
        began, n = time.monotonic(), 0
        while self.card.plugged:
            due = began + n * count / (RATE * (1 + PPM * 1e-6))
            if self.ended.wait(max(0.0, due - time.monotonic())):
                return
            data = np.zeros((count, channels), np.float32)
            now = time.monotonic()
            queue_s = due + QUEUE_S - now  # a late call finds a shorter queue
            times = types.SimpleNamespace(currentTime=now - 5.0, outputBufferDacTime=now - 5.0 + queue_s)
            self.options["callback"](data, count, times, None)
            assert (data[:, 0] == data[:, 1]).all()
            self.card.heard.append((due + QUEUE_S, data[:, 0].copy()))
            n += 1

    def close(self, ignore_errors: bool) -> None:
        self.ended.set()
        self.thread.join(5.0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SoundCard:
    card = SoundCard()
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    return card


class Player:
    """A player, and whoever publishes what it hears, in one context; spun by the caller."""

    def __init__(self, **values: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = AudioPlayer(context=self.context, parameter_overrides=overrides)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publisher = self.node.create_publisher(AudioChunk, topics.AUDIO, topics.AUDIO_QOS)
        self.node.autostart()

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end
            self.executor.spin_once(timeout_sec=0.02)

    def speak(self, seconds: float, off_s: float = 0.0) -> float:
        """Publishes clicks as the generator would, by stamps that are `off_s` off. Returns when the first one is."""
        t0 = time.monotonic() + 0.2
        offset = time.time() - time.monotonic() + off_s
        for frame in range(int(seconds * 25)):
            at = t0 + frame / 25
            self.until(lambda at=at: time.monotonic() >= at - LEAD_NS / NANOSECONDS)
            pcm = np.zeros(SAMPLES_PER_FRAME, np.float32)
            if frame % 5 == 0:
                pcm[:24] = 0.9
            stamp = to_time(round((at + offset) * NANOSECONDS))
            self.publisher.publish(
                audio_message(pcm, SAMPLE_RATE, stamp, first_sample=frame * SAMPLES_PER_FRAME, sequence=frame)
            )
        self.until(lambda: time.monotonic() > t0 + seconds + 0.2)
        return t0

    def close(self) -> None:
        self.node.stop()
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def play(card: SoundCard) -> Iterator[Callable[..., Player]]:
    made: list[Player] = []

    def make(**values: Any) -> Player:
        made.append(Player(**values))
        return made[-1]

    yield make
    for player in made:
        player.close()


def clicks(card: SoundCard) -> np.ndarray:
    """[s] true times at which clicks were heard."""
    times = []
    for at, block in card.heard:
        for n in np.flatnonzero(block > 0.2):
            t = at + n / RATE
            if not times or t - times[-1] > 0.1:
                times.append(t)
    return np.array(times)


def spoken(card: SoundCard, player: Player, good: Callable[[np.ndarray], bool], **how: float) -> None:
    """Speaks until the clicks of 3 s are `good`, given the errors [s] of those that were heard.

    A machine that does too much else brings some too late, for a while; a wrong clock never gets there.
    """
    found = []
    for _ in range(20):
        before = len(clicks(card))
        t0 = player.speak(3.0, **how)
        errors = (clicks(card)[before:] - t0 + 0.1) % 0.2 - 0.1
        if good(errors):
            return
        found.append(np.round(errors, 3).tolist())
    raise AssertionError(found)


def test_clicks_are_heard_at_their_stamps(card: SoundCard, play: Callable[..., Player]) -> None:
    player = play(device="speaker")
    player.until(lambda: card.heard)
    # What lips and sound may be apart.
    spoken(card, player, lambda errors: len(errors) > 7 and np.median(np.abs(errors)) < 0.04)
    _, text, values = player.node.health()
    assert "USB Speaker" in text and abs(values["skew_p50_ms"] - values["delay_ms"]) < 40


def test_a_clock_an_hour_off_is_told_once_and_sound_is_heard(
    card: SoundCard, play: Callable[..., Player], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    player = play(volume=0.5)
    monkeypatch.setattr(player.node.get_logger(), "warning", told.append)
    monkeypatch.setattr(player.node, "get_logger", lambda logger=player.node.get_logger(): logger)
    player.until(lambda: card.heard)
    spoken(card, player, lambda errors: len(errors) > 7, off_s=3600.0)
    player.until(lambda: told)
    assert max(block.max() for _, block in card.heard) < 0.6
    (line,) = told
    assert "3600 s ahead of this machine's clock" in line and "same time server" in line
    assert player.node.health()[0] == 1


def test_a_loudspeaker_that_is_unplugged_comes_back(
    card: SoundCard, play: Callable[..., Player], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_player, "RETRY_S", 0.1)
    monkeypatch.setattr(loudspeaker, "SILENT_S", 0.3)
    player = play(device="USB")
    player.until(lambda: card.heard)
    card.plugged = False
    player.until(lambda: "no output device found" in player.node.last_error)
    assert player.node.state == "active" and card.rescans
    card.plugged = True
    before = len(card.heard)
    player.until(lambda: len(card.heard) > before)
    player.until(lambda: not player.node._fault)
    spoken(card, player, lambda errors: len(errors) > 0)


def test_a_wrong_name_lists_what_there_is(card: SoundCard, play: Callable[..., Player]) -> None:
    player = play(device="headphones")
    player.until(lambda: player.node.last_error)
    assert "no output device has 'headphones' in its name; output devices: 1: USB Speaker" in player.node.last_error


# ---------------------------------------------------------------- stamps on the monotonic clock

S = NANOSECONDS


def test_stamps_of_our_clock_have_no_jitter_until_it_is_set() -> None:
    clock = StampClock()
    zero = 1_700_000_000 * S
    assert clock.place(zero + LEAD_NS, clock_ns=zero, monotonic_ns=50 * S) == pytest.approx(50.08)
    # Between the two readings something else ran for 5 ms.
    assert clock.place(zero + S, clock_ns=zero + S, monotonic_ns=51 * S + 5_000_000) == pytest.approx(51.0)
    assert clock.place(zero + 2 * S, clock_ns=zero + 2 * S + S // 2, monotonic_ns=52 * S) == pytest.approx(51.5)
    assert clock.foreign_ns == 0


@pytest.mark.parametrize("simulated", [False, True])
def test_stamps_of_another_clock_are_placed_by_arrival(simulated: bool) -> None:
    clock = StampClock()
    given = {"clock_ns": 0, "simulated": simulated}
    assert clock.place(3600 * S, monotonic_ns=50 * S, **given) == pytest.approx(50.08)
    # Late by what the machine was busy: still where it belongs.
    assert clock.place(3601 * S, monotonic_ns=51 * S + ARRIVAL_NS // 2, **given) == pytest.approx(51.08)
    assert clock.place(3602 * S, monotonic_ns=60 * S, **given) == pytest.approx(60.08)
    assert clock.foreign_ns == (0 if simulated else 3602 * S)
