# SPDX-License-Identifier: Apache-2.0
"""The table of who uses which name is true of the nodes that run, and the SROS 2 policy is made from it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.action import get_action_client_names_and_types_by_node as action_clients
from rclpy.action import get_action_server_names_and_types_by_node as action_servers
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from flowact_ros.nodes import topics
from flowact_ros.nodes.graph import EVERY, NODES, OPTIONAL, PROGRAMS, Uses
from flowact_ros.nodes.security_policy import main, policy

pytestmark = pytest.mark.ros
NAMESPACE = "/robot1/avatar"
DEMO = str(Path(__file__).parents[2] / "config" / "demo.wav")


def _generator(reference: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.avatar_generator import AvatarGenerator

    return AvatarGenerator, {"preset": "debug", "threads": 1, "reference_image": str(reference)}


def _planner(_: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.instruction_planner import InstructionPlanner

    return InstructionPlanner, {"persona": "default"}


def _synthesizer(_: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.speech_synthesizer import SpeechSynthesizer

    return SpeechSynthesizer, {}


def _kiosk(_: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.kiosk_bridge import KioskBridge

    return KioskBridge, {"port": 0}


def _source(_: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.audio_capture import AudioCapture

    return AudioCapture, {"source": "file", "file": DEMO, "role": "speech"}


def _remote(_: Path) -> tuple[Any, dict[str, Any]]:
    from flowact_ros.nodes.remote_avatar import RemoteAvatar

    return RemoteAvatar, {"url": "ws://127.0.0.1:1"}  # nobody is there: its topics are


MAKERS: dict[str, Callable[[Path], tuple[Any, dict[str, Any]]]] = {
    "avatar_generator": _generator,
    "remote_avatar": _remote,
    "instruction_planner": _planner,
    "speech_synthesizer": _synthesizer,
    "kiosk_bridge": _kiosk,
    "speech_source": _source,
}


# What a node uses only with other parameters, or while somebody looks.
NOW_AND_THEN = {
    "avatar_generator": Uses(sends=frozenset({topics.SAY})),  # what /skill/say passes on
    "remote_avatar": Uses(sends=frozenset({topics.SAY})),
    "kiosk_bridge": Uses(
        publishes=frozenset({topics.MIC}),
        subscribes=frozenset({topics.COMPRESSED, topics.DIAGNOSTICS}),
        calls=frozenset({"microphone/change_state"}),
    ),
}


@contextmanager
def running(name: str, reference: Path) -> Iterator[Any]:
    """The node, active, in a context of its own."""
    kind, values = MAKERS[name](reference)
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-r", f"__node:={name}", "-r", f"__ns:={NAMESPACE}"], context=context)
    node = kind(context=context, parameter_overrides=[Parameter(key, value=value) for key, value in values.items()])
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.last_error
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.last_error
        yield node
    finally:
        node.stop()
        node.destroy_node()
        context.try_shutdown()


def found(node: Any) -> Uses:
    """What the middleware says that the node uses."""
    own = (node.get_name(), node.get_namespace())

    def short(entries: list[tuple[str, Any]]) -> frozenset[str]:
        names = [name for name, _ in entries if "/_action/" not in name]
        mine, space = f"{NAMESPACE}/{own[0]}/", f"{NAMESPACE}/"
        named = [f"~/{name.removeprefix(mine)}" if name.startswith(mine) else name for name in names]
        return frozenset(name.removeprefix(space) for name in named)

    return Uses(
        publishes=short(node.get_publisher_names_and_types_by_node(*own)),
        subscribes=short(node.get_subscriber_names_and_types_by_node(*own)),
        serves=short(node.get_service_names_and_types_by_node(*own)),
        calls=short(node.get_client_names_and_types_by_node(*own)),
        acts=short(action_servers(node, *own)),
        sends=short(action_clients(node, *own)),
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_node_uses_what_the_table_says(name: str, within: None, reference: Path) -> None:
    with running(name, reference) as node:
        used = found(node)
        used = used | NOW_AND_THEN.get(name, Uses())
    allowed = EVERY | NODES[name]
    for kind in (each.name for each in fields(Uses)):
        listed, seen = getattr(allowed, kind), getattr(used, kind)
        missing = listed - seen - OPTIONAL - {"/clock"}  # which only simulations have
        assert (seen - listed, missing) == (set(), set()), f"{name} {kind}: not in graph.py, not used by the node"


def test_every_name_has_its_users() -> None:
    uses = [*NODES.values(), *PROGRAMS.values(), EVERY]
    published = frozenset().union(*(each.publishes for each in uses))
    assert set(topics.QOS) <= published


def test_the_policy_is_the_table() -> None:
    root = ElementTree.fromstring(policy("robot1/avatar"))
    enclaves = {enclave.get("path"): enclave for enclave in root.iter("enclave")}
    assert set(enclaves) == {f"/robot1/avatar/{name}" for name in (*NODES, *PROGRAMS)}
    profile = enclaves["/robot1/avatar/kiosk_bridge"].find("profiles/profile")
    assert profile is not None and (profile.get("ns"), profile.get("node")) == (NAMESPACE, "kiosk_bridge")
    allowed = {entry.text for rule in profile.iterfind("topics[@publish]") for entry in rule}
    assert allowed == EVERY.publishes | NODES["kiosk_bridge"].publishes and topics.SPEECH not in allowed
    rules = {(rule.tag, *rule.attrib.items()) for rule in root.iter() if "ALLOW" in rule.attrib.values()}
    assert ("actions", ("execute", "ALLOW")) in rules and ("services", ("request", "ALLOW")) in rules


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--node", "client"]) == 0
    assert capsys.readouterr().out == policy("avatar", ["client"])
    for arguments, reason in ((["--node", "nobody"], "no node is called nobody"), (["--namespace", "1"], "namespace")):
        assert main(arguments) == 2
        complaint = capsys.readouterr().err
        assert reason in complaint and complaint.count("\n") == 1


if importlib.util.find_spec("sros2") and (ros2 := shutil.which("ros2")):  # of a sourced ROS 2; in no wheel

    def test_sros2_makes_keys_of_the_policy(tmp_path: Path) -> None:
        file, keystore = tmp_path / "policy.xml", tmp_path / "keystore"
        file.write_text(policy("robot1/avatar"), encoding="utf-8")
        for command in (["create_keystore", keystore], ["generate_artifacts", "-k", keystore, "-p", file]):
            subprocess.run([ros2, "security", *map(str, command)], check=True, timeout=120)
        for name in (*NODES, *PROGRAMS):
            assert (keystore / "enclaves" / "robot1" / "avatar" / name / "permissions.p7s").is_file()
