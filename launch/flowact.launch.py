# SPDX-License-Identifier: Apache-2.0
"""All nodes of one avatar.

    ros2 launch flowact_ros flowact.launch.py character:=NAME
    ros2 launch flowact_ros flowact.launch.py namespace:=robot1/avatar params_file:=robot1.yaml autostart:=false
    ros2 launch flowact_ros flowact.launch.py namespace:="robot1/avatar robot2/avatar"   # two avatars, one model
    ros2 launch flowact_ros flowact.launch.py --show-args

Nodes configure and activate themselves unless `autostart:=false`; then a lifecycle manager, or
`ros2 lifecycle set /avatar/avatar_generator configure`, does it. A node that ends or hangs is started again, unless its
settings are not usable.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

import flowact_ros
from flowact_ros.launcher.resources import FIRST_PORT
from flowact_ros.launcher.supervisor import EXIT_BAD_SETUP, STATE_FOLDER_VARIABLE

PACKAGE = "flowact_ros"
STATE = tempfile.TemporaryDirectory(prefix="flowact-state-")  # the character comes back after a crash; gone with launch


def characters() -> list[str]:
    """What `engine.characters.list_characters` lists, without its imports: torch need not be there for `launch`."""
    return sorted(path.stem for path in Path(flowact_ros.__file__).parent.glob("weights/characters/*.png"))


def arguments(share: str) -> list[DeclareLaunchArgument]:
    """Everything that can be given on the command line; `--show-args` prints it."""
    boolean = ["true", "false"]
    return [
        DeclareLaunchArgument(
            "namespace",
            default_value="avatar",
            description="Namespace of all topics and nodes; several, with spaces between them: as many avatars, whose "
            "generators share one process and model, without microphone, recogniser, player and speech_file",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=os.path.join(share, "config", "flowact.yaml"),
            description="ROS parameters of the nodes; the arguments below are stronger",
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=boolean, description="Stamps follow /clock"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=boolean,
            description="Configure and activate at start; false: wait for a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Of all nodes",
        ),
        DeclareLaunchArgument(
            "preset",
            default_value="",
            choices=["", "avatar_cpu", "debug", "avatar_spatial_debug", "avatar_1b", "avatar_14b"],
            description="Model; debug has random weights; empty: that of params_file (avatar_cpu)",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="Where the model runs: cpu, cuda, or a certain GPU (cuda:0, cuda:1, ...); "
            "empty: that of params_file (cpu)",
        ),
        DeclareLaunchArgument(
            "schedule",
            default_value="",
            choices=["", "sequential", "diagonal"],
            description="How denoising steps are spent. The live stream runs sequential, for which the shipped "
            "weights were trained; with diagonal, which rollouts know, the generator does not configure. "
            "Empty: that of params_file (sequential)",
        ),
        DeclareLaunchArgument(
            "character",
            default_value="",
            choices=["", *characters()],
            description="A shipped character; empty: that of params_file, else the first one",
        ),
        DeclareLaunchArgument(
            "speech_file",
            default_value="",
            description="A sound file to speak once; empty: speech comes from others",
        ),
        DeclareLaunchArgument(
            "launch_microphone", default_value="true", choices=boolean, description="Listen to a microphone"
        ),
        DeclareLaunchArgument(
            "launch_planner", default_value="true", choices=boolean, description="Choose behaviours by rules"
        ),
        DeclareLaunchArgument(
            "launch_recognizer",
            default_value="false",
            choices=boolean,
            description="Turn what is heard into text; needs the extra `talk` and a model (`flowact weights list`)",
        ),
        DeclareLaunchArgument(
            "launch_synthesizer",
            default_value="true",
            choices=boolean,
            description="Speak texts; false: a synthesizer of the robot's own serves `synthesize`",
        ),
        DeclareLaunchArgument(
            "launch_player",
            default_value="false",
            choices=boolean,
            description="Play the avatar's sound on this machine's own loudspeaker; the page plays it, too",
        ),
        DeclareLaunchArgument(
            "launch_page", default_value="true", choices=boolean, description="Serve the page"
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="true",
            choices=boolean,
            description="Start a node again that ended, unless its settings are not usable",
        ),
    ]


def unless_hopeless(node: Node) -> RegisterEventHandler:
    """Calls the restart of a node off whose settings are not usable: it would fail the same way again, for ever."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode != EXIT_BAD_SETUP:
            return []
        # The event ends the pause that `respawn` makes.
        return [
            LogInfo(msg=f"{node.node_name} stays off: its settings are not usable, see its error above"),
            EmitEvent(event=ShutdownProcess(process_matcher=matches_action(node))),
        ]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known: an empty argument must not override the file."""

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    if not os.path.isfile(given("params_file")):  # launch would only warn, and go on without it
        raise FileNotFoundError(f"params_file {given('params_file')!r} is not a file")
    common: dict = {
        "use_sim_time": given("use_sim_time") == "true",
        "autostart": given("autostart") == "true",
    }
    generator = {
        name: ParameterValue(given(name), value_type=str)
        for name in ("preset", "device", "schedule", "character")
        if given(name)
    }
    speech = {
        "role": "speech",
        "source": "file",
        "file": ParameterValue(given("speech_file"), value_type=str),
    }

    namespaces = given("namespace").split() or ["/"]

    def node(
        name: str, executable: str, parameters: dict | None = None, when: str = "true", namespace: str = namespaces[0]
    ) -> LifecycleNode:
        return LifecycleNode(
            package=PACKAGE,
            executable=executable,
            name=name,
            namespace=namespace,
            parameters=[given("params_file"), {**common, **(parameters or {})}],
            arguments=["--ros-args", "--log-level", given("log_level")],
            ros_arguments=["--enclave", "/" + f"{namespace}/{name}".strip("/")],  # its keys, where SROS 2 is on
            respawn=given("respawn") == "true",
            respawn_delay=0.5,
            output="screen",
            emulate_tty=True,
            additional_env={STATE_FOLDER_VARIABLE: STATE.name},
            condition=IfCondition(when),
        )

    if len(namespaces) > 1:
        shared = Node(
            package=PACKAGE,
            executable="shared_generator",
            name="avatar_generator",
            parameters=[given("params_file"), {**common, **generator}],
            arguments=["--namespaces", *namespaces, "--ros-args", "--log-level", given("log_level")],
            respawn=given("respawn") == "true",
            respawn_delay=0.5,
            output="screen",
            emulate_tty=True,
            additional_env={STATE_FOLDER_VARIABLE: STATE.name},
        )
        chosen = [shared]
        for number, name in enumerate(namespaces):
            page = {"port": FIRST_PORT + number}
            chosen += [
                node("instruction_planner", "instruction_planner", {}, given("launch_planner"), name),
                node("speech_synthesizer", "speech_synthesizer", {}, given("launch_synthesizer"), name),
                node("kiosk_bridge", "kiosk_bridge", page, given("launch_page"), name),
            ]
        return [*map(unless_hopeless, chosen), *chosen]
    chosen = [
        node("avatar_generator", "avatar_generator", generator),
        node("speech_recognizer", "speech_recognizer", when=given("launch_recognizer")),
        node("instruction_planner", "instruction_planner", when=given("launch_planner")),
        node("speech_synthesizer", "speech_synthesizer", when=given("launch_synthesizer")),
        node("audio_player", "audio_player", when=given("launch_player")),
        node("kiosk_bridge", "kiosk_bridge", when=given("launch_page")),
        node(
            "microphone",
            "audio_capture",
            {"role": "mic", "source": "microphone"},
            when=given("launch_microphone"),
        ),
        *([node("speech_source", "audio_capture", speech)] if given("speech_file") else []),
    ]
    return [*map(unless_hopeless, chosen), *chosen]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    share = get_package_share_directory(PACKAGE)
    return LaunchDescription([*arguments(share), OpaqueFunction(function=nodes)])
