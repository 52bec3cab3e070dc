# SPDX-License-Identifier: Apache-2.0
"""The page's bridge with real topics: a touched turn and whose microphone it opens, and the fleet that is found."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, AvatarState, Instruction, StreamMetrics, Transcript
from flowact_ros.kiosk.hub import LEFT, VOICE, PageEvent
from flowact_ros.kiosk.protocol import STOP, TALK, pack
from flowact_ros.kiosk.protocol import VOICE as VOICE_KIND
from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg
from flowact_ros.nodes import kiosk_turn, topics
from flowact_ros.nodes.audio_capture import AudioCapture
from flowact_ros.nodes.convert import compressed_message, to_time
from flowact_ros.nodes.kiosk_bridge import KioskBridge

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("within")]


class World:
    """A bridge and whoever it talks to, in one context, spun by the test. Robots' others are one node, `others`."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.others = rclpy.create_node("others", namespace="/shop/avatar", context=self.context)
        self.executor.add_node(self.others)
        self.nodes: list[Any] = []
        self.heard: dict[str, list[Any]] = {}

    def add(self, kind: type, name: str = "", **values: Any) -> Any:
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        rename = ["--ros-args", "-r", f"__node:={name}"] if name else None
        node = kind(context=self.context, namespace="/shop/avatar", parameter_overrides=overrides, cli_args=rename)
        self.nodes.append(node)
        self.executor.add_node(node)
        node.autostart()
        return node

    def hear(self, kind: type, name: str) -> list[Any]:
        messages = self.heard.setdefault(name, [])
        self.others.create_subscription(kind, name, messages.append, topics.AUDIO_DEEP_QOS)
        return messages

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"did not happen: {what}"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        self.executor.shutdown(timeout_sec=1.0)
        for node in [*self.nodes, self.others]:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def does(bridge: KioskBridge, kind: str, value: Any = None, page: str = "p1", rate: int = 0) -> None:
    bridge._on_event(PageEvent(page, kind, value, rate))


def turn(bridge: KioskBridge) -> dict[str, Any]:
    return bridge._state.get("turn", {})


class Conducted:
    """An avatar that speaks, with a planner and a recogniser: what they publish, and what they are told."""

    def __init__(self, world: World, bridge: KioskBridge) -> None:
        self.world, self.interrupts = world, 0
        node = world.others
        self.told = world.hear(Instruction, topics.INSTRUCTION)
        self.instruction = node.create_publisher(Instruction, topics.INSTRUCTION, topics.EVENT_QOS)
        self.state = node.create_publisher(AvatarState, topics.STATE, topics.LATCHED_QOS)
        self.transcript = node.create_publisher(Transcript, topics.TRANSCRIPT, topics.EVENT_QOS)
        self.voice = node.create_publisher(Bool, topics.USER_SPEAKING, topics.LATCHED_QOS)
        node.create_service(Trigger, topics.INTERRUPT, self._interrupt)
        world.until(
            lambda: bridge.count_publishers(topics.INSTRUCTION) == 2
            and bridge._turn._interrupter.service_is_ready()
            and self.voice.get_subscription_count()
            and self.transcript.get_subscription_count(),
            "the bridge and the others know each other",
        )

    def _interrupt(self, request: Any, response: Any) -> Any:
        self.interrupts += 1
        response.success = True
        return response

    def speaks(self, bridge: KioskBridge, speaking: bool) -> None:
        self.state.publish(AvatarState(behaviour=AvatarState.SPEAKING if speaking else 0, robot_speaking=speaking))
        self.world.until(lambda: bridge._state.get("speaking") is speaking, "its state is known")

    def by_the_page(self) -> list[int]:
        return [message.behaviour for message in self.told if message.header.frame_id == "kiosk_bridge"]


