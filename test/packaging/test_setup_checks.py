# SPDX-License-Identifier: Apache-2.0
"""The decisions of the set-up: each thing a machine lacks gives one clear line; CUDA is never fetched unasked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


checks = load("setup_checks")
ALL_TOOLS = {"cc", "gcc", "c++", "g++", "make"}


def tools(present: set[str], environ: dict[str, str], include: Path) -> list[str]:
    return checks.missing_tools(
        environ, which=lambda name: name if name in present else None, include=str(include)
    )


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    (tmp_path / "Python.h").write_text("")
    return tmp_path


def test_a_complete_machine_lacks_nothing(headers: Path) -> None:
    assert tools(ALL_TOOLS, {}, headers) == []
    assert (
        tools({"clang", "clang++", "ninja"}, {}, headers) == []
    )  # cmake is no condition: it exists as a wheel


@pytest.mark.parametrize(
    ("lost", "words"),
    [({"c++", "g++"}, ("C++ compiler", "build-essential")), ({"make"}, ("make", "apt-get install make"))],
)
def test_each_missing_tool_is_one_line_with_the_remedy(
    headers: Path, lost: set[str], words: tuple[str, ...]
) -> None:
    problems = tools(ALL_TOOLS - lost, {}, headers)
    assert len(problems) == 1 and "\n" not in problems[0]
    assert all(word in problems[0] for word in words)


def test_a_compiler_named_by_the_user_must_exist(headers: Path) -> None:
    (problem,) = tools(ALL_TOOLS, {"CXX": "g++-99 -O2"}, headers)
    assert "g++-99" in problem
    assert tools(ALL_TOOLS | {"g++-13"}, {"CXX": "g++-13 -O2"}, headers) == []


def test_missing_python_headers(tmp_path: Path) -> None:
    (problem,) = tools(ALL_TOOLS, {}, tmp_path)
    assert "python3-dev" in problem and str(tmp_path) in problem


def test_disk_and_portaudio() -> None:
    assert checks.disk_problem(10_000_000_000) is None
    assert "1.0 GB free" in checks.disk_problem(1_000_000_000)
    assert checks.portaudio_warning(lambda name: "libportaudio.so.2") is None
    assert "files can" in checks.portaudio_warning(lambda name: None)


def test_sourced_ros() -> None:
    assert checks.sourced_ros({}) is None
    assert checks.sourced_ros({"ROS_DISTRO": "jazzy"}) is None  # a variable left over, nothing sourced
    assert checks.sourced_ros({"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": "/opt/ros/kilted"}) == "kilted"
    with pytest.raises(checks.SetupError, match="humble is sourced, but jazzy or kilted"):
        checks.sourced_ros({"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": "/opt/ros/humble"})


REQUIREMENT = "torch>=2.13,<2.14"


@pytest.mark.parametrize(
    ("wish", "gpu", "cuda", "steps"),
    [
        ("", False, [], [("pip", REQUIREMENT)]),
        ("", False, ["nvidia-cublas"], [("uv", "cpu"), ("pip", REQUIREMENT)]),
        ("", False, None, [("uv", "cpu"), ("pip", REQUIREMENT)]),
        ("", True, None, [("uv", "auto"), ("pip", REQUIREMENT)]),
        ("cpu", True, None, [("uv", "cpu")]),
        ("cu128", False, [], [("uv", "cu128")]),
        ("skip", True, None, []),
        ("torch==2.13.1", False, [], [("pip", "torch==2.13.1")]),
    ],
)
def test_which_torch(wish: str, gpu: bool, cuda: list[str] | None, steps: list[tuple[str, str]]) -> None:
    assert checks.torch_steps(wish, gpu, REQUIREMENT, cuda) == steps


def test_cuda_packages_of_a_report() -> None:
    def report(*names: str) -> dict:
        return {"install": [{"metadata": {"name": name, "version": "1"}} for name in names]}

    assert checks.cuda_packages(report("torch", "sympy", "filelock")) == []
    assert checks.cuda_packages(report("torch", "nvidia-cublas", "triton")) == ["nvidia-cublas", "triton"]


def test_wheel_paths_are_relocated() -> None:
    built = "/opt/python/cp312-cp312"
    text = f'set(a "{built}/include/python3.12;{built}/lib/python3.12/site-packages/numpy")'
    moved = checks.relocate(text, "/usr/include/py", r"/venv\1/site")
    assert moved == r'set(a "/usr/include/py;/venv\1/site/numpy")'
    assert checks.relocate(moved, "/usr/include/py", r"/venv\1/site") == moved


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("NewConnectionError(... [Errno -3] Temporary failure in name resolution", "check the network"),
        ("ERROR: No matching distribution found for soxr>=9", "no build of soxr>=9"),
        ("fatal error: Python.h: No such file or directory", "python3-dev"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found", "build-essential"),
    ],
)
def test_a_failure_is_explained_in_one_line(log: str, words: str) -> None:
    line = checks.explain("some output\n" + log + "\nmore")
    assert words in line and "\n" not in line


def test_an_unknown_failure_is_not_explained_away() -> None:
    assert checks.explain("ninja: build stopped: subcommand failed.") == ""


def test_requirements_keep_training_out_of_the_runtime() -> None:
    runtime = checks.requirements(ROOT / "setup.cfg", [])
    names = {line.split(">")[0].split("<")[0].split("=")[0] for line in runtime}
    assert {"torch", "numpy", "aiohttp", "sounddevice", "hibari-tts"} <= names
    assert not names & {
        "transformers",
        "openai-whisper",
        "scipy",
        "pytest",
        "triton",
    }
    assert any(line.startswith("scipy") for line in checks.requirements(ROOT / "setup.cfg", ["train"]))
    with pytest.raises(checks.SetupError, match="'trian'.*train"):
        checks.requirements(ROOT / "setup.cfg", ["trian"])


def test_digest_sees_contents_names_and_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = checks.digest([tmp_path], "x")
    assert first == checks.digest([tmp_path], "x") != checks.digest([tmp_path], "y")
    (tmp_path / "a").write_text("2")
    second = checks.digest([tmp_path], "x")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, checks.digest([tmp_path], "x")}) == 3
