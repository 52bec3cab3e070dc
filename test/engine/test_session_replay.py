# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a live stream, what must hold holds, and its records give its frames again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fakes import AskingWatch, FakePipeline, face
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import BesideSimulation, Simulation, ramp

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.replay import replay
from flowact_ros.engine.session_config import SessionConfig


def references() -> dict:
    """What the simulated sessions show, encoded anew."""
    named = {"first": face(), "3": face(3), "4": face(4)}
    return {name: load_reference(FakePipeline(), rgb, name) for name, rgb in named.items()}


def check_replay(sim: Simulation) -> None:
    again = list(replay(FakePipeline(), references(), sim.records))
    assert len(again) > 0
    for live, frame in zip(sim.frames, again, strict=False):
        assert live.index == frame.index
        if not live.repeated:
            np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
            np.testing.assert_array_equal(live.audio, frame.audio)
            np.testing.assert_array_equal(live.motion, frame.motion)
            assert (live.utterance_id, live.behaviour, live.speaking) == (
                frame.utterance_id, frame.behaviour, frame.speaking
            )  # fmt: skip


@pytest.mark.parametrize("device", [Simulation, BesideSimulation])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_history(device, data):
    """Speech (whole, live, in pieces), interruptions, instructions, cuts and hiccups at any time."""
    config = SessionConfig(lead_s=data.draw(st.sampled_from([None, 0.0, 0.15])))
    sim = device(config, seed=data.draw(st.integers(0, 5)))
    usual, said, interrupted, at = sim.costs, 0, False, 0.3
    pieces: list[np.ndarray] = []
    for number in range(data.draw(st.integers(1, 6))):
        kinds = ["whole", "live", "pieces", "interrupt", "urgent", "calm", "character", "reset", "hiccup", "look"]
        kinds = kinds if device is Simulation else kinds[:-1]  # what draws by itself has no gaze
        kind = data.draw(st.sampled_from(kinds))
        at += data.draw(st.floats(0.0, 1.0))
        seconds = data.draw(st.floats(0.01, 1.2))
        name = str(number)
        if kind in ("whole", "live", "pieces"):
            pcm = ramp(seconds, said + 1)
            said += len(pcm)
            pieces.append(pcm)
            if kind == "live":
                sim.speak_live(at, pcm, name)
                at += seconds
            else:
                cut = len(pcm) // 3 if kind == "pieces" else 0
                later = at + (data.draw(st.floats(0.0, 0.8)) if cut else 0.0)
                head, tail = pcm[:cut], pcm[cut:]
                if cut:
                    sim.at(at, lambda p=head, n=name: sim.session.push_audio(p, 24000, utterance_id=n))
                sim.at(
                    later, lambda p=tail, n=name: sim.session.push_audio(p, 24000, utterance_id=n, last=True)
                )
                at = later
        elif kind == "interrupt":
            interrupted = True
            sim.at(at, lambda: sim.session.interrupt())
        elif kind in ("urgent", "calm"):
            priority = 200 * (kind == "urgent")
            sim.at(
                at,
                lambda n=name, p=priority: sim.session.set_instruction(n, behaviour="reacting", priority=p),
            )
        elif kind == "character":
            value = data.draw(st.sampled_from([3, 4]))
            sim.at(at, lambda v=value: sim.session.set_reference(face(v), str(v)))
        elif kind == "reset":
            sim.at(at, sim.session.reset_memory)
        elif kind == "look":
            x, y = data.draw(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)))
            sim.at(at, lambda x=x, y=y: sim.session.look_at(x, y))
        else:
            sim.at(at, lambda s=seconds: setattr(sim, "costs", {"denoise": (s, 0.0), "render": (0.0, 0.02)}))
            sim.at(at + 0.4, lambda: setattr(sim, "costs", usual))
    sim.run(at + 10.0)
    sim.check()
    everything = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if interrupted:
        whole = sim.said()
        heard = whole[np.isin(whole, everything)]  # but for fades
        assert len(np.unique(heard)) >= len(heard) - 4 * 480 and len(heard) <= len(everything)
    else:
        np.testing.assert_array_equal(sim.said(), everything)
    assert not sim.frames[-1].speaking and not sim.frames[-1].repeated
    if sim.session.metrics().dropped == sim.session.metrics().skipped == 0:
        sim.check_history()
    check_replay(sim)


def test_replay_covers_rewinds_and_skips():
    sim = Simulation()
    sim.at(1, lambda: sim.session.push_audio(ramp(2.0), 24000, utterance_id="a", last=True))
    sim.at(2.0, lambda: sim.session.set_instruction("laughs", priority=200))
    sim.at(4.5, lambda: setattr(sim, "costs", {"denoise": (2.0, 0.0)}))
    sim.at(6.0, lambda: setattr(sim, "costs", {"denoise": (0.05, 0.0)}))
    sim.run(10)
    ends = [r.first_frame + 4 * r.latents for r in sim.records]
    starts = [r.first_frame for r in sim.records]
    assert any(start < end for start, end in zip(starts[1:], ends, strict=False))  # rewinds
    assert any(start > end for start, end in zip(starts[1:], ends, strict=False))  # skips
    assert sim.records[-1].rewinds >= 2
    sim.check()
    check_replay(sim)