def test_a_touch_interrupts_listens_and_the_answer_ends_it(world: World) -> None:
    bridge = world.add(KioskBridge, port=0)
    avatar = Conducted(world, bridge)
    avatar.speaks(bridge, True)
    does(bridge, STOP)
    world.until(lambda: avatar.interrupts == 1, "a stop")
    assert turn(bridge) == {} and not avatar.by_the_page()
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge) == {"page": "p1", "phase": "open"}, "the turn")
    world.until(lambda: avatar.interrupts == 2 and avatar.by_the_page() == [Instruction.LISTENING], "it listens")
    # The planner sees the speech end and would have it idle.
    avatar.speaks(bridge, False)
    avatar.instruction.publish(Instruction(behaviour=Instruction.IDLE))
    world.until(lambda: avatar.by_the_page() == [Instruction.LISTENING] * 2, "it still listens")
    does(bridge, TALK, True, page="p2")  # has to wait
    does(bridge, TALK, False, page="p2")
    does(bridge, LEFT, page="p2")
    world.spin(0.3)
    assert turn(bridge)["page"] == "p1"
    avatar.instruction.publish(Instruction(behaviour=Instruction.SPEAKING))
    avatar.speaks(bridge, True)  # the answer
    assert turn(bridge) == {}
    world.spin(0.2)
    assert avatar.by_the_page() == [Instruction.LISTENING] * 2  # the planner conducts again


def test_a_turn_that_nobody_uses_ends_and_so_does_one_of_a_page_that_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = world.add(KioskBridge, port=0, talk_timeout=2.0)
    avatar = Conducted(world, bridge)
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge), "the turn")
    world.until(lambda: not turn(bridge), "its end")
    world.until(lambda: avatar.by_the_page() == [Instruction.LISTENING, Instruction.IDLE], "it rests")
    bridge._turn._longest_s = 600.0  # from here on something else ends it
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge), "the turn")
    does(bridge, LEFT)
    world.until(lambda: not turn(bridge), "its end")
    # Words that were understood end it as well, unless the voice goes on.
    monkeypatch.setattr(kiosk_turn, "UNDERSTOOD_S", 60.0)
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge), "the turn")
    avatar.transcript.publish(Transcript(text="When do", final=True))
    world.until(lambda: bridge._turn._close_at_s < float("inf"), "the words are known")
    avatar.voice.publish(Bool(data=True))
    world.until(lambda: bridge._turn._close_at_s == float("inf"), "the voice is known")
    world.spin(0.8)
    assert turn(bridge)
    monkeypatch.setattr(kiosk_turn, "UNDERSTOOD_S", 0.3)
    avatar.voice.publish(Bool(data=False))
    world.until(lambda: not bridge._turn._voiced, "its end is known")
    avatar.transcript.publish(Transcript(text="you open?", final=True))
    world.until(lambda: not turn(bridge), "its end")


def test_without_a_planner_the_face_is_left_alone_and_without_an_avatar_a_stop_is_reported(world: World) -> None:
    bridge = world.add(KioskBridge, port=0)
    told = world.hear(Instruction, topics.INSTRUCTION)
    does(bridge, TALK, True)
    does(bridge, STOP)
    world.until(lambda: bridge.last_error, "a report")
    assert "nobody serves /shop/avatar/interrupt" in bridge.last_error
    assert turn(bridge)["phase"] == "open" and not told


def test_push_the_robots_microphone_is_active_during_a_turn_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kiosk_turn, "HANGOVER_S", 0.1)
    monkeypatch.setattr(kiosk_turn, "ASK_AGAIN_S", 0.2)
    microphone = world.add(AudioCapture, "microphone", role="mic", source="file")
    assert microphone.state == "active"
    bridge = world.add(KioskBridge, port=0, talk="push")
    world.until(lambda: microphone.state == "inactive", "it is closed")
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge).get("phase") == "open", "the turn")
    assert microphone.state == "active"
    does(bridge, TALK, False)
    world.until(lambda: microphone.state == "inactive", "it is closed again")
    assert turn(bridge) == {}
    microphone.trigger_activate()  # as after a crash
    world.until(lambda: microphone.state == "inactive", "it is closed at once")


def test_push_without_a_microphone_is_told_to_the_page(world: World) -> None:
    bridge = world.add(KioskBridge, port=0, talk="push")
    does(bridge, TALK, True)
    world.until(lambda: turn(bridge).get("problem"), "a problem")
    assert turn(bridge) == {"page": "p1", "problem": "The microphone does not answer"}
    assert "no node is called /shop/avatar/microphone" in bridge.last_error


