# SPDX-License-Identifier: Apache-2.0
"""`flowact replay`: the frames of a session from a recording alone, whoever recorded it; what cannot be replayed."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_making import (
    START_NS,
    picture,
    record_messages,
    setup_messages,
    write,
    write_foreign,
    write_recording,
)
from PIL import Image as Picture
from rosbags.rosbag2 import StoragePlugin
from std_msgs.msg import Bool

from flowact_msgs.msg import StreamMetrics, Transcript
from flowact_ros.engine.provenance import Provenance
from flowact_ros.media.mp4 import read_mp4
from flowact_ros.models.precision import automatic
from flowact_ros.nodes.bag_replay import Machine, Variant, pipeline_for
from flowact_ros.nodes.bag_replay_command import main
from flowact_ros.nodes.convert import to_time

BIT_FOR_BIT = "the same, bit for bit: motion and frames of all"


@pytest.fixture
def replayed(lively: None, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """(exit status, what was printed, errors) of `flowact replay`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def hash_of(text: str) -> str:
    return re.search(r"hash ([0-9a-f]{32})", text)[1]


def test_the_same_frames_as_video_and_hashes(replayed, recording: Path, session_of_records, tmp_path: Path) -> None:
    frames = session_of_records[0]
    video, hashes = tmp_path / "a.mp4", tmp_path / "hashes.txt"
    status, told, _ = replayed(recording, "--verify", "--mp4", video, "--hashes", hashes)
    assert status == 0 and BIT_FOR_BIT in told and "weights" in told
    from flowact_ros.nodes.bag_outputs import _hash

    lines = [line.split() for line in hashes.read_text().splitlines()]
    assert len(lines) >= len(frames)
    for frame, (index, rgb, audio) in zip(frames, lines):
        assert (int(index), rgb, audio) == (frame.index, _hash(frame.rgb), _hash(frame.audio))
    clip = read_mp4(video)
    assert len(clip.frames) == len(lines) and clip.frames[0].shape == frames[0].rgb.shape
    assert np.abs(clip.frames[30].astype(int) - frames[30].rgb).mean() < 8


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_recordings_of_ros2_bag_are_replayed_too(replayed, session_of_records, tmp_path: Path, storage) -> None:
    """Among other topics, and with messages that came twice."""
    sent = record_messages(session_of_records[1])
    others = [("/robot/on", START_NS + k, Bool(data=True)) for k in range(3)]
    sent = [*others, *setup_messages([picture(0), picture(1)]), *sent[:1], *sent]
    write_foreign(tmp_path / "rosbag2", sent, storage)
    status, told, errors = replayed(tmp_path / "rosbag2", "--verify")
    assert status == 0 and BIT_FOR_BIT in told and "stream 1 of 1" in told and not errors.strip()


