# SPDX-License-Identifier: Apache-2.0
"""The two ROS packages: what their manifests say, and what the set-up installed in this environment."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODES = (
    "audio_capture",
    "speech_recognizer",
    "instruction_planner",
    "speech_synthesizer",
    "avatar_generator",
    "kiosk_bridge",
)
INSTALLED = ROOT / "install" / "flowact_ros" / "lib" / "flowact_ros"
INTERFACES = sorted(p.relative_to(ROOT / "flowact_msgs") for p in (ROOT / "flowact_msgs").glob("*/*.[msa]*"))


def built() -> None:
    """Skips the test outside an environment that `make setup` prepared."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("these tests need the environment of `make setup`")


def fields(path: Path) -> list[tuple[str, str, str]]:
    """(type, name, comment) of every field of an interface file, constants left out."""
    found = []
    for line in path.read_text().splitlines():
        code, _, comment = line.partition("#")
        words = code.split()
        if len(words) == 2 and "=" not in code:
            found.append((words[0], words[1], comment.strip()))
    return found


def test_every_interface_is_generated() -> None:
    text = (ROOT / "flowact_msgs" / "CMakeLists.txt").read_text()
    assert sorted(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', text)) == [str(path) for path in INTERFACES]
    names = {path.stem for path in INTERFACES}
    assert names == {
        *("AudioChunk", "AvatarState", "ChunkRecord", "Instruction", "StreamMetrics", "Transcript"),
        *("SpeechSpan", "SetReference", "Say", "Motion", "Synthesize", "WordTime"),
        *("DrawnLatent", "Provenance", "StreamSetup"),
    }


def test_audio_chunk_is_as_documented() -> None:
    names = [name for _, name, _ in fields(ROOT / "flowact_msgs/msg/AudioChunk.msg")]
    assert names == [
        *(
            "header",
            "sample_rate",
            "channels",
            "encoding",
            "first_sample",
            "sequence",
            "utterance_id",
            "last",
            "data",
        ),
    ]


@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_units_are_in_the_comments(path: Path) -> None:
    for kind, name, comment in fields(ROOT / "flowact_msgs" / path):
        if name.endswith(("_ms", "_rate")) or name in ("ttff", "av_skew", "ring_fill", "fps"):
            assert comment.startswith("["), f"{kind} {name} needs its unit"


@pytest.mark.parametrize("path", ["srv/SetReference.srv", "action/Say.action"])
def test_errors_have_a_code_and_a_message(path: str) -> None:
    response = (ROOT / "flowact_msgs" / path).read_text().split("\n---\n")[1]
    assert re.search(r"^uint16 NONE = 0\b", response, re.M)
    assert re.search(r"^uint16 error_code\b", response, re.M) and re.search(
        r"^string error_msg\b", response, re.M
    )
    codes = [int(code) for code in re.findall(r"^uint16 [A-Z_]+ = (\d+)", response, re.M)]
    assert codes == list(range(len(codes)))


@pytest.mark.parametrize("manifest", ["package.xml", "flowact_msgs/package.xml"])
def test_manifests(manifest: str) -> None:
    root = ElementTree.parse(ROOT / manifest).getroot()
    assert root.get("format") == "3" and root.findtext("license") == "Apache-2.0"
    version = root.findtext("version")
    assert f'__version__ = "{version}"' in (ROOT / "flowact_ros" / "__init__.py").read_text()
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()


def test_every_ros_import_is_a_dependency() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in root if element.tag.endswith("depend")}
    ros = {"rclpy", "ament_index_python", "launch", "launch_ros"}
    files = [*(ROOT / "flowact_ros" / "nodes").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    used = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            )
            used |= {name.split(".")[0] for name in names}
    needed = {name for name in used if name in ros or name.endswith(("_msgs", "_srvs", "_interfaces"))}
    optional = {"hri_msgs", "hri_actions_msgs"}  # spoken where they are installed (live_speech, closed_caption)
    assert needed - declared <= optional


def test_scripts_run_the_interpreter_that_has_torch() -> None:
    built()
    for name in ("flowact", *NODES):
        first = (INSTALLED / name).read_text().splitlines()[0]
        assert first == f"#!{ROOT / '.venv' / 'bin' / 'python'}", name
        assert os.access(INSTALLED / name, os.X_OK)
    assert (ROOT / ".venv" / "bin" / "flowact").resolve() == INSTALLED / "flowact"


def test_flowact_runs_from_any_shell() -> None:
    """No sourcing, nothing inherited, another folder: the interfaces load and their libraries are found."""
    built()
    environ = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/tmp")}
    code = (
        "from flowact_msgs.action import Say; from flowact_msgs.msg import AudioChunk; import flowact_ros, os;"
        "AudioChunk.__class__.__import_type_support__(); Say.__class__.__import_type_support__();"
        "print(flowact_ros.__file__, os.environ['OMP_WAIT_POLICY'], os.environ['AMENT_PREFIX_PATH'].split(':')[0])"
    )
    command = [str(ROOT / ".venv" / "bin" / "python"), "-c", code]
    done = subprocess.run(
        command, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stderr
    module, policy, prefix = done.stdout.split()
    assert (
        Path(module).resolve() == ROOT / "flowact_ros" / "__init__.py"
    )  # the sources: an edit needs no new build
    assert policy == "passive" and prefix == str(ROOT / "install" / "flowact_ros")
    command = [str(ROOT / ".venv" / "bin" / "flowact"), "--help"]
    done = subprocess.run(
        command, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0 and "doctor" in done.stdout


def test_colcon_finds_both_packages() -> None:
    built()
    done = subprocess.run(
        [sys.executable, "-m", "colcon", "list", "--names-only", "--topological-order"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.stdout.split() == ["flowact_msgs", "flowact_ros"], done.stderr


def test_installed_files() -> None:
    built()
    share = ROOT / "install" / "flowact_ros" / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "flowact_ros").is_file()
    assert (share / "flowact_ros" / "package.xml").is_file()
    for folder in ("config", "launch"):
        for source in (ROOT / folder).glob("*.[xyp][mya]*"):
            assert (share / "flowact_ros" / folder / source.name).is_file(), source.name
