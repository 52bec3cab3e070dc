# SPDX-License-Identifier: Apache-2.0
"""scripts/setup as a person runs it: the right interpreter, and one line, no traceback, when something is missing.

Nothing is installed here: every case stops before the first download or starts no tools, in a copy of the scripts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "package.xml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("weights/avatar_cpu/renderer.safetensors", "models/codec/live.py", "engine/runtime/openvino.py"):
        (tmp_path / "flowact_ros" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flowact_ros" / name).touch()  # what the converted renderer depends on
    return tmp_path


def setup(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWACT", "ROS", "AMENT", "_ROS"))
    }
    command = ["/bin/sh", str(checkout / "scripts" / "setup"), *arguments]
    return subprocess.run(
        command, env={**env, **environ}, capture_output=True, text=True, check=False, timeout=200
    )


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("setup: ")
    return lines[0]


def test_python_too_old(checkout: Path) -> None:
    old = 'case "$*" in *platform*) echo 3.8.10;; *) exit 1;; esac\n'
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10"):
        fake(checkout / "bin", name, old)
    line = one_line(setup(checkout, PATH=f"{checkout / 'bin'}:/usr/bin:/bin"))
    assert "found 3.8.10" in line and "apt-get install python3" in line


def test_a_newer_python_is_found_beside_an_old_one(checkout: Path) -> None:
    fake(checkout / "bin", "python3", "exit 1\n")
    fake(checkout / "bin", "python3.13", 'case "$1" in -S) exit 0;; *) echo "took 3.13: $*"; exit 0;; esac\n')
    done = setup(checkout, "--extras", "dev", PATH=f"{checkout / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 0
    assert done.stdout.startswith("took 3.13: ") and done.stdout.strip().endswith("setup_env.py --extras dev")


def test_the_interpreter_of_an_environment_is_kept(checkout: Path) -> None:
    """Somebody made it with FLOWACT_PYTHON once; a later `make test` without the variable must not throw it away."""
    base = checkout / "bin" / "python3.12"
    fake(checkout / "bin", "python3.12", 'case "$1" in -S) exit 0;; *) echo "took the base";; esac\n')
    (checkout / ".venv").mkdir()
    fake(
        checkout / ".venv" / "bin", "python", f'case "$*" in *_base_executable*) echo {base};; esac\nexit 0\n'
    )
    stamps = checkout / ".venv" / "setup.json"
    stamps.write_text('{\n "environment": "3.12.1 /usr /here ros=None"\n}\n')
    assert setup(checkout).stdout == "took the base\n"
    stamps.write_text(
        '{\n "environment": "3.12.1 /usr /here ros=jazzy"\n}\n'
    )  # made beside a ROS, none is sourced now
    assert "took the base" not in setup(checkout, CXX="no-such-compiler").stdout


def test_a_named_python_that_does_not_exist(checkout: Path) -> None:
    assert "FLOWACT_PYTHON=/nowhere/python" in one_line(setup(checkout, FLOWACT_PYTHON="/nowhere/python"))


def test_no_compiler(checkout: Path) -> None:
    line = one_line(setup(checkout, CXX="no-such-compiler"))
    assert "no C++ compiler (no-such-compiler)" in line and "build-essential" in line
    assert not (checkout / ".venv").exists()


def test_an_unsupported_ros_is_sourced(checkout: Path) -> None:
    line = one_line(setup(checkout, ROS_DISTRO="humble", AMENT_PREFIX_PATH="/opt/ros/humble"))
    assert "humble is sourced" in line


def test_a_sourced_ros_of_another_python(checkout: Path) -> None:
    line = one_line(setup(checkout, ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=str(checkout), PYTHONPATH=""))
    assert "cannot import its rclpy" in line and "FLOWACT_PYTHON" in line
    assert not (checkout / ".venv").exists()


def test_no_network(checkout: Path) -> None:
    """Nothing answers on port 9 of this machine: pip must not try for minutes, and says what to check."""
    nothing = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": "",
    }
    line = one_line(setup(checkout, **nothing, PIP_EXTRA_INDEX_URL=""))
    assert "check the network" in line and ".venv/setup.log" in line


class Tools:
    """In place of the programs that the steps start: what was called, and empty files where a step looks for some."""

    def __init__(self, venv: Path) -> None:
        self.venv, self.calls, self.failing = venv, [], ""
        self.findings: list[dict[str, str]] = []  # of `flowact doctor`

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        self.calls.append(line)
        out = ""
        if " -m venv " in line:
            fake(self.venv / "bin", "python", "exit 1\n")
        elif "--dry-run" in line:
            out = '{"install": []}'
        elif "sysconfig" in line:
            site = self.venv / "site"
            site.mkdir(exist_ok=True)
            out = f"{site}\n" * line.count("print(")
        elif "distributions" in line:
            out = "2.13.0\n"
        elif "doctor" in line:
            options["stdout"].write(json.dumps({"checks": self.findings}))
        return subprocess.CompletedProcess(
            command, int(bool(self.failing) and self.failing in line), out, None
        )

    def took(self) -> list[str]:
        """The calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def tools(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    for variable in ("FLOWACT_TORCH", "ROS_DISTRO", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(variable, raising=False)
    shutil.copytree(ROOT / "flowact_msgs", checkout / "flowact_msgs")
    yield Tools(checkout / ".venv")


@pytest.fixture
def steps(checkout: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`steps("--extras", "dev")`: the steps of the set-up in a process of their own, as it were, without its tools."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, checkout / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def call(*arguments: str, **environ: str) -> int:
        load("setup_checks")
        module = load("setup_env")
        fakes = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "DEVNULL")}
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=tools.run, **fakes))
        monkeypatch.setattr(module, "check_machine", lambda: None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["setup", *arguments])
            for name, value in environ.items():
                patch.setenv(name, value)
            return module.main()

    return call


