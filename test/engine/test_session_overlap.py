# SPDX-License-Identifier: Apache-2.0
"""Two threads of a live session: the denoiser works while the decoder does, and neither dies unheard."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from fakes import FakePipeline, face
from simulation import COSTS, Simulation, end_all, ramp
from test_session_replay import check_replay

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import SessionConfig


def test_a_step_is_denoised_while_the_one_before_is_decoded():
    met, denoising, decoding = threading.Event(), threading.Event(), threading.Event()

    def hook(stage: str, count: int) -> None:
        mine, other = {"denoise": (denoising, decoding), "decode": (decoding, denoising)}.get(stage, (None, None))
        if mine is None or other is None or met.is_set():
            return
        mine.set()
        if other.wait(0.2):  # both are at work at the same time
            met.set()
        mine.clear()

    with Session(FakePipeline(hook=hook), face()) as session:
        session.start()
        assert met.wait(30)


def test_a_thread_with_nothing_to_denoise_paints_for_the_other():
    def mean_delay(lend: bool) -> float:
        sim = Simulation(costs={"denoise": (0.02, 0.02), "decode": (0.0, 0.06), "advance": (0.01, 0.0)}, lanes=True)
        if not lend:
            sim.stream.unpainted = lambda: None
        sim.at(2, lambda: sim.session.push_audio(ramp(8.0), 24000, utterance_id="a", last=True))
        sim.run(12)
        end_all()
        sim.check()
        assert (sim.painted > 10) == lend and not any(f.repeated for f in sim.frames)
        check_replay(sim)
        return sim.session.metrics().real_time_factor_median

    assert mean_delay(lend=True) < 0.9 * mean_delay(lend=False)


def test_one_after_the_other_when_told_so():
    inside, most = [], []
    lock = threading.Lock()

    def hook(stage: str, count: int) -> None:
        with lock:
            inside.append(stage)
            most.append(len(inside))
        threading.Event().wait(0.002)
        with lock:
            inside.remove(stage)

    with Session(FakePipeline(hook=hook), face(), config=SessionConfig(overlap=False)) as session:
        frames = session.frames()
        for _ in range(30):
            next(frames)
    assert max(most) == 1


@pytest.mark.parametrize("stage", ["denoise", "decode", "advance"])
def test_an_error_in_either_thread_reaches_the_reader(stage):
    calls = []

    def hook(name: str, count: int) -> None:
        calls.append(name)
        if name == stage and calls.count(name) > 3:
            raise MemoryError(f"{stage} has no memory")

    with (
        Session(FakePipeline(hook=hook), face()) as session,
        pytest.raises(EngineError, match=f"MemoryError: {stage} has no memory"),
    ):
        for _ in session.frames():
            pass


def test_live_speech_arrives_whole_beside_interruptions_of_others():
    """Real threads, real clock: what must hold is the content."""
    speech = ramp(1.2)
    with Session(FakePipeline(hook=lambda stage, count: threading.Event().wait(0.003)), face()) as session:
        frames = session.frames()
        seen = [next(frames) for _ in range(10)]
        session.push_audio(np.full(24000, 0.5, np.float32), 24000, utterance_id="cut", last=True)
        seen += [next(frames) for _ in range(15)]
        assert session.interrupt("cut")
        session.push_audio(speech, 24000, utterance_id="whole", last=True)
        seen += [next(frames) for _ in range(90)]
    assert [f.index for f in seen] == list(range(len(seen)))
    said = np.concatenate([f.audio for f in seen if f.utterance_id == "whole"])
    np.testing.assert_array_equal(said[said != 0][-len(speech) :], speech)


def test_one_slow_step_is_not_held_against_all_that_follow():
    sim = Simulation(lanes=True)
    sim.at(0.925, lambda: setattr(sim, "costs", {**COSTS, "denoise": (1.0, 0.0)}))
    sim.at(1.325, lambda: setattr(sim, "costs", COSTS))
    sim.run(10)
    end_all()
    sim.check()
    assert not any(f.repeated for f in sim.frames[-100:])


def test_a_step_that_becomes_useless_is_not_denoised_to_its_end():
    sim, evaluated = Simulation(costs={"denoise": (0.0, 0.09), "decode": (0.0, 0.03)}, lanes=True), []
    spend = sim.pipeline.hook
    sim.pipeline.hook = lambda stage, count: (evaluated.append(stage), spend(stage, count))
    for k in range(12):
        sim.at(3 + 1.07 * k, lambda k=k: sim.session.push_audio(ramp(4.0), 24000, utterance_id=f"{k}", last=True))
        sim.at(3.6 + 1.07 * k, lambda: sim.session.interrupt())
    sim.run(18)
    end_all()
    sim.check()
    assert 0.8 * 3 * len(sim.records) < evaluated.count("denoise") < 3 * len(sim.records)
    check_replay(sim)


def test_what_comes_too_late_to_be_seen_is_not_drawn():
    """The decoder stops for two seconds: what waits for it is given up, and pictures are in time again soon after."""
    sim = Simulation(lanes=True)
    sim.at(3, lambda: sim.session.push_audio(ramp(6.0), 24000, utterance_id="a", last=True))
    sim.run(5)
    sim.costs = {**COSTS, "decode": (2.0, 0.0)}
    sim.run(0.6)
    sim.costs = {"denoise": (0.02, 0.06), "decode": (0.0, 0.13), "advance": (0.01, 0.0)}  # catching up would take long
    sim.run(8)
    end_all()
    sim.check()
    np.testing.assert_array_equal(sim.said(), ramp(6.0)[: len(sim.said())])
    m = sim.session.metrics()
    assert m.skipped > 0 and m.dropped <= 12
    assert not any(f.repeated for f in sim.frames[-40:])
    check_replay(sim)
