# SPDX-License-Identifier: Apache-2.0
"""A device that draws by itself: the next step is denoised while frames come, and no frame is another one for it."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from fakes import EVALUATIONS, FakePipeline, face
from simulation import BesideSimulation, Simulation, ramp
from test_session_replay import check_replay

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.metrics import StepCost
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import SessionConfig

NO_GAZE = ("frame", "loudest")


class Device:
    """What a pipeline was asked for, in order; frames come when `there` is set."""

    def __init__(self, beside: bool) -> None:
        self.log: list[tuple[str, str]] = []  # the stage, and the thread that it ran in
        self.there, self.denoised_twice = threading.Event(), threading.Event()
        self.pipeline = FakePipeline(hook=self._hook)
        self.pipeline.draws_beside, self.pipeline.control_names = beside, NO_GAZE

    def _hook(self, stage: str, count: int) -> None:
        if stage == "render":
            assert self.there.wait(60)
        self.log.append((stage, threading.current_thread().name.rstrip("_0123456789")))
        if [name for name, _ in self.log].count("denoise") > EVALUATIONS:
            self.denoised_twice.set()


def test_the_next_step_is_denoised_before_frames_of_the_last_one_are_there() -> None:
    device, others = Device(beside=True), set(threading.enumerate())
    with Session(device.pipeline, face()) as session:
        session.start()
        assert device.denoised_twice.wait(60)
        assert not any(stage == "render" for stage, _ in device.log)
        device.there.set()
        frames = [frame for frame, _ in zip(session.frames(), range(30))]
    assert [frame.index for frame in frames] == list(range(30))
    threads = {stage: {name for s, name in device.log if s == stage} for stage, _ in device.log}
    assert threads["render"] == {"flowact-frames"} and threads["denoise"] == {"flowact-engine"}
    assert not {thread for thread in threading.enumerate() if thread.name.startswith("flowact")} - others


def test_a_processor_does_one_thing_after_the_other() -> None:
    device = Device(beside=False)
    device.there.set()
    with Session(device.pipeline, face()) as session:
        for _ in zip(session.frames(), range(30)):
            pass
    assert {name for _, name in device.log} == {"flowact-engine", "MainThread"}  # the reference is made in the latter
    stages = [stage for stage, _ in device.log if stage in ("render", "advance")]
    assert all("render" in pair for pair in pairwise(stages))  # memory is written when all of a step was drawn


def test_frames_are_those_of_one_thing_after_the_other() -> None:
    """Speech that is interrupted: what was begun meanwhile is taken back, and records give the same frames."""
    sims = [Simulation(), BesideSimulation()]
    for sim in sims:
        sim.at(1.0, lambda s=sim: s.session.push_audio(ramp(3.0), 24000, utterance_id="a", last=True))
        sim.at(2.35, sim.session.interrupt)
        sim.at(2.6, lambda s=sim: s.session.set_reference(face(3), "3"))
        sim.at(4.0, lambda s=sim: s.session.push_audio(ramp(2.0, 90_000), 24000, utterance_id="b", last=True))
        sim.run(8.0)
        sim.check()
        sim.check_history()
        check_replay(sim)
        assert [record.step for record in sim.records] == list(range(len(sim.records)))
        assert not any(frame.repeated for frame in sim.frames) and sim.session.metrics().rewinds > 1
    assert sims[1].most > 1


@pytest.mark.parametrize("seed", range(6))
def test_frames_that_nobody_waits_for_are_not_drawn(seed: int) -> None:
    """Urgent instructions while one step is drawn and another one denoised: both give up, and are made anew."""
    costs = {"denoise": (0.06, 0.0), "render": (0.0, 0.05)}
    sim = BesideSimulation(SessionConfig(lead_s=0.0, ring_frames=48, idle_frames=48), costs=costs, seed=seed)
    for i, seconds in enumerate(np.random.default_rng(seed).uniform(1.0, 9.0, 60)):
        sim.at(seconds, lambda i=i: sim.session.set_instruction(str(i), priority=200))
    sim.run(10.0)
    sim.check()
    if not sim.session.metrics().dropped + sim.session.metrics().skipped:
        sim.check_history()
    check_replay(sim)
    given_up = [record for record in sim.records if len(record.drawn) < record.latents]
    assert given_up and any(not record.drawn for record in given_up)


def test_a_step_that_failed_to_draw_ends_the_session_and_a_hanging_one_does_not_keep_it_open() -> None:
    device = Device(beside=True)

    def broken(*given: object) -> np.ndarray:
        raise RuntimeError("CUDA error: the card is gone")

    device.pipeline.render = broken
    with Session(device.pipeline, face()) as session, pytest.raises(EngineError, match="CUDA error: the card is gone"):
        next(session.frames())
    device = Device(beside=True)
    session = Session(device.pipeline, face(), config=SessionConfig(close_timeout_s=0.1)).start()
    assert device.denoised_twice.wait(60)
    session.close()  # a frame hangs: its thread is left behind
    device.there.set()


def test_a_step_begins_when_the_slower_one_of_denoising_and_drawing_is_done() -> None:
    one, beside = StepCost(0.1), StepCost(0.1)
    for _ in range(3):
        one.add(3, 0.2, 0.05)
        beside.add(3, 0.2, 0.05, beside=True)
    assert one(3) == pytest.approx(0.35) and beside(3) == pytest.approx(0.2)
    assert one.first(3) == beside.first(3) == pytest.approx(0.25)
    for _ in range(9):
        beside.add(3, 0.2, 0.15, beside=True)
    assert beside(3) == pytest.approx(0.45)
