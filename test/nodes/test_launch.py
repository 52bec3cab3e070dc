# SPDX-License-Identifier: Apache-2.0
"""The launch file: with stand-ins that keep what they are given, and with real `launch_ros` where it is installed.

The real classes are used through subclasses that keep what they are given as well: the same assertions hold.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from flowact_ros.launcher.supervisor import EXIT_BAD_SETUP

try:
    importlib.import_module("launch_ros.actions")
except ImportError:  # a ROS 2 made of wheels has none
    WAYS = ["stand-ins"]
else:
    WAYS = ["stand-ins", "launch_ros"]

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
MODULES = {
    "ament_index_python": [],
    "ament_index_python.packages": [],
    "launch": ["LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
    "launch.actions": [
        "DeclareLaunchArgument",
        "EmitEvent",
        "LogInfo",
        "OpaqueFunction",
        "RegisterEventHandler",
    ],
    "launch.conditions": ["IfCondition"],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.events": ["matches_action"],
    "launch.events.process": ["ProcessExited", "ShutdownProcess"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["LifecycleNode", "Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}
UNCHANGED = {
    "LaunchContext",
    "LaunchDescriptionEntity",
    "LaunchConfiguration",
    "matches_action",
    "ProcessExited",
}


class Kept:
    """Keeps what it was made with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options


def keeping(real: type) -> type:
    """A real class, of which every object keeps what it was made with."""

    def init(self: Any, *args: Any, **options: Any) -> None:
        Kept.__init__(self, *args, **options)
        real.__init__(self, *args, **options)

    return type(real.__name__, (real,), {"__init__": init})


class Context:
    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}


class Configuration(Kept):
    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.args[0]]


STAND_INS = {
    "LaunchContext": Context,
    "LaunchConfiguration": Configuration,
    "matches_action": lambda wanted: lambda action: action is wanted,
}


