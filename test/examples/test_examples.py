# SPDX-License-Identifier: Apache-2.0
"""The programs of examples/, as a user starts them, beside a running generator; each can be read in a minute."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("flowact_msgs")

from domains import own_domain
from PIL import Image as Picture
from ros_harness import Watcher, generator_spec, spoken, supervise
from rosbags.rosbag2 import Reader

from flowact_msgs.msg import AvatarState
from flowact_ros.nodes import topics
from flowact_ros.nodes.bag_types import known_types

pytestmark = pytest.mark.ros
EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = ("send_wav.py", "stream_tts.py", "instruct.py", "look_at.py", "record_bag.py", "read_motion.py")
LONGEST = 60  # lines
HEARD = (topics.AUDIO, topics.STATE, topics.CHUNKS, topics.CAPTIONS, topics.MOTION)
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    """What a running generator with random weights publishes."""
    python_path = os.pathsep.join(path for path in sys.path if path)
    y, x = np.mgrid[0:256, 0:256]
    reference = tmp_path_factory.mktemp("reference") / "gradient.png"
    Picture.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", own_domain())
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("PYTHONPATH", python_path)
        with supervise([generator_spec(reference)], python_path, []) as supervisor:
            supervisor.wait_active(180)
            watcher = Watcher("/avatar", HEARD)
            watcher.until(lambda: watcher.seen[topics.MOTION], "the first frame")
            yield watcher
            watcher.close()


@pytest.fixture(scope="module")
def run(avatar: Watcher) -> Run:
    def run(name: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, str(EXAMPLES / name), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=150, check=False)

    return run


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.5 s of a tone, in stereo."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    tone = (np.sin(np.arange(11_025) * 0.1) * 9000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 22_050, 0, "NONE", ""))
        file.writeframes(np.repeat(tone, 2).tobytes())
    return path


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_short_and_tells_how_to_run_it(program: str) -> None:
    text = (EXAMPLES / program).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert f"python examples/{program}" in text


def test_a_wav_is_spoken(run: Run, avatar: Watcher, wav: Path, tmp_path: Path) -> None:
    done = run("send_wav.py", str(wav))
    assert (done.returncode, done.stdout, done.stderr) == (0, "spoken: 0.50 s\n", "")
    narrow = tmp_path / "eight.wav"
    with wave.open(str(narrow), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    refused = run("send_wav.py", str(narrow))
    assert refused.returncode == 2 and "has samples of 8 bits" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_tts_is_streamed(run: Run, avatar: Watcher) -> None:
    done = run("stream_tts.py", given="Good morning. It works.\n")
    assert done.returncode == 0, done.stderr
    sent, name = float(done.stdout.split()[1]), done.stdout.split()[-1]

    def over() -> bool:
        audio = avatar.seen[topics.AUDIO]
        own = [message.sequence for message in audio if message.utterance_id == name]
        return bool(own) and audio[-1].sequence > own[-1] + 10

    avatar.until(over, "the end of the text")
    heard = sum(message.utterance_id == name for message in avatar.seen[topics.AUDIO]) / 25
    assert heard == pytest.approx(sent, abs=0.2) and len(spoken(avatar.seen[topics.AUDIO], name)) > 12_000
    texts = [message.text for message in avatar.seen[topics.CAPTIONS] if message.header.frame_id == "avatar"]
    assert "Good morning. It works." in texts


def test_an_instruction_is_followed(run: Run, avatar: Watcher) -> None:
    words = "looking up and to the side, a hand at the chin"
    done = run("instruct.py", "thinking", words, "--urgent")
    assert (done.returncode, done.stdout) == (0, "shown: thinking\n"), done.stderr
    avatar.until(lambda: avatar.seen[topics.STATE][-1].behaviour == AvatarState.THINKING, "the state")
    avatar.until(lambda: words in {record.instruction for record in avatar.seen[topics.CHUNKS]}, "its record")


def test_it_looks_where_it_is_told(run: Run, avatar: Watcher) -> None:
    def looks() -> set[tuple[float, float]]:
        return {(round(m.look_x, 3), round(m.look_y, 3)) for m in avatar.seen[topics.CHUNKS] if m.looks}

    assert run("look_at.py", "0.26", "0.0", "0.5", "--seconds", "1").returncode == 0
    avatar.until(lambda: (0.5, 0.0) in looks(), "a look to the right, as far before the screen as the eyes are behind")


def test_motion_is_read(run: Run, avatar: Watcher) -> None:
    done = run("read_motion.py", "head_yaw", "jaw", "--frames", "10")
    assert done.returncode == 0, done.stderr
    head, *rows = csv.reader(done.stdout.splitlines())
    assert head == ["frame", "stamp", "head_yaw", "jaw"] and len(rows) >= 10
    motions = {message.frame: message for message in avatar.seen[topics.MOTION]}
    frame, stamp, yaw, _ = rows[0]
    told = motions[int(frame)]
    assert float(yaw) == pytest.approx(told.values[told.names.index("head_yaw")], abs=1e-4)
    assert float(stamp) == pytest.approx(told.header.stamp.sec + told.header.stamp.nanosec / 1e9, abs=2e-3)
    unknown = run("read_motion.py", "tail")
    assert unknown.returncode == 2 and "no control tail: one of head_yaw, " in unknown.stderr


@pytest.mark.slow
def test_topics_are_recorded(run: Run, avatar: Watcher, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    done = run("record_bag.py", str(bag), "motion", "state", "--seconds", "8")  # a busy machine finds others late
    assert done.returncode == 0, done.stderr
    store = known_types()
    with Reader(bag) as reader:
        kept = [(c.topic, store.deserialize_cdr(data, c.msgtype)) for c, _, data in reader.messages()]
    told = {message.frame: list(message.values) for message in avatar.seen[topics.MOTION]}
    motions = [message for topic, message in kept if topic == "/avatar/motion"]
    both = [m for m in motions if m.frame in told]
    assert both and all(list(m.values) == told[m.frame] for m in both)
    assert [message.behaviour for topic, message in kept if topic == "/avatar/state"]  # latched: that of before
    assert f"{len(motions)} of /avatar/motion" in done.stdout