def test_a_cut_off_recording_gives_what_it_holds(replayed, recording: Path, tmp_path: Path) -> None:
    data = (recording / "talk.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) * 4 // 5])
    status, told, errors = replayed(tmp_path / "cut.mcap", "--verify")
    # All of so short a recording is one chunk of the file.
    assert status == 2 and "Traceback" not in errors and "holds no records" in errors


def test_a_picture_that_was_not_recorded_can_be_given(replayed, session_of_records, tmp_path: Path) -> None:
    records = [record for record in session_of_records[1] if record.resets == 0]
    write_recording(tmp_path / "a", records, [])
    status, _, errors = replayed(tmp_path / "a", "--verify")
    assert status == 2 and "does not hold its picture" in errors and "--reference" in errors
    Picture.fromarray(picture()).save(tmp_path / "face.png")
    status, told, _ = replayed(tmp_path / "a", "--verify", "--reference", tmp_path / "face.png")
    assert status == 0 and BIT_FOR_BIT in told


def test_missing_records_and_a_second_stream_begin_anew(replayed, session_of_records, tmp_path: Path) -> None:
    records = session_of_records[1]
    write_recording(tmp_path / "a", [*records, *records[:4]], [picture(0), picture(1)])
    status, told, _ = replayed(tmp_path / "a", "--verify")
    assert status == 0 and "stream 2 of 2" in told and told.count(BIT_FOR_BIT) == 2
    write_recording(tmp_path / "b", [*records[:3], *records[4:]], [picture(0), picture(1)])
    status, told, errors = replayed(tmp_path / "b", "--verify")
    assert "1 records missing before it" in told and told.count(BIT_FOR_BIT) >= 1
    assert (status == 0) == (told.count(BIT_FOR_BIT) == 2) and "Traceback" not in errors
    status, told, _ = replayed(tmp_path / "a", "--stream", 2)
    assert "stream 2 of 2" in told and "stream 1" not in told
    status, _, errors = replayed(tmp_path / "a", "--stream", 3)
    assert status == 2 and "3 is not 1 … 2" in errors


def test_two_generators_on_one_topic_are_told_apart(replayed, session_of_records, tmp_path: Path) -> None:
    sent = record_messages(session_of_records[1])
    late = sent[: len(sent) // 2]
    mixed = [sent[0], *(part for pair in zip(sent[1:], late) for part in pair), *sent[1 + len(late) :]]
    mixed = [(topic, START_NS + k, message) for k, (topic, _, message) in enumerate(mixed)]
    write(tmp_path / "a", [*setup_messages([picture(0), picture(1)]), *mixed])
    status, told, _ = replayed(tmp_path / "a", "--verify")
    assert status == 0 and "stream 2 of 2" in told and told.count(BIT_FOR_BIT) == 2


def test_a_record_that_was_changed_is_found(replayed, session_of_records, tmp_path: Path) -> None:
    records = list(session_of_records[1])
    records[3] = replace(records[3], instruction="something else")
    write_recording(tmp_path / "a", records, [picture(0), picture(1)])
    status, told, _ = replayed(tmp_path / "a", "--verify")
    assert status == 1 and f"from step {records[3].step} on" in told and BIT_FOR_BIT not in told
    assert replayed(tmp_path / "a")[0] == 0  # without --verify it is only told


def test_on_another_processor_the_recorded_motion_is_shown(replayed, session_of_records, tmp_path: Path) -> None:
    """Here the same weights under another seed stand for a denoiser that computes otherwise."""
    elsewhere = replace(session_of_records[1][0].provenance, processor="another one")
    records = [replace(record, provenance=elsewhere, seed=record.seed + 1) for record in session_of_records[1]]
    write_recording(tmp_path / "a", records, [picture(0), picture(1)])
    status, told, _ = replayed(tmp_path / "a", "--verify")
    assert status == 0 and "here processor differs" in told and "the recorded motion was drawn again" in told
    assert BIT_FOR_BIT in told  # here what draws is the same; what motion's rounding does elsewhere is test_keyframes'
    same = [replace(record, provenance=elsewhere) for record in session_of_records[1]]
    write_recording(tmp_path / "b", same, [picture(0), picture(1)])
    status, told, _ = replayed(tmp_path / "b", "--verify")
    assert status == 0 and "here processor differs" in told and BIT_FOR_BIT in told


def test_runs_side_by_side(replayed, recording: Path, tmp_path: Path) -> None:
    video = tmp_path / "both.mp4"
    status, told, _ = replayed(recording, "--mp4", video, "--with", "seed=9", "--with", "character=mia")
    assert status == 0 and BIT_FOR_BIT in told
    frames = read_mp4(video).frames
    side = frames.shape[1]
    assert frames.shape[2] == 3 * side
    left, middle, right = (frames[:, :, k * side : (k + 1) * side].astype(int) for k in range(3))
    assert np.abs(left - middle).mean() > 0.5 and np.abs(left - right).mean() > 5


def test_tables(replayed, session_of_records, tmp_path: Path) -> None:
    frames, records = session_of_records
    text = Transcript(text="Hello there", final=True, utterance_id="u", confidence=0.5)
    text.header.stamp, text.start, text.end = (to_time(START_NS + k * 10**9) for k in (2, 1, 2))
    text.header.frame_id = "user"
    partial = Transcript(text="Hello", final=False)
    metrics = StreamMetrics(ttff=0.25, frames=25)
    metrics.header.stamp = to_time(START_NS + 10**9)
    extra = [
        ("/avatar/captions", START_NS, partial), ("/avatar/captions", START_NS, text),
        ("/avatar/metrics", START_NS, metrics),
    ]  # fmt: skip
    write(tmp_path / "a", [*record_messages(records), *extra])
    status, told, _ = replayed(tmp_path / "a", "--tables", tmp_path / "tables")
    assert status == 0 and len(told.splitlines()) == 3

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / "tables" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    motion = rows("motion")
    assert [int(row["frame"]) for row in motion] == list(range(len(motion))) and len(motion) >= len(frames)
    for frame, row in zip(frames, motion):
        values = [float(value) for name, value in row.items() if name.startswith("control_")]
        np.testing.assert_array_equal(np.array(values, np.float32), frame.motion)
        assert float(row["time_s"]) == frame.index / 25
    assert rows("transcript") == [{
        "time_s": "2.0", "topic": "captions", "side": "user", "utterance_id": "u", "text": "Hello there", "locale": "",
        "confidence": "0.5", "start_s": "1.0", "end_s": "2.0",
    }]  # fmt: skip
    assert rows("latencies")[0]["ttff"] == "0.25" and rows("latencies")[0]["time_s"] == "1.0"


# ---------------------------------------------------------------- what cannot be replayed


def test_other_weights_are_refused(replayed, session_of_records, tmp_path: Path) -> None:
    other = replace(session_of_records[1][0].provenance, weights="0123456789abcdef")
    write_recording(tmp_path / "a", [replace(r, provenance=other) for r in session_of_records[1]], [picture(0)])
    status, _, errors = replayed(tmp_path / "a", "--verify")
    assert status == 2 and "weights 0123456789abcdef" in errors and "--weights" in errors
    assert len(errors.strip().splitlines()) == 1


def test_another_version_of_the_messages_is_refused(replayed, tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "flowact_msgs/msg/ChunkRecord"
    store.register(get_types_from_msg("std_msgs/Header header\nuint64 step\nfloat32[] pcm\n", kind))
    with Writer(tmp_path / "old", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/avatar/chunks", kind, typestore=store)
        header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](0, 0), "")
        message = store.types[kind](header, 0, np.zeros(2, np.float32))
        writer.write(connection, 1, store.serialize_cdr(message, kind))
    status, _, errors = replayed(tmp_path / "old")
    assert status == 2 and "recorded by another version" in errors and "first_frame" in errors


def test_without_records_of_one_avatar_it_says_what_is_there(replayed, session_of_records, tmp_path: Path) -> None:
    write(tmp_path / "none", [("/robot/on", START_NS, Bool(data=True))])
    status, _, errors = replayed(tmp_path / "none")
    assert status == 2 and "holds no records" in errors and "/robot/on" in errors
    sent = record_messages(session_of_records[1])
    pictures = setup_messages([picture(0), picture(1)])
    twice = [(topic.replace("avatar", name), t, m) for name in ("a", "b") for topic, t, m in [*pictures, *sent]]
    write(tmp_path / "two", twice)
    status, _, errors = replayed(tmp_path / "two")
    assert status == 2 and "several avatars" in errors and "--namespace" in errors
    status, told, _ = replayed(tmp_path / "two", "--namespace", "b", "--verify")
    assert status == 0 and BIT_FOR_BIT in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--with", "seed=9"], "give --mp4"),
        (["--mp4", "a.mp4", "--with", "colour=red"], "is none of seed=NUMBER"),
        (["--mp4", "a.mp4", "--with", "seed=-1"], "no whole number"),
        (["--mp4", "a.avi"], "must end in .mp4"),
        (["--mp4", "/none/there/a.mp4"], "there is no folder"),
        (["--seed", "3"], "go with --from-inputs"),
        (["--publish", "--to", "a b"], "--to: "),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(replayed, recording: Path, arguments: list[str], reason: str):
    status, _, errors = replayed(recording, *arguments)
    assert status == 2 and reason in errors and len(errors.strip().splitlines()) == 1


def test_variants_have_names() -> None:
    assert Variant.parse("character=mia, seed=3") == Variant(seed=3, character="mia")
    assert Variant.parse("character=mia,seed=3").name == "seed 3, character mia"


@pytest.mark.parametrize(
    "recorded, here",
    [
        ("bfloat16", "bfloat16"), ("fp8", "fp8"), ("float32, batch 2", "float32, batch 2"), ("int3", automatic("cpu")),
    ],
)  # fmt: skip
def test_the_denoiser_is_computed_as_recorded_where_that_can_be(recorded: str, here: str) -> None:
    made = Provenance("debug", audio_encoder="embedded", text_encoder="embedded", denoiser=recorded, threads=1)
    assert pipeline_for(made, Machine()).provenance.denoiser == here
