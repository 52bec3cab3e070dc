# SPDX-License-Identifier: Apache-2.0
"""Two conversations at once, each with all its nodes as processes: a spoken question is heard, answered and spoken.

The first robot's planner has fixed replies; the second one's asks a language model whose server hangs. A Whisper model
hears them where there is one; else the scripted user tells what he said, as a recogniser would.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from chat_server import hangs, serving
from ros_harness import Watcher, generator_spec, supervise

from flowact_msgs.msg import Instruction, Transcript
from flowact_ros.dialogue.persona import load_persona
from flowact_ros.launcher.resources import config_file
from flowact_ros.launcher.supervisor import NodeSpec, Supervisor
from flowact_ros.nodes import topics
from flowact_ros.nodes.captions import AVATAR, USER

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # ten processes start, of which four load networks
    pytest.mark.usefixtures("domain"),
]

MODEL = "tiny.en"
WATCHED = (topics.AUDIO, topics.STATE, topics.INSTRUCTION, topics.CAPTIONS, topics.DIAGNOSTICS)
SHOPS = """
name: Ada
role: a clerk
replies:
  - {words: [open, opened], say: At noon.}
"""
QUESTION, OTHER = "When does the museum open?", "What is a galaxy?"


def whisper() -> bool:
    """Is the model on this machine?"""
    try:
        from flowact_ros.dialogue.recognizer_faster_whisper import find_model

        find_model(MODEL)
    except (ImportError, ValueError):
        return False
    return True


def robot(name: str, reference: Path, planner: dict[str, Any], hears: bool) -> list[NodeSpec]:
    module, namespace = "flowact_ros.nodes", f"{name}/avatar"
    page = {"port": 0}
    generator = generator_spec(reference)
    specs = [
        NodeSpec(generator.name, generator.module, namespace=namespace, parameters=generator.parameters),
        NodeSpec(
            "instruction_planner", f"{module}.instruction_planner", namespace=namespace, parameters=planner
        ),
        NodeSpec("speech_synthesizer", f"{module}.speech_synthesizer", namespace=namespace),
        NodeSpec("kiosk_bridge", f"{module}.kiosk_bridge", namespace=namespace, parameters=page),
    ]
    if hears:
        parameters = {"model": MODEL, "partial_interval": 0.0}
        specs.append(
            NodeSpec(
                "speech_recognizer", f"{module}.speech_recognizer", namespace=namespace, parameters=parameters
            )
        )
    return specs


def scripted_user(name: str, script: Path, hears: bool) -> list[NodeSpec]:
    parameters = {"script": str(script), "transcribe": not hears}
    module = "flowact_ros.nodes.scripted_user"
    return [
        NodeSpec("scripted_user", module, namespace=f"{name}/avatar", parameters=parameters, oneshot=True)
    ]


class Robot:
    """One of the two: what it published, its processes, and that of the one who talked to it."""

    def __init__(self, watcher: Watcher, supervisor: Supervisor, user: Supervisor) -> None:
        self.watcher, self.supervisor, self.user, self.seen = watcher, supervisor, user, watcher.seen

    def captions(self, side: str) -> list[str]:
        messages: list[Transcript] = self.seen[topics.CAPTIONS]
        return [message.text for message in messages if message.header.frame_id == side and message.final]

    def spoken(self) -> set[str]:
        return {message.utterance_id for message in self.seen[topics.AUDIO]} - {""}

    def diagnostics(self) -> dict[str, str]:
        name = f"{self.watcher.node.get_namespace().strip('/')}/instruction_planner"
        statuses = [status for array in self.seen[topics.DIAGNOSTICS] for status in array.status]
        return {
            value.key: value.value for status in statuses if status.name == name for value in status.values
        }


@pytest.fixture(scope="module")
def robots(
    domain: None, reference: Path, python_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Robot, Robot]]:
    """Two, after each had its conversation."""
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    folder, hears = tmp_path_factory.mktemp("talk"), whisper()
    (folder / "ada.yaml").write_text(SHOPS)
    for name, question in (("one", QUESTION), ("two", OTHER)):
        (folder / f"{name}.yaml").write_text(f"pitch: 0.8\nturns:\n  - {question}\n")
    with serving(hangs()) as server:
        slow = {
            "backend": "openai",
            "model": "any",
            "base_url": server.url,
            "answer_timeout": 1.0,
            "retries": 0,
        }
        planners = {"one": {"persona": str(folder / "ada.yaml")}, "two": slow}
        watchers = {name: Watcher(f"/{name}/avatar", WATCHED) for name in planners}
        specs = {name: robot(name, reference, planner, hears) for name, planner in planners.items()}
        users = {name: scripted_user(name, folder / f"{name}.yaml", hears) for name in planners}
        try:
            with (
                supervise(specs["one"], python_path, []) as first,
                supervise(specs["two"], python_path, []) as second,
            ):
                # Whoever talks waits for those who answer; a page that starts later has missed what was said.
                for nodes in (first, second):
                    nodes.wait_active(300)
                with (
                    supervise(users["one"], python_path, []) as one,
                    supervise(users["two"], python_path, []) as two,
                ):
                    both = Robot(watchers["one"], first, one), Robot(watchers["two"], second, two)
                    for each in both:
                        assert each.user.wait_exit("scripted_user", 300) == 0
                    yield both
        finally:
            for watcher in watchers.values():
                watcher.close()


def test_a_question_is_heard_thought_about_and_answered(robots: tuple[Robot, Robot]) -> None:
    robot, _ = robots
    assert (
        robot.user.fact("scripted_user", "turns"),
        robot.user.fact("scripted_user", "answered"),
    ) == (1, 1)
    assert robot.captions(USER) == [QUESTION]
    robot.watcher.until(lambda: robot.captions(AVATAR)[-1:] == ["At noon."], "the caption of the answer")
    told = [message.behaviour for message in robot.seen[topics.INSTRUCTION]]
    begin = told.index(Instruction.LISTENING)
    assert Instruction.THINKING in told[begin:] and Instruction.SPEAKING in told[begin:]
    # Frames with the answer's sound are frames of a face that speaks.
    speaking = [m for m in robot.seen[topics.STATE] if m.utterance_id == "reply-1-1"]
    assert speaking and {m.behaviour for m in speaking if m.robot_speaking} <= {
        Instruction.SPEAKING,
        Instruction.THINKING,
    }
    assert Instruction.SPEAKING in {m.behaviour for m in speaking}


def test_the_page_is_told_what_both_said(robots: tuple[Robot, Robot]) -> None:
    robot, _ = robots
    with urlopen(f"{robot.supervisor.fact('kiosk_bridge', 'url')}state", timeout=30) as answer:
        state = json.load(answer)["state"]
    assert (state["heard"]["text"], state["said"]["text"]) == (QUESTION, "At noon.")
    assert 0 < state["heard"]["pts"] < state["said"]["pts"]


def test_a_model_that_hangs_is_replaced_by_the_persona(robots: tuple[Robot, Robot]) -> None:
    _, robot = robots
    assert robot.user.fact("scripted_user", "answered") == 1
    persona = load_persona(config_file("persona.yaml"))
    heard = " ".join(robot.captions(AVATAR))
    assert heard and any(heard in sentence or sentence.startswith(heard) for sentence in persona.fallback)
    values = robot.watcher.until(
        lambda: (v := robot.diagnostics()).get("fallbacks") == "1" and v, "a fallback in /diagnostics"
    )
    assert values["planner_backend"] == "openai" and "no answer within 1 s" in values["last_model_error"]


def test_the_two_do_not_hear_each_other(robots: tuple[Robot, Robot]) -> None:
    one, two = robots
    assert one.captions(USER) == [QUESTION] and two.captions(USER) == [OTHER]
    assert "At noon." not in two.captions(AVATAR)
    assert not set(one.captions(AVATAR)) & set(two.captions(AVATAR))
    assert one.diagnostics()["turns"] == two.diagnostics()["turns"] == "1"
    assert os.environ["ROS_DOMAIN_ID"]  # of one domain: the namespace alone keeps them apart
