# SPDX-License-Identifier: Apache-2.0
"""The recogniser's node, with a real network of random weights: a voice on `mic` becomes `user_speaking` and texts."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, Header
from tiny_whisper import make_transformers

from flowact_msgs.msg import AudioChunk, Transcript
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.media.resample import resample
from flowact_ros.nodes import speech_recognizer, topics
from flowact_ros.nodes.convert import audio_message, from_time, to_time
from flowact_ros.nodes.speech_recognizer import SpeechRecognizer

PATIENCE_S = 60.0
EVERY_CHANGE_QOS = QoSProfile(
    depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL
)  # of a state that is latched
BEGAN_NS = 1_000_000_000_000  # the stamp of a scene's first sample
LEAD_S = 1.0  # quiet before the voice, and after it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_transformers(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """24 kHz, without the silence around it."""
    pcm = load_synthesizer("hibari").synthesize("Hello robot, where is the museum shop?").pcm
    loud = np.flatnonzero(np.abs(pcm) > 0.02)
    return pcm[loud[0] : loud[-1]]


def scene(voice: np.ndarray, rate: int) -> np.ndarray:
    quiet = np.zeros(round(24_000 * LEAD_S), np.float32)
    sound = resample(np.concatenate([quiet, voice, quiet]), 24_000, rate)
    return (sound + np.random.default_rng(0).normal(0, 1e-3, len(sound))).astype(np.float32)


class Bench:
    """The node and one that talks with it, in a context of their own."""

    def __init__(self, **parameters: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = SpeechRecognizer(context=self.context, parameter_overrides=overrides)
        self.other = rclpy.create_node("other", context=self.context)
        self.speaking: list[bool] = []
        self.texts: list[Transcript] = []
        self.other.create_subscription(
            Bool, topics.USER_SPEAKING, lambda m: self.speaking.append(m.data), EVERY_CHANGE_QOS
        )
        self.other.create_subscription(Transcript, topics.TRANSCRIPT, self.texts.append, topics.EVENT_QOS)
        self.mic = self.other.create_publisher(AudioChunk, topics.MIC, topics.AUDIO_DEEP_QOS)
        self.robot = self.other.create_publisher(Bool, topics.ROBOT_SPEAKING, topics.LATCHED_QOS)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.other)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def start(self) -> None:
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self._thread.start()
        self.until(lambda: self.mic.get_subscription_count() and self.speaking == [False], "the node")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"did not happen: {what}; {self.speaking}, {self.texts}"
            time.sleep(0.01)

    def say(self, pcm: np.ndarray, rate: int, *, stamped: bool = True, **form: Any) -> None:
        step = rate // 25
        for at in range(0, len(pcm), step):
            stamp = to_time(BEGAN_NS + at * 1_000_000_000 // rate if stamped else 0)
            self.mic.publish(audio_message(pcm[at : at + step], rate, stamp, first_sample=at, **form))

    @property
    def finals(self) -> list[Transcript]:
        return [text for text in self.texts if text.final]

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.node.stop()
        self.executor.shutdown()
        self.node.destroy_node()
        self.other.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def make(within: None, model: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def made(**parameters: Any) -> Bench:
        defaults = {"recognizer": "transformers", "model": str(model), "partial_interval": 0.5}
        benches.append(Bench(**{**defaults, **parameters}))
        return benches[-1]

    yield made
    for bench in benches:
        bench.close()


@pytest.mark.parametrize("vad", ["silero", "energy"])
@pytest.mark.parametrize(("rate", "encoding"), [(16_000, "S16LE"), (44_100, "F32LE"), (48_000, "S16LE")])
def test_a_voice_becomes_texts(make, voice: np.ndarray, vad: str, rate: int, encoding: str) -> None:
    bench = make(vad=vad)
    bench.start()
    bench.say(scene(voice, rate), rate, encoding=encoding)
    bench.until(lambda: bench.finals, "a final text")
    bench.until(lambda: len(bench.speaking) == 3, "the end of the voice")
    assert bench.speaking == [False, True, False]
    (final,) = bench.finals
    assert {text.utterance_id for text in bench.texts} == {final.utterance_id}
    assert bench.texts[-1] is final and final.text and 0.0 < final.confidence <= 1.0 and final.locale == "en"
    began, ended = from_time(final.start) - BEGAN_NS, from_time(final.end) - BEGAN_NS
    assert began / 1e9 == pytest.approx(LEAD_S, abs=0.2)
    assert ended / 1e9 == pytest.approx(LEAD_S + len(voice) / 24_000, abs=0.3)
    for partial in bench.texts[:-1]:
        assert not partial.final and partial.text
        assert from_time(partial.start) == pytest.approx(from_time(final.start), abs=1000)


def test_two_utterances_have_two_names(make, voice: np.ndarray) -> None:
    bench = make(partial_interval=0.0, pause=0.0)
    bench.start()
    bench.say(np.concatenate([scene(voice, 16_000)] * 2), 16_000)
    bench.until(lambda: len(bench.finals) == 2, "two final texts")
    one, two = bench.finals
    assert one.utterance_id != two.utterance_id and bench.texts == bench.finals
    assert from_time(two.start) > from_time(one.end)


def test_without_stamps_the_clock_of_now_counts(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    before = bench.node.now_ns()
    bench.say(scene(voice, 16_000), 16_000, stamped=False)
    bench.until(lambda: bench.finals, "a final text")
    assert abs(from_time(bench.finals[0].end) - before) < PATIENCE_S * 1e9


def test_it_does_not_listen_to_the_robot(make, voice: np.ndarray) -> None:
    bench = make(mute_hangover=0.0)
    bench.start()
    taken, decode = [], bench.node._decode
    bench.node._decode = lambda message: (taken.append(message), decode(message))[1]
    bench.robot.publish(Bool(data=True))
    bench.until(bench.node._is_mute, "silence")
    sound = scene(voice, 16_000)
    bench.say(sound, 16_000)
    bench.until(lambda: len(taken) == -(-len(sound) // 640), "all that the microphone hears")
    bench.robot.publish(Bool(data=False))
    bench.until(lambda: not bench.node._is_mute(), "its ears")
    assert bench.speaking == [False] and bench.texts == []
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals, "a final text")


def test_what_was_said_before_the_robot_speaks_is_recognised(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    sound = scene(voice, 16_000)
    bench.say(sound[: round(16_000 * (LEAD_S + 1.0))], 16_000)
    bench.until(lambda: True in bench.speaking, "a voice")  # for a second: then the microphone is given up
    bench.robot.publish(Bool(data=True))
    bench.until(lambda: bench.finals, "a final text")
    bench.until(lambda: not bench.speaking[-1], "the end of the voice")


def test_with_a_good_microphone_it_listens_on(make, voice: np.ndarray) -> None:
    bench = make(echo="none")
    bench.start()
    bench.robot.publish(Bool(data=True))
    bench.until(lambda: bench.node._robot_speaking, "the robot")
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals, "a final text")


def test_a_microphone_that_goes_away_ends_the_utterance(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    bench.say(scene(voice, 16_000)[: round(16_000 * (LEAD_S + 1.0))], 16_000)
    bench.until(lambda: bench.finals and not bench.speaking[-1], "the end of what was heard")
    assert bench.node.last_error == ""


def test_another_rate_in_mid_sentence(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    bench.say(scene(voice, 16_000)[: round(16_000 * (LEAD_S + 1.0))], 16_000)
    bench.say(scene(voice, 48_000), 48_000)
    bench.until(lambda: len(bench.finals) == 2, "two final texts")
    assert len({final.utterance_id for final in bench.finals}) == 2


BAD = {
    "rate": ({"sample_rate": 4000}, "4000 Hz"),
    "encoding": ({"encoding": "MP3"}, "'MP3'"),
    "channels": ({"channels": 0}, "0 channels"),
    "NaN": ({"encoding": "F32LE", "data": np.full(640, np.nan, "<f4").tobytes()}, "NaN"),
}


def test_chunks_that_cannot_be_are_told_and_left_out(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    for fields, says in BAD.values():
        chunk = audio_message(np.full(640, 0.1, np.float32), 16_000, to_time(0))
        for name, value in fields.items():
            setattr(chunk, name, value)
        bench.mic.publish(chunk)
        bench.until(lambda says=says: says in bench.node.last_error, says)
    bench.mic.publish(AudioChunk(sample_rate=16_000, channels=1, encoding="S16LE"))  # of no samples at all
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals, "a final text")


def test_a_recogniser_that_fails_still_answers(
    make, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(partial_interval=0.0, pause=0.0)
    bench.start()
    monkeypatch.setattr(bench.node._recognizer._model, "generate", lambda **_: 1 / 0)
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals, "an empty final text")
    assert bench.finals[0].text == "" and bench.finals[0].confidence == 0.0
    assert "division by zero" in bench.node.last_error
    monkeypatch.undo()
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: len(bench.finals) == 2 and bench.finals[1].text, "a text")


def test_it_can_be_deactivated_in_mid_sentence_and_activated_again(make, voice: np.ndarray) -> None:
    bench = make()
    bench.start()
    bench.say(scene(voice, 16_000)[: round(16_000 * (LEAD_S + 1.0))], 16_000)
    bench.until(lambda: True in bench.speaking, "a voice")
    bench.executor.create_task(bench.node.trigger_deactivate)
    bench.until(lambda: bench.node.state == "inactive", "a rest")
    assert bench.node.health() == (0, "", {})
    bench.executor.create_task(bench.node.trigger_activate)
    bench.until(lambda: bench.node.state == "active" and bench.mic.get_subscription_count(), "work")
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals, "a final text")


def test_health_says_how_it_goes(make, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_recognizer, "MIC_SILENT_S", 600.0)  # then the detector is not given up before it is seen
    bench = make()
    bench.start()
    assert bench.node.health()[2]["detector"] == "no microphone heard"
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.node._finals, "a final text")
    level, _, values = bench.node.health()
    assert level == 0 and values["utterances"] == 1 and values["detector"] == "SileroVad"
    assert values["waiting"] == "0.0 s"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"model": "/nowhere/model"}, "no folder /nowhere/model"),
        ({"recognizer": "faster-whisper", "model": "huge"}, "flowact weights list"),
        ({"language": "English please"}, "BCP 47"),
        ({"device": "gpu"}, "cpu, cuda"),
    ],
)
def test_what_is_missing_is_told_when_it_configures(make, parameters: dict, says: str) -> None:
    bench = make(**parameters)
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in bench.node.last_error and bench.node.state == "unconfigured"


def test_ros4hri_hears_it_where_its_messages_are(
    make, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hri_msgs is in no wheel: a message with its interface stands in, and a publisher that keeps what it gets."""

    class LiveSpeech:
        def __init__(self) -> None:
            self.header, self.incremental, self.final, self.confidence, self.locale = (
                Header(),
                "",
                "",
                0.0,
                "",
            )

    module = types.ModuleType("hri_msgs.msg")
    module.LiveSpeech = LiveSpeech
    monkeypatch.setitem(sys.modules, "hri_msgs", types.ModuleType("hri_msgs"))
    monkeypatch.setitem(sys.modules, "hri_msgs.msg", module)
    bench = make()
    published: list[LiveSpeech] = []
    add = bench.node.add_publisher
    keeper = types.SimpleNamespace(publish=published.append)
    monkeypatch.setattr(
        bench.node, "add_publisher", lambda kind, name: keeper if kind is LiveSpeech else add(kind, name)
    )
    bench.start()
    bench.say(scene(voice, 16_000), 16_000)
    bench.until(lambda: bench.finals and published and published[-1].final, "a final text, for both")
    assert published[-1].final == bench.finals[0].text and published[-1].incremental == ""
    assert (
        published[-1].confidence == pytest.approx(bench.finals[0].confidence) and published[-1].locale == "en"
    )
    assert all(live.incremental and not live.final for live in published[:-1])
