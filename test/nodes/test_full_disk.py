# SPDX-License-Identifier: Apache-2.0
"""A disk that is full, as a limit on the size of files: a recording says so and ends, a log does not end anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flowact_ros.launcher.log_file import file_log

RECORDER = """
import resource, sys, threading
import numpy as np, rclpy
from rclpy.parameter import Parameter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from flowact_ros.nodes.recorder import Recorder
rclpy.init(args=[])
node = Recorder(parameter_overrides=[Parameter("path", value=sys.argv[1])])
node.autostart()
rng = np.random.default_rng(0)
for k in range(200):
    node._offer(("sound", k * 40_000_000, np.zeros(960, np.float32)))
    node._offer(("picture", k * 40_000_000, rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)))
    if node.finished.wait(0.02):
        break
print("ended" if node.finished.wait(60) else "goes on", flush=True)
node.stop()
"""


def test_a_recording_ends_with_one_line_and_leaves_no_rest(tmp_path: Path, python_path: str) -> None:
    alone = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}  # files, these are too
    environ = {**os.environ, "PYTHONPATH": python_path, **alone}
    film = tmp_path / "film.mp4"
    command = [sys.executable, "-c", RECORDER, str(film)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.stdout == "ended\n"
    errors = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    assert len(errors) == 1 and "the recording is given up: cannot write" in errors[0] and "make room" in errors[0]
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_is_still_shown() -> None:
    shown: list[str] = []
    log, _ = file_log(Path("/dev/full"), shown.append)
    for line in ("one", "two"):
        log(line)
    assert shown == ["one", "two"]
