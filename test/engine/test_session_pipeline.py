# SPDX-License-Identifier: Apache-2.0
"""The session on real networks (debug preset): records give the same frames, across rewinds and cuts."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from fakes import AskingWatch

from flowact_ros.engine.interfaces import ChunkRecord, Frame
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.replay import replay
from flowact_ros.engine.session import Session


def picture(turn: int) -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.roll(np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8), turn, axis=2)


def test_records_give_the_same_frames_with_real_networks():
    pipeline = build_pipeline("debug", runtime="eager")
    torch.manual_seed(0)
    for parameter in pipeline.denoiser.parameters():  # zero-initialised gates would ignore every input
        parameter.add_(0.05 * torch.randn_like(parameter))
    speech = (0.3 * np.random.default_rng(0).standard_normal(60_000)).astype(np.float32)

    def run(seed: int) -> tuple[list[Frame], list[ChunkRecord]]:
        records: list[ChunkRecord] = []
        with Session(pipeline, picture(0), seed=seed, on_chunk=records.append, reference_id="a") as session:
            frames = []
            session._stream.watch = AskingWatch(refine=(24, 36), reset=(64,))
            for frame in islice(session.frames(realtime=False), 72):
                frames.append(frame)
                if frame.index == 1:
                    session.push_audio(speech, 24000, utterance_id="u", last=True)
                if frame.index == 17:
                    session.set_instruction("laughs", priority=200)
                if frame.index == 29:
                    session.interrupt()
                if frame.index == 41:
                    session.set_reference(picture(1), "b")
                if frame.index == 57:
                    session.reset_memory()
        return frames, records

    frames, records = run(7)
    assert records[-1].rewinds >= 3 and records[-1].resets == 3
    assert sum(record.refines for record in records) == 2
    known = {"a": pipeline.load_reference(picture(0)), "b": pipeline.load_reference(picture(1))}
    again = list(replay(pipeline, known, records))
    assert len(again) >= 72
    for live, frame in zip(frames, again, strict=False):
        np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
        np.testing.assert_array_equal(live.audio, frame.audio)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, run(7)[0], strict=True))
    assert not all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, run(8)[0], strict=True))
    assert any(f.speaking for f in frames[:29]) and not any(f.speaking for f in frames[33:])
