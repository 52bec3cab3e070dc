# SPDX-License-Identifier: Apache-2.0
"""`flowact replay --from-inputs`: speech, instructions and looks of a recording through a new session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_making import START_NS, picture, record_messages, setup_messages, write
from geometry_msgs.msg import PointStamped
from std_msgs.msg import Bool

from flowact_msgs.msg import AudioChunk, Instruction
from flowact_ros.media.bag import BagError
from flowact_ros.nodes.bag_records import open_bag
from flowact_ros.nodes.bag_replay import Machine
from flowact_ros.nodes.bag_rerun import rerun
from flowact_ros.nodes.convert import audio_message, to_time

SECOND = 10**9


def tone(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(np.arange(round(seconds * 16_000)) / 7).astype(np.float32)


def inputs() -> list[tuple[str, int, object]]:
    """A second of speech in two messages from 1 s on, an instruction at 0.5 s, a look at 2 s, and rubbish."""
    pcm = tone(1.0)
    chunks = [
        audio_message(pcm[:8000], 16_000, to_time(0), utterance_id="u"),
        audio_message(pcm[8000:], 16_000, to_time(0), first_sample=8000, sequence=1, utterance_id="u", last=True),
    ]
    look = PointStamped()
    look.header.frame_id, look.point.x = "screen_normalized", 0.8
    return [
        ("/avatar/instruction", START_NS + SECOND // 2, Instruction(behaviour=4, text="laughs")),
        ("/avatar/speech", START_NS + SECOND, chunks[0]),
        ("/avatar/speech", START_NS + SECOND + 1, AudioChunk(sample_rate=1, encoding="MP3")),
        ("/avatar/speech", START_NS + SECOND + 2, chunks[1]),
        ("/avatar/look_at", START_NS + 2 * SECOND, look),
    ]


def frames_of(path: Path, **options: object) -> list:
    given = {"seed": None, "character": None, "reference": "", "namespace": "", "realtime": False, **options}
    with open_bag(str(path)) as bag:
        return list(rerun(bag, Machine(), **given)[0])


def test_inputs_come_when_they_came(lively, session_of_records, tmp_path: Path, capsys) -> None:
    pictures = setup_messages([picture(0), picture(1)])
    write(tmp_path / "a", [*pictures, *record_messages(session_of_records[1]), *inputs()])
    frames = frames_of(tmp_path / "a")
    speaking = [frame.index for frame in frames if frame.speaking]
    assert len(speaking) == 25 and 25 <= speaking[0] <= 40 and frames[-1].index >= speaking[-1] + 50
    assert [frame.index for frame in frames] == list(range(len(frames)))
    laughing = [frame.index for frame in frames if frame.behaviour == "reacting"]
    assert 12 <= laughing[0] <= 36 and laughing[-1] == frames[-1].index
    assert "was not taken" in capsys.readouterr().err
    again, other = frames_of(tmp_path / "a"), frames_of(tmp_path / "a", seed=5)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, again, strict=True))
    assert not all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, other, strict=True))


def test_speech_that_came_by_an_action_is_taken_from_the_records(lively, session_of_records, tmp_path: Path) -> None:
    write(tmp_path / "a", [*setup_messages([picture(0), picture(1)]), *record_messages(session_of_records[1])])
    frames = frames_of(tmp_path / "a")
    live = [frame for frame in session_of_records[0] if frame.speaking]
    said = np.concatenate([frame.audio for frame in frames if frame.speaking])
    np.testing.assert_array_equal(said, np.concatenate([frame.audio for frame in live]))


def test_a_recording_without_inputs_is_told(lively, tmp_path: Path) -> None:
    write(tmp_path / "a", [("/robot/on", START_NS, Bool(data=True))])
    with pytest.raises(BagError, match="holds no inputs: speech, instruction or look_at are needed"):
        frames_of(tmp_path / "a")