def test_a_second_call_does_nothing(
    steps: Callable[..., int], tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps("--extras", "dev") == 0
    first = tools.took()
    assert sum("colcon build" in call for call in first) == 2 and any(" install " in call for call in first)
    stamps = tools.venv / "setup.json"
    before = stamps.read_text(), stamps.stat().st_mtime_ns
    assert "ready in" in capsys.readouterr().out
    for arguments in (("--extras", "dev"), ()):  # `make test`, `make demo`
        assert steps(*arguments) == 0
        assert tools.took() == []
        assert (stamps.read_text(), stamps.stat().st_mtime_ns) == before
        assert capsys.readouterr() == ("", "")


def test_only_what_changed_is_done_again(steps: Callable[..., int], tools: Tools, checkout: Path) -> None:
    assert steps() == 0
    tools.took()
    message = next((checkout / "flowact_msgs" / "msg").glob("*.msg"))
    message.write_text(message.read_text() + "# more\n")
    assert steps() == 0
    built, tried = tools.took()
    assert built.partition("--packages-select ")[2].split()[0] == "flowact_msgs" and "doctor" in tried


def test_what_was_built_is_tried_before_it_is_said_to_be_ready(
    steps: Callable[..., int], tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"name": "ros", "level": "error", "found": "rclpy cannot be imported", "remedy": "unset PYTHONPATH"}
    torch = {"name": "torch", "level": "error", "found": "not there", "remedy": "make setup"}
    tools.findings = [wrong]
    for _ in range(2):  # the second call does not take it for done
        assert steps() == 1
        out, err = capsys.readouterr()
        assert "ready" not in out
        assert err == "setup: what was built does not work: ros: rclpy cannot be imported (unset PYTHONPATH)\n"
    tools.findings = [torch]
    assert steps(FLOWACT_TORCH="skip") == 0  # left out as it was asked for
    assert "ready in" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["my robot", "gäste", "a;b", "a:b", "it's", "$HOME", "x" * 220])
def test_a_path_that_build_tools_break_at(checkout: Path, name: str) -> None:
    """Refused before anything is made; such a path used to cost two minutes, or was called ready."""
    odd = checkout / "odd" / name
    shutil.copytree(checkout / "scripts", odd / "scripts")
    line = one_line(setup(odd))
    assert name in line and "clone to a path of ASCII letters" in line
    assert not (odd / ".venv").exists()


def test_another_torch_replaces_the_one_that_is_there(steps: Callable[..., int], tools: Tools) -> None:
    """An installed build satisfies the requirement whatever it was built for: the tool is told to install anew."""
    assert steps() == 0
    tools.took()
    for wish in ("auto", "cpu"):
        assert steps(FLOWACT_TORCH=wish) == 0
        (call,) = [call for call in tools.took() if "--torch-backend" in call]
        assert f"--torch-backend={wish} --reinstall-package torch torch>=" in call


def test_a_wish_for_a_torch_is_remembered(steps: Callable[..., int], tools: Tools) -> None:
    assert steps(FLOWACT_TORCH="cu128") == 0
    assert any("--torch-backend=cu128" in call for call in tools.took())
    for environ in ({}, {"FLOWACT_TORCH": ""}, {"FLOWACT_TORCH": "cu128"}):
        assert steps(**environ) == 0
        assert tools.took() == []
    stamps = tools.venv / "setup.json"  # another Python: the environment is made anew, with that torch
    stamps.write_text(
        json.dumps({**json.loads(stamps.read_text()), "environment": "3.9.1 /usr /here ros=None"})
    )
    assert steps() == 0
    assert sum("--torch-backend=cu128" in call for call in tools.took()) == 1


def test_a_wish_that_failed_is_not_remembered(
    steps: Callable[..., int], tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps(FLOWACT_TORCH="cpu") == 0
    tools.took()
    tools.failing = "--torch-backend=cu999"
    assert steps(FLOWACT_TORCH="cu999") == 1
    assert "installing torch (cu999) failed" in capsys.readouterr().err
    tools.took()
    assert steps() == 0
    assert ["--torch-backend=cpu" in call for call in tools.took() if "--torch-backend" in call] == [True]
    assert steps() == 0 and tools.took() == []
