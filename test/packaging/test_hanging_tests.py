# SPDX-License-Identifier: Apache-2.0
"""A test that hangs, even in C code that never looks at signals, ends as a failure that shows where it hung."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
TEST = """
import ctypes, time

def test_hangs():
    {body}

def test_after_it():
    pass
"""
IN_PYTHON = "time.sleep(600)"
# twice the same mutex, with the interpreter locked as in rclpy: no signal handler runs
IN_C = (
    "mutex = (ctypes.c_long * 16)(); lock = ctypes.PyDLL(None).pthread_mutex_lock; lock(mutex); lock(mutex)"
)


def run(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest with the settings of this project, but shorter limits."""
    (folder / "test_it.py").write_text(TEST.format(body=body))
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT), "--rootdir", str(folder)]
    limits = ["--timeout", "1", "-o", "faulthandler_timeout=3", *options, str(folder / "test_it.py")]
    return subprocess.run([*command, *limits], capture_output=True, text=True, timeout=120, check=False)


def test_a_hang_in_python_fails_one_test(tmp_path: Path) -> None:
    done = run(tmp_path, IN_PYTHON, "-o", "faulthandler_timeout=60")  # a busy machine is late with the first limit
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout and IN_PYTHON in done.stdout


def test_a_hang_in_c_ends_the_run_with_its_stack(tmp_path: Path) -> None:
    done = run(tmp_path, IN_C)
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "in test_hangs" in done.stderr


def test_the_limits_follow_each_other() -> None:
    """First the one that fails a test and goes on; the one that ends the run a minute later."""
    limits = dict(re.findall(r"^(\w*timeout\w*) = (\w+)", PROJECT.read_text(), re.MULTILINE))
    assert int(limits["faulthandler_timeout"]) >= int(limits["timeout"]) + 60
    assert limits["faulthandler_exit_on_timeout"] == "true"
