# SPDX-License-Identifier: Apache-2.0
"""Real nodes in this process: every bad parameter is one clear line, errors end nothing, bursts are taken at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_capture import AudioCapture
from flowact_ros.nodes.audio_player import AudioPlayer
from flowact_ros.nodes.avatar_generator import AvatarGenerator
from flowact_ros.nodes.base import BURST, FlowactNode
from flowact_ros.nodes.engine_config import engine_config
from flowact_ros.nodes.instruction_planner import InstructionPlanner
from flowact_ros.nodes.kiosk_bridge import KioskBridge
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.nodes.recorder import Recorder
from flowact_ros.nodes.speech_recognizer import SpeechRecognizer
from flowact_ros.nodes.speech_synthesizer import SpeechSynthesizer

NODES = (AudioCapture, AudioPlayer, AvatarGenerator, InstructionPlanner, KioskBridge, Recorder)
Make = Callable[..., FlowactNode]


@pytest.fixture
def make(within: None) -> Iterator[Make]:
    """Makes nodes that are destroyed afterwards; parameters by name."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    nodes: list[FlowactNode] = []

    def create(kind: type[FlowactNode], **parameters: Any) -> FlowactNode:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = kind(context=context, parameter_overrides=overrides)
        nodes.append(node)
        return node

    yield create
    for node in nodes:
        node.stop()
        node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        (AvatarGenerator, {"preset": "huge"}, "preset: 'huge' is not one of avatar_cpu, debug"),
        (AvatarGenerator, {"threads": 65}, "threads: 65 is out of range, 0 … 64"),
        (AvatarGenerator, {"threads": "many"}, "threads: must be a whole number, not 'many'"),
        (AvatarGenerator, {"threads": 1.5}, "threads: must be a whole number, not 1.5"),
        (AvatarGenerator, {"seed": -1}, "seed: -1 is out of range"),
        (AvatarGenerator, {"schedule": "spiral"}, "schedule: 'spiral' is not one of sequential, diagonal"),
        (AvatarGenerator, {"autostart": "yes"}, "autostart: must be true or false, not 'yes'"),
        (AudioCapture, {"pace": -1.0}, "pace: -1 is out of range, 0 … 100"),
        (AudioCapture, {"role": "ears"}, "role: 'ears' is not one of speech, mic"),
        (AudioCapture, {"chunk_ms": 500}, "chunk_ms: 500 is out of range, 20 … 40"),
        (InstructionPlanner, {"vad_margin": 100.0}, "vad_margin: 100 is out of range, 3 … 40"),
        (KioskBridge, {"port": 70000}, "port: 70000 is out of range, 0 … 65535"),
        (Recorder, {"seconds": -3.0}, "seconds: -3 is out of range"),
    ],
)
def test_refused_at_start(make: Make, kind: type[FlowactNode], parameters: dict, says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make(kind, **parameters)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        (AvatarGenerator, {"reference_image": "/nowhere.png"}, "/nowhere.png"),
        (AvatarGenerator, {"character": "Nobody"}, "'Nobody' is not one of"),
        (AvatarGenerator, {"engine_config": "/nowhere.yaml"}, "/nowhere.yaml"),
        (AvatarGenerator, {"preset": "avatar_cpu", "weights_dir": "/nowhere"}, "/nowhere"),
        (AudioCapture, {"source": "microphone", "file": "a.wav"}, "source is microphone"),
        (KioskBridge, {"host": "203.0.113.1"}, "203.0.113.1"),
        (Recorder, {"path": ""}, "must name the mp4 file"),
        (Recorder, {"path": "/nowhere/a.mp4"}, "/nowhere"),
        (Recorder, {"path": "a.avi"}, ".mp4"),
    ],
)
def test_refused_at_configure(make: Make, kind: type[FlowactNode], parameters: dict, says: str) -> None:
    given = {"preset": "debug", **parameters} if kind is AvatarGenerator else parameters
    node = make(kind, **given)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.state == "unconfigured"
    assert says in node.last_error and "\n" not in node.last_error


@pytest.mark.parametrize("kind", NODES)
def test_every_parameter_is_described(make: Make, kind: type[FlowactNode]) -> None:
    node = make(kind)
    for param in kind.PARAMETERS:
        descriptor = node.describe_parameter(param.name)
        assert len(descriptor.description) > 5
        if param.range is not None:
            (given,) = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert (given.from_value, given.to_value) == param.range
        if param.choices is not None:
            assert all(choice in descriptor.additional_constraints for choice in param.choices)
        assert param.check(param.default) == param.default


def test_numbers_without_a_point_are_taken(make: Make) -> None:
    node = make(AudioCapture, pace=2, device=1)
    assert node.params["pace"] == 2.0 and isinstance(node.params["pace"], float)
    assert node.params["device"] == "1"


def test_changes_while_configured_are_refused(make: Make) -> None:
    node = make(InstructionPlanner)
    assert node.set_parameters([Parameter("dwell", value=1.0)])[0].successful
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    answer = node.set_parameters([Parameter("dwell", value=2.0)])[0]
    assert not answer.successful and "clean up the node first" in answer.reason
    assert node.params["dwell"] == 1.0
    node.trigger_cleanup()
    assert node.set_parameters([Parameter("dwell", value=2.0)])[0].successful
    answer = node.set_parameters([Parameter("dwell", value=99.0)])[0]
    assert not answer.successful and "99" in answer.reason


