# SPDX-License-Identifier: Apache-2.0
"""What nodes keep, give back and notice: memory after cleanup, a character after a crash, a port that becomes free."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from flowact_msgs.msg import AudioChunk, StreamMetrics
from flowact_msgs.srv import SetReference
from flowact_ros.kiosk.listener import listen
from flowact_ros.launcher.supervisor import STATE_FOLDER_VARIABLE
from flowact_ros.nodes import base, kiosk_bridge, topics
from flowact_ros.nodes.avatar_generator import AvatarGenerator
from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.kept_reference import KeptReference
from flowact_ros.nodes.kiosk_bridge import KioskBridge

pytestmark = pytest.mark.usefixtures("within")
Make = Callable[..., Any]


@pytest.fixture
def make() -> Iterator[Make]:
    """Nodes of one context, and `make.until(condition)` that spins them."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    executor = SingleThreadedExecutor(context=context)
    nodes: list[FlowactNode] = []

    def made(kind: type, **values: Any) -> Any:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(kind(context=context, parameter_overrides=overrides))
        executor.add_node(nodes[-1])
        return nodes[-1]

    def until(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=0.05)

    made.until = until  # type: ignore[attr-defined]
    yield made
    for node in nodes:
        node.stop()
    executor.shutdown(timeout_sec=1.0)
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


class Listener(FlowactNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("listener", **options)

    def begin(self) -> None:
        self.add_subscription(AudioChunk, topics.SPEECH, lambda message: None)


def test_a_publisher_that_cannot_be_heard_is_told_what_to_change(make: Make) -> None:
    node = make(Listener)
    node.autostart()
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_publisher(AudioChunk, topics.SPEECH, best_effort)
    make.until(lambda: node.last_error)
    assert "'/speech' is not heard" in node.last_error and "make it RELIABLE" in node.last_error


def health(bridge: KioskBridge) -> tuple[int, str]:
    bridge._watch()
    try:
        with urllib.request.urlopen(f"{bridge._server.origin}/healthz", timeout=10) as answer:
            return answer.status, json.loads(answer.read())["status"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["status"]


def test_a_page_whose_port_was_taken_comes_up_when_it_is_free(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "RETRY_S", 0.1)
    somebody = listen("127.0.0.1", 0)
    bridge = make(KioskBridge, port=somebody.getsockname()[1])
    assert not bridge.autostart()
    assert "already in use" in bridge.last_error and "comes up when it is free" in bridge.last_error
    for _ in range(3):
        make.until(lambda: bridge.state == "unconfigured")
    somebody.close()
    make.until(lambda: bridge.state == "active")
    assert health(bridge) == (503, "waiting for the avatar")


def test_what_does_not_pass_is_not_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "RETRY_S", 0.01)
    bridge = make(KioskBridge, host="no-such-host.invalid")
    assert not bridge.autostart()
    bridge.params._node.set_parameters([Parameter("host", value="127.0.0.1"), Parameter("port", value=0)])
    make.until(lambda: time.monotonic() - bridge._last_error_time > 0.3)
    assert bridge.state == "unconfigured"


def test_monitors_are_told_how_the_avatar_is(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENT_S", "METRICS_S"):  # more than this test may be kept waiting
        monkeypatch.setattr(kiosk_bridge, name, 100.0)
    bridge = make(KioskBridge, port=0)
    bridge.autostart()
    published: list[StreamMetrics] = []
    monkeypatch.setattr(bridge._metrics, "publish", published.append)
    assert health(bridge) == (503, "waiting for the avatar")
    bridge._on_metrics(StreamMetrics(fps=25.0, frames=700))
    assert health(bridge) == (200, "ok")
    assert not published
    bridge._metrics_time -= 101.0
    status, text = health(bridge)
    assert status == 503 and text.startswith("stalled: nothing was heard of the avatar")
    assert [(m.fps, m.frames, m.header.frame_id) for m in published] == [(0.0, 700, "kiosk_bridge")]
    bridge._on_metrics(published[0])  # what it says itself is no sign of life
    assert health(bridge)[0] == 503 and len(published) == 1
    bridge._on_metrics(StreamMetrics(fps=0.0))
    assert health(bridge) == (503, "stalled: no frames leave")
    bridge._on_metrics(StreamMetrics(fps=24.0))
    assert health(bridge) == (200, "ok")
    bridge.trigger_deactivate()
    bridge._watch = lambda: None  # a timer of the active state
    assert health(bridge) == (503, "paused")


def test_the_heart_stops_with_the_executor(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make(Listener)
    node.autostart()
    assert node.lives
    monkeypatch.setattr(base, "STUCK_S", 0.2)
    make.until(lambda: True)
    time.sleep(0.3)
    assert not node.lives  # nobody spins it
    monkeypatch.setattr(Listener, "load", lambda self: self.seen.append(self.lives), raising=False)
    node.seen = []
    node.trigger_deactivate()
    node.trigger_cleanup()
    time.sleep(0.3)
    node.trigger_configure()  # weights may take a minute
    assert node.seen == [True]


def test_a_chosen_character_comes_back_after_a_crash_and_cleanup_frees_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(STATE_FOLDER_VARIABLE, str(tmp_path))
    first = make(AvatarGenerator, preset="debug", threads=1)
    first.autostart()
    request = SetReference.Request(source=SetReference.Request.SOURCE_NAME, name="pixel")
    assert first._set_reference(request, SetReference.Response()).reference_id == "pixel"
    # What the crash of a process leaves is the file.
    pipeline = weakref.ref(first._pipeline)
    first.trigger_deactivate()
    first.trigger_cleanup()
    assert pipeline() is None
    second = make(AvatarGenerator, preset="debug", threads=1)
    assert second.trigger_configure() == base.TransitionCallbackReturn.SUCCESS
    assert second._reference_id == "pixel"
    assert not list(tmp_path.iterdir())  # a picture that brings the process down does so once
    second.trigger_activate()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rgb = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    monkeypatch.setenv(STATE_FOLDER_VARIABLE, str(tmp_path))
    kept = KeptReference("/robot1/avatar/avatar_generator")
    assert kept.take() is None
    kept.keep(rgb, "picture-1")
    assert KeptReference("/robot2/avatar/avatar_generator").take() is None
    found, name = KeptReference("/robot1/avatar/avatar_generator").take()
    np.testing.assert_array_equal(found, rgb)
    assert name == "picture-1" and kept.take() is None
    for broken in (b"", b"PK\x03\x04", b"no archive"):
        kept.keep(rgb, "x")
        next(tmp_path.iterdir()).write_bytes(broken)
        assert kept.take() is None
    monkeypatch.delenv(STATE_FOLDER_VARIABLE)
    alone = KeptReference("/avatar_generator")
    alone.keep(rgb, "x")
    assert alone.take() is None