def test_page_a_voice_from_the_websocket_goes_to_mic(world: World) -> None:
    bridge = world.add(KioskBridge, port=0, talk="page")
    heard: list[AudioChunk] = world.hear(AudioChunk, topics.MIC)
    world.until(lambda: bridge._turn._voice.get_subscription_count(), "a listener")
    does(bridge, VOICE, bytes(1280), rate=16_000)  # without the turn: not heard
    pieces = [np.full(640, k + 1, "<i2").tobytes() for k in range(5)]
    origin = bridge._server.origin

    async def talk() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{origin}/ws", headers={"Origin": origin}) as page,
        ):
            await page.send_str('{"type": "talk", "on": true}')
            for number, piece in enumerate(pieces):
                await page.send_bytes(pack(VOICE_KIND, piece, rate=16_000, sequence=number))
            await asyncio.get_running_loop().run_in_executor(
                None, world.until, lambda: len(heard) == 5 and turn(bridge).get("phase") == "open", "a voice"
            )

    asyncio.run(talk())
    assert [bytes(message.data) for message in heard] == pieces
    assert [(m.sequence, m.first_sample, m.sample_rate, m.channels) for m in heard] == [
        (k, 640 * k, 16_000, 1) for k in range(5)
    ]
    world.until(lambda: turn(bridge) == {}, "the page has left")


def fleet(bridge: KioskBridge) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{bridge._server.origin}/fleet.json", timeout=10) as answer:
        return {avatar["namespace"]: avatar for avatar in json.load(answer)["avatars"]}


@pytest.mark.slow
def test_the_fleet_is_found_in_whatever_namespaces_while_somebody_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = world.add(KioskBridge, port=0)
    node = world.others
    metrics = node.create_publisher(StreamMetrics, "/hall/robot2/avatar/metrics", topics.EVENT_QOS)
    state = node.create_publisher(AvatarState, "/hall/robot2/avatar/state", topics.LATCHED_QOS)
    picture = node.create_publisher(CompressedImage, "/hall/robot2/avatar/image_raw/compressed", topics.IMAGE_QOS)
    health = node.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, topics.EVENT_QOS)
    node.create_publisher(Bool, "/machine/metrics", topics.EVENT_QOS)  # another kind of metrics
    jpeg = encode_jpeg(np.full((48, 64, 3), 120, np.uint8))
    node.create_timer(0.2, lambda: picture.publish(compressed_message(jpeg, to_time(0), "")))
    world.spin(1.2)
    assert metrics.get_subscription_count() == 0  # nobody looks
    assert fleet(bridge) == {}
    world.until(lambda: metrics.get_subscription_count() and health.get_subscription_count(), "somebody looks")
    state.publish(AvatarState(behaviour=AvatarState.SPEAKING, robot_speaking=True))
    metrics.publish(StreamMetrics(fps=25.0, load=0.5, ttff=float("nan"), frames=700, motion_alarms=["drift"]))
    kind = DiagnosticStatus(level=b"\x00", name="hall/robot2/avatar/kiosk_bridge", hardware_id="flowact", message="1")
    kind.values = [KeyValue(key="page", value="http://192.0.2.9:8620/")]
    health.publish(DiagnosticArray(status=[kind, DiagnosticStatus(name="hall/robot2/avatar/motor", hardware_id="x")]))
    name = "/hall/robot2/avatar"
    found = world.until(
        lambda: (f := fleet(bridge)).get(name, {}).get("picture") and f[name]["page"] and f[name]["metrics"] and f,
        "its figures",
    )
    assert set(found) == {"/shop/avatar", name}  # its own namespace, and the other one
    avatar = found[name]
    assert (avatar["status"], avatar["behaviour"], avatar["speaking"]) == ("warn", "speaking", True)
    assert (avatar["metrics"]["fps"], avatar["metrics"]["ttff"], avatar["alarms"]) == (25.0, None, ["drift"])
    assert [entry["name"] for entry in avatar["nodes"]] == ["kiosk_bridge"]
    assert avatar["page"] == "http://192.0.2.9:8620/"
    assert decode_jpeg(base64.b64decode(avatar["picture"])).shape == (24, 32, 3)
    world.until(lambda: picture.get_subscription_count() == 0, "one frame was enough")
    monkeypatch.setattr("flowact_ros.nodes.fleet_watch.SILENT_S", 0.5)
    world.until(lambda: fleet(bridge)[name]["status"] == "silent", "it is silent")
    monkeypatch.setattr("flowact_ros.kiosk.server.WANTED_AFTER_FLEET_S", -1.0)
    fleet(bridge)
    world.until(lambda: metrics.get_subscription_count() == 0, "nobody looks any more")
