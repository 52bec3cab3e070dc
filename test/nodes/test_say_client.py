# SPDX-License-Identifier: Apache-2.0
"""`flowact say` to an avatar that is there and does not answer ends in time, and says what to look at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from ros_harness import loud

from flowact_msgs.action import Say
from flowact_ros.nodes import say_client, topics
from flowact_ros.nodes.say_client import Progress, say

pytestmark = pytest.mark.usefixtures("domain")


@pytest.fixture(params=["takes no goal", "never ends"])
def mute(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An avatar that is seen; its answers do not come, as those of another user's shared memory."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("mute", namespace="/mute", context=context)
    executor = SingleThreadedExecutor(context=context)
    asleep, stop = threading.Event(), threading.Event()

    def on_goal(goal: Say.Goal) -> GoalResponse:
        return GoalResponse.ACCEPT

    server = ActionServer(
        node,
        Say,
        topics.SAY,
        execute_callback=lambda handle: Say.Result(),
        goal_callback=on_goal,
        handle_accepted_callback=lambda handle: asleep.set(),
    )
    if request.param == "never ends":
        executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield request.param
    finally:
        stop.set()
        thread.join()
        server.destroy()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        context.try_shutdown()


def test_words_appear_as_they_are_spoken(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for phase, word in [(0, ""), (1, ""), (1, ""), (2, ""), (2, "No"), (2, "No"), (2, ""), (2, "No"), (2, "never")]:
        progress.show(Say.Feedback(phase=phase, word=word))
    progress.end()
    progress.end()
    assert capsys.readouterr().out == "queued\npreparing\nspeaking\nNo No never\n"


def test_an_avatar_that_does_not_answer(
    mute: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = say_client._wait_for_server
    monkeypatch.setattr(say_client, "_wait_for_server", lambda executor, client, _: find(executor, client, 60.0))
    assert say(loud(0.2), 24000, namespace="/mute", timeout_s=4.0) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is an avatar at /mute/say" in line and "another user" in line and "UDPv4" in line
