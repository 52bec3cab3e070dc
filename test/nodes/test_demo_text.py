# SPDX-License-Identifier: Apache-2.0
"""`flowact demo --text`: all nodes, and a text that is spoken through them, from the command line to the video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]


@pytest.mark.slow
def test_a_text_is_seen_and_heard_in_the_video(tmp_path: Path) -> None:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    import av

    video = tmp_path / "said.mp4"
    command = [
        sys.executable,
        "-m",
        "flowact_ros.cli",
        "demo",
        "--text",
        "Good morning. Yes, yes!",
        "--headless",
    ]
    command += ["--preset", "debug", "--port", "0", "--seconds", "20", "--record", str(video)]
    command += ["--log-file", str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "Good morning Yes yes" in lines and any(line.startswith("spoken: ") for line in lines)
    with av.open(str(video)) as container:
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert np.abs(sound).max() > 0.1
