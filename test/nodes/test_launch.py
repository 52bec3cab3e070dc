# SPDX-License-Identifier: Apache-2.0
"""The launch file: with real `launch_ros` where it is installed, else with stand-ins that keep what they are given."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "launch" / "flowact.launch.py"
WANTED = {
    "namespace",
    "params_file",
    "use_sim_time",
    "autostart",
    "log_level",
    "device",
    "schedule",
    "character",
    "preset",
}


class Kept:
    """Keeps what it was made with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options


class Configuration(Kept):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    modules = {
        "launch": ["LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
        "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable"],
        "launch.conditions": ["IfCondition"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["LifecycleNode"],
        "launch_ros.parameter_descriptions": ["ParameterValue"],
    }
    for name, classes in modules.items():
        module = types.ModuleType(name)
        for kind in classes:
            made = type(kind, (Configuration if kind == "LaunchConfiguration" else Kept,), {})
            setattr(module, kind, made)
        monkeypatch.setitem(sys.modules, name, module)
    index = types.ModuleType("ament_index_python.packages")
    index.get_package_share_directory = lambda package: str(tmp_path / package)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ament_index_python", types.ModuleType("ament_index_python"))
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", index)
    spec = importlib.util.spec_from_file_location("flowact_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defaults(module: Any) -> dict[str, str]:
    return {a.args[0]: a.options["default_value"] for a in module.arguments("/share")}


def started(module: Any, **given: str) -> dict[str, Any]:
    """name -> node, of those whose condition holds."""
    found = module.nodes({**defaults(module), **given})
    return {n.options["name"]: n for n in found if n.options["condition"].args[0] == "true"}


def test_arguments_are_described(launch_file: Any) -> None:
    arguments = {a.args[0]: a.options for a in launch_file.arguments("/share")}
    assert set(arguments) >= WANTED
    assert all(len(options["description"]) > 5 for options in arguments.values())
    for name in ("use_sim_time", "autostart"):
        assert arguments[name]["choices"] == ["true", "false"]
    assert "diagonal" in arguments["schedule"]["choices"] and "debug" in arguments["log_level"]["choices"]
    for options in arguments.values():
        assert options["default_value"] in options.get("choices", [options["default_value"]])


def test_nodes_and_their_parameters(launch_file: Any) -> None:
    nodes = started(
        launch_file, character="nova", namespace="r2/avatar", use_sim_time="true", log_level="debug"
    )
    assert set(nodes) == {"avatar_generator", "instruction_planner", "kiosk_bridge", "microphone"}
    entry_points = re.search(r"NODES = \(([^)]*)\)", (ROOT / "setup.py").read_text()).group(1)
    installed = set(ast.literal_eval(f"({entry_points},)".replace(",,", ",")))
    for node in nodes.values():
        options = node.options
        assert options["package"] == "flowact_ros" and options["executable"] in installed
        assert options["namespace"] == "r2/avatar"
        assert options["arguments"] == ["--ros-args", "--log-level", "debug"]
        file, values = options["parameters"]
        assert file.endswith("config/flowact.yaml")
        assert values["use_sim_time"] is True and values["autostart"] is True
    generator = nodes["avatar_generator"].options["parameters"][1]
    assert generator["character"].args == ("nova",)
    assert not {"preset", "device", "schedule"} & set(generator)  # empty ones must not override the file


def test_parts_can_be_left_out_and_added(launch_file: Any) -> None:
    nodes = started(
        launch_file, launch_microphone="false", launch_page="false", speech_file="/a.wav", autostart="false"
    )
    assert set(nodes) == {"avatar_generator", "instruction_planner", "speech_source"}
    speech = nodes["speech_source"].options["parameters"][1]
    assert speech["file"].args == ("/a.wav",) and speech["autostart"] is False


def test_every_parameter_exists(launch_file: Any) -> None:
    from flowact_ros.nodes.audio_capture import AudioCapture
    from flowact_ros.nodes.avatar_generator import AvatarGenerator

    kinds = {"avatar_generator": AvatarGenerator, "microphone": AudioCapture, "speech_source": AudioCapture}
    nodes = started(
        launch_file, preset="debug", device="cpu", schedule="diagonal", character="nova", speech_file="/a"
    )
    for name, kind in kinds.items():
        known = {param.name for param in kind.PARAMETERS} | {"use_sim_time", "autostart"}
        assert set(nodes[name].options["parameters"][1]) <= known


def test_the_description(launch_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    (entities,) = launch_file.generate_launch_description().args
    kinds = [type(entity).__name__ for entity in entities]
    assert kinds[-1] == "OpaqueFunction" and entities[-1].options["function"] is launch_file.nodes
    variables = {e.args[0]: e.args[1] for e in entities if type(e).__name__ == "SetEnvironmentVariable"}
    assert variables == {"OMP_WAIT_POLICY": "active"}  # the user's own stays
