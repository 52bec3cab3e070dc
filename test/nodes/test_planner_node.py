# SPDX-License-Identifier: Apache-2.0
"""The planner goes by what its avatar accepted: refused, empty or repeated speech does not make a face speak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy

from flowact_msgs.msg import AudioChunk, AvatarState, Instruction
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.nodes.instruction_planner import InstructionPlanner


@pytest.fixture
def planner(within: None) -> Iterator[InstructionPlanner]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = InstructionPlanner(context=context)
    node.trigger_configure()
    node.trigger_activate()
    node._on_tick()
    yield node
    node.stop()
    node.destroy_node()
    context.try_shutdown()


def behaviour(planner: InstructionPlanner) -> int:
    return planner._standing.behaviour


def speech(**fields: Any) -> AudioChunk:
    message = audio_message(np.full(960, 0.1, np.float32), 24000, to_time(0), utterance_id="a")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize("fields", [{"data": b""}, {"sample_rate": 4000}, {"encoding": "MP3"}, {"channels": 0}])
def test_what_no_avatar_would_take_is_not_speech(planner: InstructionPlanner, fields: dict) -> None:
    planner.guard(planner._on_speech)(speech(**fields))
    planner._on_tick()
    assert behaviour(planner) == Instruction.IDLE


def test_without_an_avatar_speech_is_what_could_be_said(planner: InstructionPlanner) -> None:
    planner._on_speech(speech())
    assert behaviour(planner) == Instruction.SPEAKING


def test_an_avatar_says_what_it_has_accepted(planner: InstructionPlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "count_publishers", lambda name: int(name == topics.STATE))
    planner._on_state(AvatarState())
    planner._on_speech(speech())
    planner._on_tick()
    assert behaviour(planner) == Instruction.IDLE  # it was refused, as far as anybody knows
    planner._on_state(AvatarState(speech_waits=True, waiting_id="a"))
    assert behaviour(planner) == Instruction.SPEAKING and planner._standing.utterance_id == "a"
    planner._on_state(AvatarState())
    monkeypatch.setattr(planner, "_now_s", lambda: planner._steady.now().nanoseconds / 1e9 + 5.0)
    planner._on_tick()
    assert behaviour(planner) == Instruction.IDLE


def test_its_lines_are_for_who_looks_for_them(planner: InstructionPlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Logger:
        debug = staticmethod(lines.append)

    monkeypatch.setattr(planner, "get_logger", Logger)  # whatever is not `debug` fails
    planner._on_speech(speech())
    assert len(lines) == 1 and lines[0].startswith("speaking: ")
