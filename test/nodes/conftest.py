# SPDX-License-Identifier: Apache-2.0
"""What the tests of this room need; without rclpy they are skipped by name, and fail where nothing may be skipped."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from domains import own_domain

if TYPE_CHECKING:
    from ros_harness import Watcher

    from flowact_ros.launcher.supervisor import Supervisor

NEEDS_ROS = (
    "test_microphone_unplugged.py",
    "test_full_disk.py",
    "test_two_robots.py",
    "test_shared_generator.py",
    "test_remote_avatar.py",
    "test_audio_player.py",
    "test_audio_decoder.py",
    "test_convert.py",
    "test_params.py",
    "test_planner_answers.py",
    "test_planner_node.py",
    "test_interruption.py",
    "test_speech_recognizer.py",
    "test_recovery.py",
    "test_aligner.py",
    "test_voice_gate.py",
    "test_real_ros.py",
    "test_real_say.py",
    "test_real_chain.py",
    "test_launch.py",
    "test_uninstructed.py",
    "test_records.py",
    "test_demo_page.py",
    "test_stamps.py",
    "test_content_time.py",
    "test_reference_request.py",
    "test_slow_service.py",
    "test_say_answers.py",
    "test_say_text.py",
    "test_demo_text.py",
    "test_skill_say.py",
    "test_skill_look_at.py",
    "test_ros4hri_messages.py",
    "test_recipes.py",
    "test_look_point.py",
    "test_captions.py",
    "test_frame_publisher.py",
    "test_motion_topic.py",
    "test_speech_synthesizer.py",
    "test_say_client.py",
    "test_lifecycle.py",
    "test_clean_end.py",
    "test_film.py",
    "test_conversation.py",
    "test_image_messages.py",
    "test_kiosk_nodes.py",
    "test_audio_adapter.py",
    "test_graph.py",
    "test_tool_configs.py",
)
MISSING = [name for name in ("rclpy", "flowact_msgs") if importlib.util.find_spec(name) is None]


def pytest_ignore_collect(collection_path, config):  # noqa: ARG001 - pytest gives both
    """Modules that import rclpy at their top cannot even be collected without it."""
    if MISSING and collection_path.name in NEEDS_ROS and os.environ.get("FLOWACT_CI") != "1":
        return True
    return None


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(
            f"left out: {', '.join(NEEDS_ROS)}: {', '.join(MISSING)} cannot be imported (run `make setup`)"
        )


@pytest.fixture(scope="session")
def python_path() -> str:
    """PYTHONPATH for child processes that must import what this process imports."""
    return os.pathsep.join(path for path in sys.path if path)


@pytest.fixture(scope="module")
def domain() -> Iterator[None]:
    """A domain of this module's own: nodes of other tests and robots are not heard."""
    yield from _environment(ROS_DOMAIN_ID=own_domain(), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")


@pytest.fixture(scope="module")
def within() -> Iterator[None]:
    """For nodes that only talk to nodes of the same context: nothing is shared with other processes.

    Fast DDS waits for ever, in C code that no time limit of a test reaches, for a file in /dev/shm whose maker was
    killed before it was filled; and these tests run beside processes that are killed. Without discovery it makes none.
    """
    yield from _environment(
        ROS_DOMAIN_ID=own_domain(), ROS_AUTOMATIC_DISCOVERY_RANGE="OFF", FASTDDS_BUILTIN_TRANSPORTS="UDPv4"
    )


def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that the debug preset's random weights animate as well as any."""
    import numpy as np
    from PIL import Image as Picture

    y, x = np.mgrid[0:256, 0:256]
    path = tmp_path_factory.mktemp("reference") / "gradient.png"
    Picture.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def avatar(domain: None, reference: Path, python_path: str) -> Iterator[tuple[Supervisor, list[str]]]:
    """A running generator, with the lines of its log."""
    from ros_harness import generator_spec, supervise

    lines: list[str] = []
    with supervise([generator_spec(reference)], python_path, lines) as supervisor:
        supervisor.wait_active(180)
        yield supervisor, lines


@pytest.fixture
def watcher(avatar: tuple[Supervisor, list[str]]) -> Iterator[Watcher]:
    """Hears all that the running generator publishes."""
    from ros_harness import Watcher

    from flowact_ros.nodes import topics

    names = (topics.IMAGE, topics.AUDIO, topics.STATE, topics.ROBOT_SPEAKING, topics.CHUNKS, topics.METRICS)
    watcher = Watcher("/avatar", (*names, topics.DIAGNOSTICS))
    for name in (topics.IMAGE, topics.AUDIO, topics.STATE, topics.CHUNKS):
        watcher.until(lambda name=name: watcher.seen[name], f"something on {name}")
    yield watcher
    watcher.close()
