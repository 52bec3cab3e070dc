# SPDX-License-Identifier: Apache-2.0
"""scripts/setup as a person runs it: the right interpreter, and one line, no traceback, when something is missing.

Nothing is installed here: every case stops before the first download, in a copy of the scripts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "package.xml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def setup(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWACT", "ROS", "AMENT", "_ROS"))
    }
    command = ["/bin/sh", str(checkout / "scripts" / "setup"), *arguments]
    return subprocess.run(
        command, env={**env, **environ}, capture_output=True, text=True, check=False, timeout=60
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
