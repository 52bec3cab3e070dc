# SPDX-License-Identifier: Apache-2.0
"""What is looked at when: points grow old, policies differ, and what a session looked at can be made again."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from fakes import FakePipeline, face
from simulation import Simulation, ramp

from flowact_ros.engine.gaze import REST
from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.looking import MOST, VIEWER, WANDER, Looking, wander
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.replay import replay
from flowact_ros.engine.session import Session


def test_a_point_counts_for_a_while() -> None:
    looking = Looking(timeout_s=2.0)
    assert looking.target(0.0, 0, False) is None
    assert looking.give(0.5, -0.25, 10.0)
    assert looking.target(11.0, 0, True) == looking.target(12.0, 0, False) == (0.5, -0.25)
    assert looking.target(12.1, 0, False) is None and looking.target(11.0, 0, False) is None
    looking.give(1.0, 0.0, 20.0)
    assert (
        looking.target(5.0, 0, False) == looking.target(7.0, 0, False) == (1.0, 0.0)
    )  # the clock was set back
    assert looking.target(7.1, 0, False) is None
    looking.give(1.0, 0.0, 30.0)
    looking.release()
    assert looking.target(30.0, 0, False) is None


def test_only_what_is_far_away_is_hurried_and_not_all_the_time() -> None:
    looking = Looking()
    assert looking.give(0.5, 0.0, 0.0) and not looking.give(-0.5, 0.0, 0.5)
    assert looking.target(0.5, 0, False) == (-0.5, 0.0)
    assert not looking.give(-0.4, 0.1, 3.0)  # near: with the next step
    assert looking.give(0.4, 0.1, 3.0)


def test_policies() -> None:
    viewer, wanderer = Looking(VIEWER), Looking(WANDER, seed=3)
    assert not viewer.give(1.0, 1.0, 0.0) and viewer.target(0.0, 0, False) is None
    seen = [wanderer.target(0.0, latent, False) for latent in range(600)]
    assert None in seen and len(set(seen)) > 10
    assert seen == [Looking(WANDER, seed=3).target(9.0, latent, False) for latent in range(600)]
    assert [wanderer.target(0.0, latent, True) for latent in range(600)] == [None] * 600  # while it speaks
    assert wanderer.give(2.0, 0.0, 5.0) and wanderer.target(5.0, 0, False) == (2.0, 0.0)
    for x, y in filter(None, seen):
        assert abs(x) <= 1 and abs(y) <= 1 and x == np.float32(x)
    assert wander(1, 0) == wander(1, 14)
    wanderer.policy = VIEWER
    assert wanderer.target(5.0, 0, False) is None  # from now on
    with pytest.raises(ValueError, match="gaze is 'up': one of follow, wander, viewer"):
        Looking("up")


def test_points_that_cannot_be() -> None:
    looking = Looking()
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite numbers are needed"):
            looking.give(0.0, bad, 0.0)
    looking.give(1e300, 0.1, 0.0)
    assert looking.target(0.0, 0, False) == (
        MOST,
        float(np.float32(0.1)),
    )  # as a record in single precision has it


# ---------------------------------------------------------------- in a session


def replayed(sim: Simulation) -> list:
    return list(
        replay(FakePipeline(), {"first": load_reference(FakePipeline(), face(), "first")}, sim.records)
    )


def eyes(frames: list) -> np.ndarray:
    return np.array([frame.motion[2] for frame in frames])


def test_a_session_looks_and_looks_back() -> None:
    sim = Simulation()
    sim.at(2.0, lambda: sim.session.look_at(1.0, 0.0))
    sim.run(10)
    sim.check()
    sim.check_history()  # memory saw nothing of it
    x = eyes(sim.frames)
    first = int(np.argmax(x > 0))
    assert 2.0 < sim.left[first] - 1000.0 < 2.6  # frames made ahead were made again for it
    assert sim.session.metrics().rewinds >= 1
    assert x[first + 3] > 0.4 and x[first + 60] > 0.4
    assert not x[-20:].any()  # 3 s later it is released
    assert {record.look for record in sim.records} == {None, (1.0, 0.0)}
    for live, again in zip(sim.frames, replayed(sim)):
        np.testing.assert_array_equal(live.rgb, again.rgb)
        np.testing.assert_array_equal(live.motion, again.motion)


def test_it_looks_away_before_the_point_is_old() -> None:
    sim = Simulation()
    sim.at(2.0, lambda: sim.session.look_at(1.0, 0.0))
    sim.at(3.0, lambda: sim.session.look_away())
    sim.run(5)
    x = eyes(sim.frames)
    assert x.max() > 0.4 and not x[-3:].any()
    for live, again in zip(sim.frames, replayed(sim)):
        np.testing.assert_array_equal(live.motion, again.motion)


def test_a_rewind_in_the_middle_of_a_turn() -> None:
    """An urgent instruction and an onset take frames back while the head turns: the turn goes on where it was."""
    sim = Simulation()
    for at in np.arange(1.0, 6.0, 0.7):
        sim.at(at, lambda x=np.cos(7 * at): sim.session.look_at(x, -x / 2))
    sim.at(2.3, lambda: sim.session.set_instruction("laughs", priority=200))
    sim.at(3.1, lambda: sim.session.push_audio(ramp(1.0), 24000, utterance_id="a", last=True))
    sim.at(4.2, sim.session.reset_memory)
    sim.run(11)
    sim.check()
    again = replayed(sim)
    assert len({record.look for record in sim.records}) > 4 and sim.records[-1].rewinds >= 4
    for live, frame in zip(sim.frames, again):
        if not live.repeated:
            np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
            np.testing.assert_array_equal(live.motion, frame.motion)
    turns = np.abs(np.diff([frame.motion[4] for frame in sim.frames]))  # of the head
    assert turns.max() < 0.06


def test_records_without_looks_are_those_of_before() -> None:
    sim = Simulation().run(3)
    assert {record.look for record in sim.records} == {None} and sim.stream._now.gaze == REST
    assert not any(frame.motion[2:].any() for frame in sim.frames)


def test_it_wanders_while_it_is_silent() -> None:
    sim = Simulation()
    sim.stream.looking = Looking(WANDER, seed=2)
    sim.at(4.0, lambda: sim.session.push_audio(ramp(3.0), 24000, utterance_id="a", last=True))
    sim.run(15)
    sim.check()
    assert len({record.look for record in sim.records}) > 3
    assert {record.look for record in sim.records if record.spans} == {None}
    for live, again in zip(sim.frames, replayed(sim)):
        np.testing.assert_array_equal(live.motion, again.motion)


def test_a_model_without_a_gaze_says_so() -> None:
    sim = Simulation()
    sim.pipeline.control_names = ("frame", "loudest")
    with pytest.raises(EngineError, match="has no gaze"):
        sim.session.look_at(0.0, 0.0)


def test_real_networks_look_and_do_it_again() -> None:
    """What is drawn is the motion that is published; without a target it is the sampler's, bit for bit."""
    pipeline = build_pipeline("debug", runtime="eager")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    records, sides = [], []
    with Session(pipeline, picture, seed=7, on_chunk=records.append) as session:
        for frame in islice(session.frames(realtime=False), 48):
            sides.append(frame)
            if frame.index == 11:
                session.look_at(-1.0, 0.5)
            if frame.index == 30:
                session.set_instruction("nods", priority=200)
    with Session(pipeline, picture, seed=7) as session:
        plain = list(islice(session.frames(realtime=False), 36))
    column = pipeline.control_names.index("gaze_x")
    moved = [frame.motion[column] - other.motion[column] for frame, other in zip(sides, plain)]
    assert not any(moved[:12]) and min(moved[16:24]) < -0.3
    for frame, other in zip(sides[:12], plain):
        np.testing.assert_array_equal(frame.rgb, other.rgb)
    again = replay(pipeline, {records[0].reference_id: load_reference(pipeline, picture)}, records)
    for live, frame in zip(sides, again):
        np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
        np.testing.assert_array_equal(live.motion, frame.motion)
    blind = [replace(record, look=None) for record in records]
    unlooked = list(replay(pipeline, {records[0].reference_id: load_reference(pipeline, picture)}, blind))
    np.testing.assert_array_equal(unlooked[20].motion, plain[20].motion)  # memory never saw where it looked
