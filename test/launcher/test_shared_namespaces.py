# SPDX-License-Identifier: Apache-2.0
"""`flowact up` with several namespaces: one generator for all, everything else for each; and what is refused."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from flowact_ros import cli
from flowact_ros.launcher import bringup
from flowact_ros.launcher.child import Child, NodeSpec
from flowact_ros.launcher.supervisor import Supervisor

TWO = ["--namespace", "robot1/avatar", "robot2/avatar"]


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[NodeSpec]:
    seen: list[bringup.Options] = []
    monkeypatch.setattr(bringup, "run_up", lambda options: seen.append(options) or 0)
    assert cli.main(["up", *arguments]) == 0
    return bringup.node_specs(seen[0])


def test_the_generator_is_one_and_the_rest_is_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {spec.title: spec for spec in asked(monkeypatch, *TWO, "--preset", "debug", "--port", "9000")}
    each = ("kiosk_bridge", "instruction_planner", "speech_synthesizer")
    assert set(specs) == {"avatar_generator", *(f"{ns}/{name}" for ns in TWO[1:] for name in each)}
    command = specs["avatar_generator"].command()
    module = command.index("flowact_ros.nodes.shared_generator")
    assert command[module : module + 5] == [command[module], *["--namespaces", *TWO[1:]], "--ros-args"]
    assert not any("__ns:=" in part for part in command) and 'preset:="debug"' in command
    pages = [specs[f"{ns}/kiosk_bridge"] for ns in TWO[1:]]
    assert [page.parameters["port"] for page in pages] == [9000, 9001]
    assert [page.name for page in pages] == ["kiosk_bridge"] * 2
    assert "__ns:=/robot2/avatar" in pages[1].command()


def test_one_namespace_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {spec.name: spec for spec in asked(monkeypatch, "--namespace", "robot1/avatar")}
    assert specs["avatar_generator"].module == "flowact_ros.nodes.avatar_generator"
    assert "__ns:=/robot1/avatar" in specs["avatar_generator"].command() and "microphone" in specs
    ports = [spec.parameters["port"] for spec in asked(monkeypatch, *TWO) if spec.name == "kiosk_bridge"]
    assert ports == [8620, 8621]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--namespace", "robot1", "/robot1"], "--namespace: robot1 is given twice"),
        ([*TWO, "--mic", "usb"], "--mic: is for one avatar, and 2 namespaces were given"),
        ([*TWO, "--listen", "tiny.en"], "--listen: is for one avatar"),
        (["--namespace", "robot1", "robot 2"], "namespace 'robot 2' is none that ROS takes"),
    ],
)
def test_what_several_cannot_have_is_refused(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["up", *arguments]) == 2
    assert line in capsys.readouterr().err


def test_keys_of_sros_are_of_one_avatar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    assert cli.main(["up", *TWO]) == 2
    assert "with SROS 2 each avatar needs a process and keys of its own" in capsys.readouterr().err


def test_a_process_of_several_nodes_is_up_when_one_is_and_all_have_spoken() -> None:
    spec = NodeSpec("avatar_generator", "nothing", namespaces=("a", "b"))
    child = Child(spec, lambda line: None, threading.Condition())
    told = [
        ("inactive", "/a/x", "", "starting"),
        ("failed", "/b/x", "no picture", "inactive"),
        ("unconfigured", "/b/x", "", "inactive"),  # it cleans up after the failure
        ("active", "/a/x", "", "active"),
        ("failed", "/a/x", "a cable", "failed"),
        ("inactive", "/b/x", "", "inactive"),
        ("active", "/b/x", "", "active"),
    ]
    for event, node, error, state in told:
        child._on_event(event, {"node": node, "error": error} if error else {"node": node})
        assert child.state == state, (event, node)
    assert "a cable" in str(child.failure())
    alone = Child(NodeSpec("kiosk_bridge", "nothing"), lambda line: None, threading.Condition())
    alone._on_event("failed", {"node": "/avatar/kiosk_bridge", "error": "port"})
    assert alone.state == "failed"


def test_nodes_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quiet_node.py").write_text("import sys\ndef main():\n    sys.stdin.read()\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    specs = [NodeSpec("page", "quiet_node", oneshot=True, label=f"{name}/page") for name in ("a", "b")]
    lines: list[str] = []
    with Supervisor(specs, log=lines.append) as supervisor:
        assert supervisor.names == ["a/page", "b/page"]
        assert supervisor.pid("a/page") != supervisor.pid("b/page")
        assert supervisor.finish("a/page", 60.0) is not None and supervisor.state("b/page") == "starting"


NODES = """
import json, os, pathlib, sys, time
def tell(**record):
    os.write(int(os.environ["FLOWACT_STATUS_FD"]), (json.dumps(record) + "\\n").encode())
def main():
    tell(event="active", node="/a/x"); tell(event="failed", node="/b/x", error="1 stream fits")
    while not pathlib.Path(os.environ["ROOM"]).exists(): time.sleep(0.02)
    tell(event="active", node="/b/x"); sys.stdin.read()
"""


def test_up_says_which_of_several_avatars_is_not_there_until_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two_nodes.py").write_text(NODES, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    monkeypatch.setenv("ROOM", str(tmp_path / "room"))
    monkeypatch.setattr(bringup, "node_specs", lambda options: [NodeSpec("x", "two_nodes", namespaces=("a", "b"))])
    stop, said = threading.Event(), []
    monkeypatch.setattr(bringup, "_stop_on_signals", lambda: stop)

    def say(line: str) -> None:
        said.append(line)
        if "/b/x" in line:
            (stop.set if (tmp_path / "room").exists() else (tmp_path / "room").touch)()

    monkeypatch.setattr(bringup, "say", say)
    assert bringup.run_up(bringup.Options(shared=("a", "b"), log_file=str(tmp_path / "log"))) == 0
    assert said[1:] == ["all nodes but /b/x are active", "/b/x is active", "stopping"]
