# SPDX-License-Identifier: Apache-2.0
"""A recording of a generator that draws every second frame: a replay shows the same ones, bit for bit."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from bag_making import picture, write_recording

from flowact_ros.engine import pipeline as module
from flowact_ros.engine.interfaces import ChunkRecord
from flowact_ros.engine.session import Session
from flowact_ros.nodes.bag_replay_command import main


@pytest.mark.usefixtures("lively")
def test_it_is_replayed_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = module.build_pipeline("debug", overrides={"draw_every": 2, "schedule": {"order": "sequential"}})
    records: list[ChunkRecord] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append) as session:
        session.push_audio(0.3 * np.sin(np.arange(24_000) / 9).astype(np.float32), 24_000, utterance_id="u", last=True)
        frames = list(islice(session.frames(realtime=False), 28))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames[::2], frames[1::2]))
    assert not np.array_equal(frames[8].motion, frames[9].motion)  # controls go on at 25 a second
    write_recording(tmp_path / "talk", records, [picture()])
    assert main([str(tmp_path / "talk"), "--verify"]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
