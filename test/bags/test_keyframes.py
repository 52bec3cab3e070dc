# SPDX-License-Identifier: Apache-2.0
"""Keyframes: a recording that began late is replayed from the first one that nothing went back behind."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from fakes import FakePipeline, face
from simulation import Simulation, ramp

from flowact_ros.engine import records as engine_records
from flowact_ros.engine.comparison import Comparison
from flowact_ros.engine.interfaces import ChunkRecord, EngineError
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.replay import beginning, replay, said
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import SessionConfig

EVERY = 6  # latents between keyframes in these tests


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_records, "KEYFRAME_LATENTS", EVERY)


def references() -> dict:
    named = {"first": face(), "4": face(4)}
    return {name: load_reference(FakePipeline(), rgb, name) for name, rgb in named.items()}


@pytest.mark.parametrize("seed", range(6))
def test_a_late_recording_is_replayed_from_a_keyframe(seed: int):
    """Rewinds, skips, cuts and looks; the recording starts at any step, and its frames are those that were seen."""
    rng = random.Random(seed)
    sim = Simulation(SessionConfig(lead_s=rng.choice([None, 0.0])), seed=3)
    sim.at(0.5, lambda: sim.session.push_audio(ramp(5.0), 24000, utterance_id="a", last=True))
    at = rng.uniform(1.0, 4.0)
    sim.at(at, lambda: sim.session.set_instruction("laughs", priority=200))
    sim.at(at + 0.3, lambda: sim.session.look_at(0.7, -0.4))
    sim.at(rng.uniform(1.0, 5.0), lambda: sim.session.set_reference(face(4), "4"))
    sim.at(3.1, lambda: setattr(sim, "costs", {"denoise": (0.5, 0.0)}))
    sim.at(3.6, lambda: setattr(sim, "costs", {"denoise": (0.05, 0.0)}))
    sim.run(7)
    late = sim.records[rng.randint(1, len(sim.records) // 2) :]
    compared = Comparison()
    again = list(replay(FakePipeline(), references(), late, drawn=compared))
    begin = beginning(late, FakePipeline().context_samples)
    assert compared.exact and (late[begin].keyframe or late[begin].resets > 0)  # a cut is a beginning, too
    assert again[0].index <= late[begin].first_frame
    for live in sim.frames[again[0].index :]:
        if not live.repeated:
            frame = again[live.index - again[0].index]
            np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
            np.testing.assert_array_equal(live.audio, frame.audio)
            np.testing.assert_array_equal(live.motion, frame.motion)


def test_keyframes_come_regularly_and_again_after_a_rewind_behind_one():
    sim = Simulation(seed=3)
    for k in range(4):
        sim.at(1 + k, lambda: sim.session.set_instruction("laughs", priority=200))
    sim.run(6)
    places = [record.first_frame // 4 for record in sim.records if record.keyframe]
    assert not sim.records[0].keyframe
    assert len(places) > 6 and all(b - a <= EVERY + 3 for a, b in pairwise(places))
    # Each latent is still covered by a keyframe that nothing went back behind.
    for number, record in enumerate(sim.records):
        kept = sim.records[number:]
        if len(kept) > 6:
            assert kept[beginning(kept, 1920)].first_frame - record.first_frame <= 4 * (2 * EVERY + 3)


def test_without_a_listener_nothing_is_hashed_or_saved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_records, "digest_of", lambda frames: pytest.fail("hashed for nobody"))
    with Session(FakePipeline(), face()) as session:
        assert len(list(islice(session.frames(realtime=False), 30))) == 30


def test_a_reference_is_told_before_the_first_record_of_it():
    told: list[str] = []
    with Session(
        FakePipeline(), face(), reference_id="first", on_chunk=lambda record: told.append(record.reference_id + "!"),
        on_reference=lambda reference: told.append(reference.id),
    ) as session:  # fmt: skip
        frames = session.frames(realtime=False)
        list(islice(frames, 20))
        session.set_reference(face(4), "4")
        list(islice(frames, 20))
    assert told[:2] == ["first", "first!"] and told.count("first") == told.count("4") == 1
    assert told.index("4") == told.index("4!") - 1


def test_speech_is_found_in_records_again():
    sim = Simulation()
    speech = {"a": ramp(2.0), "b": ramp(1.0, 60_000)}
    sim.at(0.5, lambda: sim.session.push_audio(speech["a"], 24000, utterance_id="a", last=True))
    sim.at(1.5, lambda: sim.session.push_audio(speech["b"], 24000, utterance_id="b", last=True))
    sim.at(1.8, lambda: sim.session.set_instruction("laughs", priority=200))
    sim.run(6)
    found = said(sim.records)
    assert [name for _, name, _ in found] == ["a", "b"]
    for _, name, pcm in found:
        np.testing.assert_array_equal(pcm, speech[name])


# ---------------------------------------------------------------- real networks


def lively(order: str):
    pipeline = build_pipeline("debug", runtime="eager", overrides={"schedule": {"order": order}})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.denoiser.parameters():  # zero-initialised gates would ignore every input
            parameter.add_(0.05 * torch.randn_like(parameter))
    return pipeline


def picture() -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize("order", ["sequential", "diagonal"])
def test_memory_of_real_networks_is_the_same_after_the_way(order: str):
    """From every keyframe on, bit for bit, with caches that were computed again, and with what was in flight."""
    pipeline = lively(order)
    records: list[ChunkRecord] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append, reference_id="a") as session:
        frames = session.frames(realtime=False)
        made = list(islice(frames, 20))
        session.push_audio(0.3 * np.sin(np.arange(40_000) / 9).astype(np.float32), 24000, utterance_id="u", last=True)
        session.look_at(0.5, 0.2)
        made += islice(frames, 76)
    known = {"a": pipeline.load_reference(picture())}
    begun = [number for number, record in enumerate(records) if record.keyframe]
    assert len(begun) >= 3 and len({frame.rgb.tobytes() for frame in made}) > 60
    for number in begun:
        compared = Comparison()
        again = list(replay(pipeline, known, records[number:], drawn=compared))
        assert compared.exact and again[0].index == records[number].first_frame
        for frame in again[: len(made) - again[0].index]:
            np.testing.assert_array_equal(frame.rgb, made[frame.index].rgb)
    assert max(len(record.keyframe) for record in records) < 200_000
    broken = [replace(records[begun[0]], keyframe=records[begun[0]].keyframe[:-9]), *records[begun[0] + 1 :]]
    with pytest.raises(EngineError, match="keyframe of step .* cannot be read"):
        list(replay(pipeline, known, broken))


def test_recorded_motion_is_drawn_again_without_the_denoiser():
    pipeline = lively("sequential")
    records: list[ChunkRecord] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append, reference_id="a") as session:
        made = list(islice(session.frames(realtime=False), 48))
    known = {"a": pipeline.load_reference(picture())}
    pipeline.denoise = lambda *a, **k: pytest.fail("the denoiser ran")
    compared = Comparison()
    again = list(replay(pipeline, known, records[1:], drawn=compared, redraw=True))
    assert compared.same_motion == compared.latents > 0 and compared.alike
    for frame in again[: len(made) - again[0].index]:
        np.testing.assert_array_equal(frame.motion, made[frame.index].motion)
        assert np.abs(frame.rgb.astype(int) - made[frame.index].rgb).max() <= 1
