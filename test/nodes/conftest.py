# SPDX-License-Identifier: Apache-2.0
"""What the tests of this room need; without rclpy they are skipped by name, and fail where nothing may be skipped."""

from __future__ import annotations

import importlib.util
import os

import pytest

NEEDS_ROS = (
    "test_convert.py",
    "test_params.py",
    "test_recovery.py",
    "test_aligner.py",
    "test_voice_gate.py",
    "test_real_ros.py",
    "test_launch.py",
    "test_uninstructed.py",
)
MISSING = [name for name in ("rclpy", "flowact_msgs") if importlib.util.find_spec(name) is None]


def pytest_ignore_collect(collection_path, config):  # noqa: ARG001 - pytest gives both
    """Modules that import rclpy at their top cannot even be collected without it."""
    if MISSING and collection_path.name in NEEDS_ROS and os.environ.get("FLOWACT_CI") != "1":
        return True
    return None


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(
            f"left out: {', '.join(NEEDS_ROS)}: {', '.join(MISSING)} cannot be imported (run `make setup`)"
        )


@pytest.fixture(scope="session")
def python_path() -> str:
    """PYTHONPATH for child processes that must import what this process imports."""
    import sys

    return os.pathsep.join(path for path in sys.path if path)
