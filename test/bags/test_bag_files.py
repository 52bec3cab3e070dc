# SPDX-License-Identifier: Apache-2.0
"""Files of recordings: the way there and back, cut off anywhere, on a full disk, and what is no recording."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from bag_making import START_NS, kind_of, write
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from flowact_ros.media.bag import Bag, BagError
from flowact_ros.media.bag_writer import BALLAST, BagFull, BagWriter
from flowact_ros.nodes.bag_types import describe

TOPIC = "/avatar/words"


def words(count: int, size: int = 200) -> list[tuple[str, int, String]]:
    return [(TOPIC, START_NS + k, String(data=f"{k:06d}" + "x" * size)) for k in range(count)]


def read(path: Path) -> tuple[list[int], list[str]]:
    """(numbers of the messages, remarks)."""
    with Bag(path) as bag:
        found = [int(bag.decoded(message).data[:6]) for message in bag.messages([TOPIC])]
        return found, bag.remarks


def writer_of_words(path: Path, **options: object) -> BagWriter:
    writer = BagWriter(path, **{"reserve": 0, **options})
    definition, digest = describe("std_msgs/msg/String")
    writer.add_topic(TOPIC, "std_msgs/msg/String", definition, digest, depth=10, latched=False, reliable=True)
    return writer


def test_there_and_back(tmp_path: Path) -> None:
    write(tmp_path / "a", words(50))
    assert read(tmp_path / "a") == (list(range(50)), [])
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["a.mcap", "metadata.yaml"]
    assert read(tmp_path / "a" / "a.mcap") == (list(range(50)), [])
    with Bag(tmp_path / "a") as bag:
        assert bag.topics == {TOPIC: kind_of(String())}


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.3])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, share: float) -> None:
    write(tmp_path / "a", words(4000, 1000))
    file = tmp_path / "a" / "a.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    found, remarks = read(tmp_path / "a")
    assert found == list(range(len(found))) and len(found) > (share - 0.3) * 4000
    assert len(remarks) == 2 and "was not closed" in remarks[0] and "cut off" in remarks[1]
    (tmp_path / "a" / "metadata.yaml").unlink()
    again, remarks = read(tmp_path / "a")
    assert again == found and "metadata.yaml is missing" in remarks[0]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_a_line_or_what_is_left(tmp_path: Path, seed: int) -> None:
    write(tmp_path / "a", words(40))
    rng = random.Random(seed)
    for _ in range(15):
        file = tmp_path / "a" / rng.choice(["a.mcap", "metadata.yaml"])
        whole = file.read_bytes()
        data = bytearray(whole)
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        try:
            with Bag(tmp_path / "a") as bag:
                for message in bag.messages(bag.topics):
                    bag.decoded(message)
        except BagError as error:
            assert "\n" not in str(error)
        file.write_bytes(whole)
    assert read(tmp_path / "a") == (list(range(40)), [])


def test_what_came_some_seconds_ago_is_in_the_file(tmp_path: Path) -> None:
    """The process is killed: nothing is closed."""
    now = [0.0]
    writer = writer_of_words(tmp_path / "a", clock=lambda: now[0])
    for number, (topic, time_ns, message) in enumerate(words(30)):
        now[0] = number / 2
        writer.write(topic, time_ns, serialize_message(message))
    found, _ = read(tmp_path / "a")
    assert found == list(range(len(found))) and len(found) >= 20


class FullDisk:
    """A file on a disk of `room` bytes, which the ballast shares."""

    def __init__(self, file, folder: Path, room: int) -> None:
        self._file, self._folder, self._room = file, folder, room

    def write(self, data) -> int:
        data = bytes(data)
        ballast = BALLAST if (self._folder / ".ballast").exists() else 0
        left = self._room - ballast - self._file.tell()
        self._file.write(data[: max(0, left)])
        if left < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [1_500_000, 2_000_123, 2_999_999])
def test_on_a_full_disk_the_recording_ends_whole(tmp_path: Path, room: int) -> None:
    writer = writer_of_words(tmp_path / "a")
    writer._storage.bio = FullDisk(writer._storage.bio, tmp_path / "a", room + BALLAST)
    written = 0
    with pytest.raises(BagFull, match="the disk of .* is full"):
        for topic, time_ns, message in words(9000, 1000):
            writer.write(topic, time_ns, serialize_message(message))
            written += 1
    writer.close()
    found, remarks = read(tmp_path / "a")
    assert remarks == [] and found == list(range(len(found))) and len(found) >= written


def test_the_limit_and_the_reserve_of_the_disk_are_kept(tmp_path: Path) -> None:
    writer = writer_of_words(tmp_path / "a", most=12_000_000)
    with pytest.raises(BagFull, match="reached its limit of 12 MB"):
        for topic, time_ns, message in words(2000, 10_000):
            writer.write(topic, time_ns, serialize_message(message))
    writer.close()
    assert 9_000_000 < writer.size <= 12_000_000 and not read(tmp_path / "a")[1]
    with pytest.raises(BagFull, match="MB left"):
        BagWriter(tmp_path / "b", reserve=1 << 60)
    assert not (tmp_path / "b").exists()


def test_what_is_no_recording_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("not a recording at all, but long enough for a header and more" * 3)
    (tmp_path / "short.mcap").write_bytes(b"\x89MCAP0\r\n")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 99}")
    for name, reason in {
        "none": "there is no recording", "empty": "holds neither metadata.yaml nor",
        "text.mcap": "does not begin as one",
        "short.mcap": "cut off right at its beginning", "a.txt": "is no recording", "odd": "version 99 not supported",
    }.items():  # fmt: skip
        with pytest.raises(BagError, match=reason) as caught:
            Bag(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "a", words(3))
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "a")
    with pytest.raises(BagError, match="no folder"):
        BagWriter(tmp_path / "none" / "b")
    assert read(tmp_path / "a")[0] == [0, 1, 2]
