# SPDX-License-Identifier: Apache-2.0
"""A recording of a spatial preset: it holds no motion, and its frames are made again from it alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from bag_making import picture, write_recording

from flowact_ros.engine.interfaces import ChunkRecord
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.session import Session
from flowact_ros.models.checkpoint import RANDOM
from flowact_ros.nodes.bag_replay_command import main

SMALL = {"video": {"height": 32, "width": 64}, "dit": {"grid": [1, 2]}, "schedule": {"steps": 1}}


def test_it_is_replayed_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = build_pipeline("avatar_spatial_debug", weights=RANDOM, overrides=SMALL)
    speech = (0.3 * np.random.default_rng(0).standard_normal(24_000)).astype(np.float32)
    records: list[ChunkRecord] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append) as session:
        session.push_audio(speech, 24_000, utterance_id="u", last=True)
        for frame in islice(session.frames(realtime=False), 28):
            if frame.index == 9:
                session.interrupt()
    assert records[-1].drawn[0].motion.shape == (4, 0)
    write_recording(tmp_path / "talk", records, [picture()])
    assert main([str(tmp_path / "talk"), "--verify"]) == 0
    told = capsys.readouterr().out
    assert "the same, bit for bit" in told and "made with avatar_spatial_debug, weights random" in told