def test_replay_of_an_interruption_falls_silent_too():
    sim = Simulation()
    sim.at(1, lambda: sim.session.push_audio(ramp(4.0), 24000, utterance_id="a", last=True))
    sim.at(2.0, sim.session.interrupt)
    sim.run(5)
    sim.check()
    sim.check_history()
    check_replay(sim)
    assert 10 < sum(f.speaking for f in sim.frames) < 50


def test_another_seed_or_another_text_is_another_history():
    sim = Simulation().run(2)
    for change in ({"seed": 9}, {"instruction": "other"}):
        records = [replace(r, **change) for r in sim.records]
        again = list(replay(FakePipeline(), references(), records))
        assert not any(np.array_equal(a.rgb, b.rgb) for a, b in zip(sim.frames, again, strict=False))


def test_missing_records_are_named():
    sim = Simulation().run(3)
    known = references()
    with pytest.raises(EngineError, match="reference 'first': it was not given"):
        list(replay(FakePipeline(), {}, sim.records))
    with pytest.raises(EngineError, match="step 3 follows step 1: 1 records are missing"):
        list(replay(FakePipeline(), known, sim.records[:2] + sim.records[3:]))
    last = sim.records[-1].step
    with pytest.raises(EngineError, match=f"step 0 follows step {last}: another stream begins there"):
        list(replay(FakePipeline(), known, sim.records + sim.records[:1]))
    with pytest.raises(EngineError, match="from step 1 on can begin a replay: step 0, a keyframe"):
        list(replay(FakePipeline(), known, sim.records[1:]))
    assert list(replay(FakePipeline(), known, [])) == []


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_recording_that_began_late_is_replayed_from_its_first_cut(data):
    """Cuts, rewinds over them, and sound across them; the recording starts at any step."""
    config = SessionConfig(lead_s=data.draw(st.sampled_from([None, 0.0])))
    sim = Simulation(config, seed=3)
    sim.at(0.5, lambda: sim.session.push_audio(ramp(6.0), 24000, utterance_id="a", last=True))
    at = data.draw(st.floats(2.0, 3.0))
    sim.at(at, sim.session.reset_memory)
    sim.at(at + data.draw(st.floats(0.0, 0.4)), lambda: sim.session.set_instruction("laughs", priority=200))
    sim.at(at + 1.0, lambda: sim.session.set_reference(face(4), "4"))
    sim.run(8)
    sim.check()
    cut = next(i for i, record in enumerate(sim.records) if record.resets == 1)
    late = sim.records[data.draw(st.integers(1, cut - 1)) :]
    again = list(replay(FakePipeline(), references(), late))
    context = FakePipeline().context_samples
    first = next(
        b.first_frame
        for a, b in pairwise(late)
        if b.resets != a.resets and b.first_frame * 960 - context >= late[0].first_sample
    )
    assert again[0].index <= first
    assert [f.index for f in again] == list(range(again[0].index, again[-1].index + 1))
    for live in sim.frames[again[0].index :]:
        if not live.repeated:
            frame = again[live.index - again[0].index]
            np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
            np.testing.assert_array_equal(live.audio, frame.audio)
            assert (live.utterance_id, live.behaviour) == (frame.utterance_id, frame.behaviour)


@pytest.mark.parametrize("phase", [i * 0.047 for i in range(12)])
def test_rewinds_of_a_machine_that_has_just_become_slow(phase):
    """No lead and slow commits: frames leave between the decision to rewind and the rewind, and some are skipped."""
    sim = Simulation(SessionConfig(lead_s=0.0))
    speech = ramp(3.0)
    sim.at(1, lambda: sim.session.push_audio(speech, 24000, utterance_id="a", last=True))
    for i in range(3):
        at = 1.6 + 0.6 * i + phase
        sim.at(at, lambda: sim.session.set_instruction("laughs", priority=200))
        sim.at(at, lambda: setattr(sim, "costs", {"denoise": (0.1, 0.0), "advance": (0.7, 0.0)}))
        sim.at(at + 0.05, lambda: setattr(sim, "costs", {"denoise": (0.1, 0.0), "advance": (0.4, 0.0)}))
        sim.at(at + 0.5, lambda: setattr(sim, "costs", {"denoise": (0.02, 0.02)}))
    sim.run(10)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    check_replay(sim)


def test_replay_covers_what_the_watch_asked_for():
    sim = Simulation()
    sim.stream.watch = asking = AskingWatch(refine=(40, 41, 90), reset=(130,))
    sim.at(2.6, lambda: sim.session.set_instruction("laughs", priority=200))  # right after a refinement
    sim.at(4.0, lambda: sim.session.push_audio(ramp(2.0), 24000, utterance_id="a", last=True))
    sim.run(10)
    metrics = sim.session.metrics()
    refined = [record.step for record in sim.records if record.refines]
    assert metrics.refinements == len(refined) >= 2 and metrics.recoveries == sim.records[-1].resets == 1
    assert asking.cuts == 1
    check_replay(sim)
    forgotten = [replace(record, refines=False) for record in sim.records]
    kept, lost = (list(replay(FakePipeline(), references(), r)) for r in (sim.records, forgotten))
    assert any(not np.array_equal(a.rgb, b.rgb) for a, b in zip(kept, lost, strict=True))