@pytest.fixture(params=WAYS)
def launch_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    real = request.param == "launch_ros"
    for name, classes in MODULES.items():
        module = importlib.import_module(name) if real else types.ModuleType(name)
        for kind in classes:
            if not real:
                monkeypatch.setattr(
                    module, kind, STAND_INS.get(kind) or type(kind, (Kept,), {}), raising=False
                )
            elif kind not in UNCHANGED:
                monkeypatch.setattr(module, kind, keeping(getattr(module, kind)))
        monkeypatch.setitem(sys.modules, name, module)
    index = sys.modules["ament_index_python.packages"]
    monkeypatch.setattr(index, "get_package_share_directory", lambda package: str(ROOT), raising=False)
    spec = importlib.util.spec_from_file_location("flowact_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defaults(module: Any) -> dict[str, str]:
    return {a.args[0]: a.options["default_value"] for a in module.arguments(str(ROOT))}


def entities(module: Any, **given: str) -> list[Any]:
    context = module.LaunchContext()
    context.launch_configurations.update({**defaults(module), **given})
    return module.nodes(context)


def started(module: Any, **given: str) -> dict[str, Any]:
    """name -> node, of those whose condition holds."""
    found = [e for e in entities(module, **given) if type(e).__name__ == "LifecycleNode"]
    return {n.options["name"]: n for n in found if n.options["condition"].args[0] == "true"}


def test_arguments_are_described(launch_file: Any) -> None:
    arguments = {a.args[0]: a.options for a in launch_file.arguments(str(ROOT))}
    assert set(arguments) >= WANTED
    assert all(len(options["description"]) > 5 for options in arguments.values())
    for name in ("use_sim_time", "autostart"):
        assert arguments[name]["choices"] == ["true", "false"]
    assert "debug" in arguments["log_level"]["choices"]
    for options in arguments.values():
        assert options["default_value"] in options.get("choices", [options["default_value"]])


def test_choices_are_those_of_the_node(launch_file: Any) -> None:
    from flowact_ros.engine.characters import list_characters
    from flowact_ros.nodes.avatar_generator import AvatarGenerator

    offered = {a.args[0]: a.options.get("choices") for a in launch_file.arguments(str(ROOT))}
    known = {param.name: param.choices for param in AvatarGenerator.PARAMETERS}
    for name in ("preset", "schedule"):
        assert offered[name] == ["", *known[name]]
    assert offered["character"] == ["", *list_characters()] and len(offered["character"]) > 1


def test_nodes_and_their_parameters(launch_file: Any) -> None:
    nodes = started(
        launch_file, character="nova", namespace="r2/avatar", use_sim_time="true", log_level="debug"
    )
    assert set(nodes) == {
        "avatar_generator", "instruction_planner", "speech_synthesizer", "kiosk_bridge", "microphone"
    }  # fmt: skip
    entry_points = re.search(r"NODES = \(([^)]*)\)", (ROOT / "setup.py").read_text()).group(1)
    installed = set(ast.literal_eval(f"({entry_points})"))
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


@pytest.mark.parametrize(
    ("namespace", "enclave"), [("r2/avatar", "/r2/avatar/"), ("/r2", "/r2/"), ("/", "/"), ("", "/")]
)
def test_any_namespace_gives_a_valid_enclave(launch_file: Any, namespace: str, enclave: str) -> None:
    for name, node in started(launch_file, namespace=namespace).items():
        assert node.options["namespace"] == (namespace or "/")
        assert node.options["ros_arguments"] == ["--enclave", enclave + name]


def test_parts_can_be_left_out_and_added(launch_file: Any) -> None:
    nodes = started(
        launch_file, launch_microphone="false", launch_page="false", launch_synthesizer="false",
        launch_recognizer="true", launch_player="true", speech_file="/a.wav", autostart="false",
    )
    assert set(nodes) == {
        "avatar_generator", "instruction_planner", "speech_recognizer", "audio_player", "speech_source"
    }  # fmt: skip
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


def test_a_missing_params_file_is_an_error(launch_file: Any) -> None:
    with pytest.raises(FileNotFoundError, match="params_file '/no/such.yaml' is not a file"):
        entities(launch_file, params_file="/no/such.yaml")


def test_the_description(launch_file: Any) -> None:
    (found,) = launch_file.generate_launch_description().args
    kinds = [type(entity).__name__ for entity in found]
    assert kinds == ["DeclareLaunchArgument"] * (len(kinds) - 1) + ["OpaqueFunction"]
    assert found[-1].options["function"] is launch_file.nodes


@pytest.mark.parametrize("code", [EXIT_BAD_SETUP, 0, 1, -9])
def test_only_a_bad_setup_is_final(launch_file: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = entities(launch_file, speech_file="/a.wav")
    handlers = [e.args[0].options for e in found if type(e).__name__ == "RegisterEventHandler"]
    nodes = [e for e in found if type(e).__name__ == "LifecycleNode"]
    assert [h["target_action"] for h in handlers] == nodes
    for node, handler in zip(nodes, handlers):
        assert node.options["respawn"] is True
        monkeypatch.setattr(type(node), "node_name", "/avatar/its_name", raising=False)  # known once it runs
        then = handler["on_exit"](types.SimpleNamespace(returncode=code), None)
        assert [type(entity).__name__ for entity in then] == ["LogInfo", "EmitEvent"] * (
            code == EXIT_BAD_SETUP
        )
        if then:
            assert "/avatar/its_name" in then[0].options["msg"]
            hits = then[1].options["event"].options["process_matcher"]
            assert [hits(other) for other in nodes] == [other is node for other in nodes]


def test_several_namespaces_share_a_generator(launch_file: Any) -> None:
    robots = ["r1/avatar", "r2/avatar"]
    found = entities(launch_file, namespace=" ".join(robots), preset="debug", log_level="debug", launch_planner="false")
    (shared,) = [e for e in found if type(e).__name__ == "Node"]
    assert (shared.options["executable"], shared.options["name"]) == ("shared_generator", "avatar_generator")
    assert shared.options["arguments"] == ["--namespaces", *robots, "--ros-args", "--log-level", "debug"]
    assert "namespace" not in shared.options and shared.options["parameters"][1]["preset"].args == ("debug",)
    nodes = [e for e in found if type(e).__name__ == "LifecycleNode" and e.options["condition"].args[0] == "true"]
    assert sorted((n.options["namespace"], n.options["name"]) for n in nodes) == [
        (robot, name) for robot in robots for name in ("kiosk_bridge", "speech_synthesizer")
    ]
    ports = [n.options["parameters"][1]["port"] for n in nodes if n.options["name"] == "kiosk_bridge"]
    assert ports == [8620, 8621]


if "launch_ros" in WAYS:

    @pytest.mark.parametrize("launch_file", ["launch_ros"], indirect=True)
    @pytest.mark.parametrize("code", [EXIT_BAD_SETUP, 1])
    def test_real_launch_restarts(
        launch_file: Any, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A program in a node's place that ends with `code`, under the real launch service."""
        import launch.actions

        class Program(launch.actions.ExecuteProcess):
            node_name = "/avatar/its_name"

        monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
        starts = tmp_path / "starts"
        program = f"open({str(starts)!r}, 'a').write('.'); raise SystemExit({code})"
        process = Program(cmd=[sys.executable, "-S", "-c", program], respawn=True, respawn_delay=0.3)
        end = launch.actions.TimerAction(period=5.0, actions=[launch.actions.Shutdown()])
        service = launch.LaunchService(noninteractive=True)
        service.include_launch_description(
            launch.LaunchDescription([launch_file.unless_hopeless(process), process, end])
        )
        assert asyncio.run(service.run_async()) == 0
        assert (len(starts.read_text()) == 1) == (code == EXIT_BAD_SETUP)
