# SPDX-License-Identifier: Apache-2.0
"""`flowact record` beside a running generator, and what of it is replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from domains import own_domain
from PIL import Image as Picture
from ros_harness import Watcher, generator_spec, supervise

from flowact_ros.media.bag import Bag
from flowact_ros.nodes import bag_outputs, topics
from flowact_ros.nodes.bag_record_command import main as record
from flowact_ros.nodes.bag_record_command import size_of
from flowact_ros.nodes.bag_replay_command import main as replay
from flowact_ros.nodes.convert import from_time, image_array

PYTHON_PATH = os.pathsep.join(path for path in sys.path if path)


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A generator that runs in a domain of its own."""
    before = {name: os.environ.get(name) for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")}
    os.environ["ROS_DOMAIN_ID"] = own_domain()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    y, x = np.mgrid[0:256, 0:256]
    face = tmp_path_factory.mktemp("reference") / "gradient.png"
    Picture.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(face)
    with supervise([generator_spec(face)], PYTHON_PATH, []) as supervisor:
        supervisor.wait_active(180)
        yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.slow
@pytest.mark.ros
def test_a_late_recorder_gets_all_that_a_replay_needs(avatar: None, tmp_path: Path, capsys) -> None:
    """Two record at once: one everything, raw images too, the other what a replay needs."""
    command = [sys.executable, "-m", "flowact_ros.cli", "record", str(tmp_path / "all"), "--profile", "all"]
    # A busy machine finds the topics of others late.
    other = subprocess.Popen([*command, "--seconds", "8"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert record([str(tmp_path / "late"), "--seconds", "8"]) == 0
    told = capsys.readouterr().out
    assert "messages" in told and "MB" in told
    out, errors = other.communicate(timeout=150)
    assert other.returncode == 0 and "messages" in out, errors
    with Bag(tmp_path / "late") as bag:
        assert {"/avatar/chunks", "/avatar/stream_setup"} <= set(bag.topics) and not bag.remarks
    with Bag(tmp_path / "all") as bag:
        assert {"/avatar/image_raw", "/avatar/audio", "/avatar/motion", "/avatar/state"} <= set(bag.topics)
        assert len(list(bag.messages(["/avatar/image_raw"]))) > 20
    for name in ("late", "all"):
        assert replay([str(tmp_path / name), "--verify"]) == 0
        assert "the same, bit for bit: motion and frames of all" in capsys.readouterr().out


@pytest.mark.ros
def test_frames_are_published_as_they_were(
    avatar: None, recording: Path, session_of_records, lively, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real time, and the pictures that were seen live."""
    for name in ("DISCOVERY_S", "OTHERS_S"):  # it may take longer beside all other tests
        monkeypatch.setattr(bag_outputs, name, 60.0)
    frames = session_of_records[0]
    watcher = Watcher("/again", (topics.IMAGE, topics.AUDIO, topics.MOTION))
    try:
        assert replay([str(recording), "--publish", "--namespace", "again"]) == 2  # of the recording it is /avatar
        assert replay([str(recording), "--publish", "--to", "again"]) == 0
        watcher.until(lambda: len(watcher.seen[topics.MOTION]) > 40, "frames")
    finally:
        watcher.close()
    shown = {frame.rgb.tobytes() for frame in frames}
    assert sum(image_array(message).tobytes() in shown for message in watcher.seen[topics.IMAGE]) > 30
    stamps = [from_time(message.header.stamp) for message in watcher.seen[topics.MOTION]]
    assert {b - a for a, b in zip(stamps, stamps[1:])} == {40_000_000}
    for message in watcher.seen[topics.MOTION]:
        if message.frame < len(frames):
            np.testing.assert_array_equal(np.array(message.values, np.float32), frames[message.frame].motion)


@pytest.mark.ros
def test_without_an_avatar_nothing_is_left(tmp_path: Path, capsys) -> None:
    assert record([str(tmp_path / "a"), "--namespace", "nobody", "--timeout", "1"]) == 1
    errors = capsys.readouterr().err
    assert "nothing came on /nobody/chunks within 1 s" in errors and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--seconds", "-1"], "--seconds: -1 is not 0 or more"),
        (["--max-size", "lots"], "--max-size: 'lots' is no size"),
        (["--max-size", "1k"], "is no size of 10M or more"),
        (["--timeout", "0"], "--timeout: 0 is not above 0"),
        (["--namespace", "a b"], "namespace"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(tmp_path: Path, capsys, arguments: list[str], reason: str) -> None:
    assert record([str(tmp_path / "a"), *arguments]) == 2
    errors = capsys.readouterr().err
    assert reason in errors and len(errors.strip().splitlines()) == 1 and not (tmp_path / "a").exists()


def test_a_second_recorder_of_the_same_name_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "a").mkdir()
    assert record([str(tmp_path / "a")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_sizes() -> None:
    sizes = {"4G": 4 * 10**9, "500M": 5 * 10**8, "1.5gb": 15 * 10**8, "20000000": 2 * 10**7}
    assert {text: size_of(text) for text in sizes} == sizes
