# SPDX-License-Identifier: Apache-2.0
"""How a node's process ends: it leaves nothing in shared memory (three generators that did filled a plain container),
and one that hangs ends itself and says where.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowact_ros.launcher import start_node
from flowact_ros.nodes.process import EXIT_HUNG

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]

# As the generator ends: without what the interpreter would still do.
PROGRAM = """
import os
from sensor_msgs.msg import Image
from flowact_ros.launcher.resources import use_image_profile
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, run

class Sender(FlowactNode):
    def __init__(self):
        super().__init__("sender")
    def begin(self):
        self.add_publisher(Image, topics.IMAGE)
        self.add_timer(0.1, lambda: None)
        print("up", flush=True)

def main():
    use_image_profile()
    os._exit(run(Sender))
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm on this system")
def test_nothing_is_left_in_shared_memory(tmp_path: Path, python_path: str) -> None:
    (tmp_path / "sender.py").write_text(PROGRAM)
    command = [sys.executable, start_node.__file__, "sender"]
    environ = {"PYTHONPATH": f"{tmp_path}:{python_path}"}
    process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        segments = {Path(path) for path in re.findall(r"/dev/shm/fastrtps_[0-9a-f]{16}\b", maps)}
        assert segments and all(path.exists() for path in segments)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()  # without effect on one that has ended
        process.communicate()
    assert not any(path.exists() for path in segments)


HANGING = """
import time
from flowact_ros.nodes import base, process

base.STUCK_S, process.BEAT_S = 4.0, 0.1  # longer than a busy machine needs from its start to its first callback

class Sleeper(base.FlowactNode):
    def __init__(self):
        super().__init__("sleeper")
    def begin(self):
        self.add_timer(0.1, self.wait_for_ever)
    def wait_for_ever(self):
        time.sleep(250)

def main():
    return base.run(Sleeper)
"""


def test_a_node_that_hangs_ends_itself(tmp_path: Path, python_path: str) -> None:
    (tmp_path / "sleeper.py").write_text(HANGING)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{python_path}"}
    command = [sys.executable, start_node.__file__, "sleeper"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_HUNG
    assert re.search(r"error: sleeper hangs: its executor did nothing for \d+ s; the process ends", done.stderr)
    assert "in wait_for_ever" in done.stderr  # where it stands