def test_entities_live_only_while_active(make: Make) -> None:
    node = make(InstructionPlanner)

    def count() -> tuple[int, int, int]:
        return len(list(node.publishers)), len(list(node.subscriptions)), len(list(node.timers))

    before = count()
    node.trigger_configure()
    for _ in range(3):
        assert count() == before
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert count() == (before[0] + 1, before[1] + 6, before[2] + 1)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert count() == before


class Broken(FlowactNode):
    """Fails where it is told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__("broken", **options)
        self.where = ""
        self.calls: list[str] = []

    def _do(self, name: str) -> None:
        self.calls.append(name)
        if name == self.where:
            raise RuntimeError(f"{name} went wrong")

    def load(self) -> None:
        self._do("load")

    def begin(self) -> None:
        self._do("begin")

    def end(self) -> None:
        self._do("end")

    def unload(self) -> None:
        self._do("unload")

    def health(self) -> tuple[int, str, dict[str, object]]:
        self._do("health")
        return 0, "", {}


def test_exceptions_in_transitions_become_failures(make: Make) -> None:
    node = make(Broken)
    node.where = "load"
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert (node.state, node.calls) == ("unconfigured", ["load", "unload"])
    assert node.last_error == "cannot configure: load went wrong"
    node.where = "begin"
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert node.state == "inactive"
    assert node.calls[-1] == "end"  # what begin had started is ended
    node.where = ""
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.state == "active"


def test_diagnostics_survive_errors(make: Make) -> None:
    node = make(Broken)
    sent: list[Any] = []
    node._diagnostics.publish = sent.append  # type: ignore[method-assign]
    node.where = "health"
    node._publish_diagnostics()
    status = sent[0].status[0]
    assert status.level == b"\x02" and "health went wrong" in status.message
    assert {v.key: v.value for v in status.values}["state"] == "unconfigured"
    node.where = ""
    node.report("something small")
    node._publish_diagnostics()
    status = sent[1].status[0]
    assert {v.key: v.value for v in status.values}["last_error"] == "something small"
    node.trigger_configure()
    node.set_fault("the microphone is gone")
    node._publish_diagnostics()
    assert sent[2].status[0].level == b"\x02" and sent[2].status[0].message == "the microphone is gone"
    node.set_fault("")
    node._publish_diagnostics()
    assert sent[3].status[0].level == b"\x01"  # warns a while


def test_engine_config(tmp_path: Path) -> None:
    path = tmp_path / "engine.yaml"
    assert engine_config("")[1] == {}
    path.write_text("session: {queue_s: 30.0}\nmodel: {memory: {long_term: 1}}\n")
    config, model = engine_config(str(path))
    assert config.queue_s == 30.0 and model == {"memory": {"long_term": 1}}
    for text, says in (
        ("session: {queue: 30}", "unknown session.queue"),
        ("sessions: {}", "'session' and 'model'"),
        ("- 1", "'session' and 'model'"),
        ("session: 3", "must hold names"),
        ("session: {queue_s: 1e9}", "queue_s"),
        ("session: {queue_s: many}", "queue_s"),
        ("session: [", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ParameterError, match=says):
            engine_config(str(path))


def test_the_shipped_files_fit() -> None:
    """config/engine.yaml holds the defaults; every name in config/flowact.yaml is a parameter of its node."""
    import yaml

    from flowact_ros.engine.session_config import SessionConfig
    from flowact_ros.launcher.resources import config_file

    assert engine_config(str(config_file("engine.yaml"))) == (SessionConfig(), {})
    kinds = {
        "avatar_generator": AvatarGenerator,
        "instruction_planner": InstructionPlanner,
        "speech_recognizer": SpeechRecognizer,
        "speech_synthesizer": SpeechSynthesizer,
        "microphone": AudioCapture,
        "audio_player": AudioPlayer,
        "kiosk_bridge": KioskBridge,
    }
    content = yaml.safe_load(config_file("flowact.yaml").read_text())
    assert {key.split("/")[-1] for key in content} == set(kinds)
    for key, value in content.items():
        assert key.startswith("/**/")
        table: dict[str, Param] = {param.name: param for param in kinds[key.split("/")[-1]].PARAMETERS}
        for name, given in value["ros__parameters"].items():
            table[name].check(given)


class Hearing(FlowactNode):
    """Notes what it hears; fails on what says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__("hearing", **options)
        self.heard: list[int] = []

    def begin(self) -> None:
        self.add_subscription(AudioChunk, topics.SPEECH, self._on_speech, topics.AUDIO_DEEP_QOS)

    def _on_speech(self, message: AudioChunk) -> None:
        self.heard.append(message.sequence)
        if message.sequence == 3:
            raise ValueError("a bad one")


def test_a_burst_of_messages_is_taken_at_once_and_in_order(make: Make) -> None:
    node = make(Hearing)
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    speaker = rclpy.create_node("speaker", context=node.context)
    publisher = speaker.create_publisher(AudioChunk, topics.SPEECH, topics.AUDIO_DEEP_QOS)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    until = time.monotonic() + 60
    while publisher.get_subscription_count() < 1 and time.monotonic() < until:
        executor.spin_once(timeout_sec=0.05)
    for sequence in range(BURST + 10):
        publisher.publish(AudioChunk(sequence=sequence))
    time.sleep(0.5)
    served = []
    while len(node.heard) < BURST + 10 and time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
        served.append(len(node.heard))
    executor.shutdown()
    speaker.destroy_node()
    assert node.heard == list(range(BURST + 10))  # the one that failed did not stop the rest
    assert [n for n in sorted(set(served)) if n] == [BURST, BURST + 10]  # others get their turn in between
    assert node.last_error.endswith("a bad one")
