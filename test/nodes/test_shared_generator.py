# SPDX-License-Identifier: Apache-2.0
"""Avatars of several namespaces in one process: each for itself, also where one cannot start or does not fit."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_harness import PATIENCE_S, Watcher, loud, speech_messages, spoken, spun_generator, supervise, whole

from flowact_msgs.msg import AudioChunk
from flowact_ros.launcher.supervisor import NodeSpec
from flowact_ros.nodes import avatar_generator, shared_generator, topics
from flowact_ros.nodes.shared_model import SharedModel

pytestmark = pytest.mark.ros
ROBOTS = ("robot1/avatar", "robot2/avatar", "robot3/avatar")
PARAMETERS = """
/**/avatar_generator:
  ros__parameters: {{preset: debug, threads: 1, workers: 1, max_streams: 2, reference_image: {picture}}}
/robot3/avatar/avatar_generator:
  ros__parameters: {{reference_image: /nowhere.png}}
"""


@pytest.mark.slow
def test_avatars_share_a_process_and_nothing_else(
    domain: None, reference: Path, python_path: str, tmp_path: Path
) -> None:
    file = tmp_path / "robots.yaml"
    file.write_text(PARAMETERS.format(picture=reference), encoding="utf-8")
    spec = NodeSpec(
        "avatar_generator", "flowact_ros.nodes.shared_generator", namespaces=ROBOTS, params_file=str(file)
    )
    lines: list[str] = []
    with supervise([spec], python_path, lines) as supervisor, ExitStack() as stack:
        supervisor.wait_active(2 * PATIENCE_S)  # two are; the third has said what it lacks
        pid = supervisor.pid("avatar_generator")
        assert any("robot3" in line and "cannot configure" in line and "/nowhere.png" in line for line in lines)
        watched = (topics.AUDIO, topics.DIAGNOSTICS)
        first, second, third = (Watcher(f"/{robot}", watched) for robot in ROBOTS)
        for watcher in (first, second, third):
            stack.callback(watcher.close)
        pcm = {"for-1": loud(0.5, seed=1), "for-2": loud(0.5, seed=2)}
        for watcher, name in ((first, "for-1"), (second, "for-2")):
            speech = watcher.publisher(AudioChunk, topics.SPEECH)
            for message in speech_messages(pcm[name], name):
                speech.publish(message)
        for watcher, own, other in ((first, "for-1", "for-2"), (second, "for-2", "for-1")):
            watcher.until(lambda w=watcher, name=own: whole(w, name, len(pcm[name])), f"the end of {own}")
            assert len(spoken(watcher.seen[topics.AUDIO], own)) == len(pcm[own])
            assert not len(spoken(watcher.seen[topics.AUDIO], other))
        # The third gets its picture, and finds that two are the most; it comes when one of them has left.
        name = "avatar_generator"
        assert third.state(name) == "unconfigured"
        right = SetParameters.Request(
            parameters=[Parameter("reference_image", value=str(reference)).to_parameter_msg()]
        )
        assert third.call(SetParameters, f"{name}/set_parameters", right).results[0].successful
        assert third.transition(name, Transition.TRANSITION_CONFIGURE)
        assert not third.transition(name, Transition.TRANSITION_ACTIVATE)
        first.until(
            lambda: any("2 streams fit on cpu, by its limit: end one" in line for line in lines), "the refusal"
        )
        assert second.transition(name, Transition.TRANSITION_DEACTIVATE)
        assert third.transition(name, Transition.TRANSITION_ACTIVATE)
        third.until(lambda: len(third.seen[topics.AUDIO]) > 10, "frames of the third")
        before = len(first.seen[topics.AUDIO])
        first.until(lambda: len(first.seen[topics.AUDIO]) > before + 10, "frames of the first go on")

        def told() -> dict[str, str]:
            statuses = [s for array in first.seen[topics.DIAGNOSTICS] for s in array.status if "robot1" in s.name]
            return {value.key: value.value for value in statuses[-1].values} if statuses else {}

        first.until(lambda: told().get("streams") == "2", "diagnostics with the number of streams")
        assert (supervisor.pid(name), supervisor.restarts(name)) == (pid, 0)
    assert not any("Traceback" in line for line in lines), "\n".join(lines)


def test_a_slow_device_is_not_taken_for_one_that_hangs(
    domain: None, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avatar_generator, "ENGINE_STUCK_S", 0.5)
    model, released = SharedModel(lambda: None), threading.Event()
    with spun_generator(reference, "/robot1/avatar", partial(shared_generator.SharedGenerator, model)) as node:
        pipeline, budget = node._lease.streams.pipeline, node._lease.streams.budget
        monkeypatch.setattr(budget, "round_s", lambda steps: PATIENCE_S)
        node.trigger_activate()
        works, begun = pipeline.denoise, threading.Event()

        def waits(*given: object) -> object:
            begun.set()
            released.wait(PATIENCE_S)
            return works(*given)

        monkeypatch.setattr(pipeline, "denoise", waits)
        assert begun.wait(PATIENCE_S)
        time.sleep(1.0)
        assert node.hang() == ""
        monkeypatch.setattr(budget, "round_s", lambda steps: 0.01)
        assert "its engine made no step for" in node.hang()
        released.set()


def test_namespaces_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for names, line in (
        (["robot1", "/robot1"], "error: namespace robot1 is given twice: each avatar needs one of its own"),
        (["robot 1"], "error: namespace 'robot 1' is none that ROS takes"),
    ):
        assert shared_generator.main(["shared_generator", "--namespaces", *names, "--ros-args"]) == 2
        assert line in capsys.readouterr().err
