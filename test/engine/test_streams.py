# SPDX-License-Identifier: Apache-2.0
"""Several streams on one device, on a simulated clock: each is what it would be alone, as long as they fit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from crowd import Crowd
from fakes import FakePipeline, face
from simulation import ramp
from test_session_replay import check_replay

from flowact_ros.engine.interfaces import EngineError, Reference, ReferenceError_
from flowact_ros.engine.runtime.lost import lost_gpu
from flowact_ros.engine.streams.budget import Budget
from flowact_ros.engine.streams.host import Streams, TooManyStreams

STEP = {"denoise": (0.06, 0.0), "render": (0.0, 0.01), "advance": (0.01, 0.0)}  # 0.1 s a full step
IN_BATCHES = {"denoise": (0.12, 0.0), "render": (0.0, 0.01), "advance": (0.01, 0.0)}  # 0.16 s: four only in batches


def speak_and_interrupt(crowd: Crowd) -> None:
    """Each says something else at another time; one is interrupted, one gets an urgent order."""
    for number, viewer in enumerate(crowd.viewers):
        pcm = ramp(1.5, 1 + 40_000 * number)
        push = lambda s=viewer.session, p=pcm: s.push_audio(p, 24000, utterance_id="u", last=True)  # noqa: E731
        crowd.at(1.0 + 0.17 * number, push)
    crowd.at(1.9, crowd.viewers[0].session.interrupt)
    crowd.at(2.1, lambda: crowd.viewers[1].session.set_instruction("laughs", priority=200))


@pytest.mark.parametrize(("batch", "costs"), [(1, STEP), (4, IN_BATCHES)])
def test_streams_that_fit_are_what_each_is_alone(batch: int, costs: dict) -> None:
    crowd = Crowd(4, batch=batch, costs=costs)
    speak_and_interrupt(crowd)
    crowd.run(6.0)
    for number, viewer in enumerate(crowd.viewers):
        viewer.check()
        assert not any(frame.repeated for frame in viewer.frames)
        viewer.check_history()
        check_replay(viewer)
        heard, pcm = viewer.said(), ramp(1.5, 1 + 40_000 * number)
        if number:
            np.testing.assert_array_equal(heard, pcm)
        else:
            assert 0.2 * len(pcm) < len(heard) < len(pcm)  # it was interrupted
        assert viewer.session.metrics().load_median < 1
    assert max(crowd.computed) == batch


@pytest.mark.parametrize(("count", "least"), [(5, 0.8), (8, 0.45)])
def test_overload_is_shared_alike(count: int, least: float) -> None:
    """Streams of 0.1 s a step, where four fit: all lose alike, a little or much, none for long; sound is whole."""
    crowd = Crowd(count, costs=STEP)
    for number, viewer in enumerate(crowd.viewers):
        pcm = ramp(3.0)
        push = lambda s=viewer.session, p=pcm: s.push_audio(p, 24000, utterance_id="u", last=True)  # noqa: E731
        crowd.at(2.0 + 0.3 * (number % 2), push)
    crowd.run(14.0)
    shares = []
    for viewer in crowd.viewers:
        viewer.check()
        np.testing.assert_array_equal(viewer.said(), ramp(3.0))
        settled = [index for index in viewer.fresh if index >= 100]
        shares.append(len(settled) / (len(viewer.frames) - 100))
        assert max(b - a for a, b in pairwise(settled)) <= 40  # frames
        figures = viewer.session.metrics()
        assert figures.skipped > 0 and figures.repeated > 0 and figures.step_ms["wait"] > 150
        assert figures.load_median > 1 or count < 8
        check_replay(viewer)
    assert least < min(shares) and max(shares) < min(0.99, 1.25 * min(shares)), shares


def test_one_too_many_is_refused_in_one_line() -> None:
    crowd = Crowd(0, costs=STEP, limit=0, name="cpu")
    reference = crowd.pipeline.load_reference(face())
    crowd.streams.measure(reference)
    assert crowd.streams.figures().fits == 4  # 0.9 of 0.48 s, 0.1 s each
    for number in range(4):
        crowd.join(number)
    line = r"4 streams fit on cpu: a step of 0.48 s takes 0.10 s, and 90% of the time may be used; end one, or set"
    with pytest.raises(TooManyStreams, match=line):
        crowd.join(4)
    crowd.run(2.0)
    crowd.viewers.pop().session.close()
    crowd.join(4)
    crowd.run(2.0)
    for viewer in crowd.viewers:
        viewer.check()
        assert not any(frame.repeated for frame in viewer.frames)
    assert crowd.streams.figures().load == pytest.approx(4 * 0.1 / 0.48, rel=0.01)
    with pytest.raises(TooManyStreams, match="2 streams fit on this device, by its limit: end one, or raise the limit"):
        Crowd(2, limit=2).join(2)


def test_a_device_that_became_slower_lets_fewer_in() -> None:
    budget = Budget(workers=2, batch=1)
    assert not budget.known
    budget.told(0.2, 0.2)
    assert budget.fits == 4 and budget.load(4) == pytest.approx(0.8 / 0.96)
    for _ in range(20):
        budget.took(1, 0.4)
    assert budget.fits == 2 and budget.load(4) == pytest.approx(1.6 / 0.96)
    for _ in range(40):
        budget.took(1, 0.1)
    assert budget.fits == 4  # two workers, of which few had work: no more than at first
    alone = Budget(workers=1, batch=1)
    alone.told(0.4, 0.4)  # while everything else started, too
    assert alone.fits == 1
    for _ in range(20):
        alone.took(1, 0.1)
    assert alone.fits == 4
    batches = Budget(workers=1, batch=8)
    batches.told(0.1, 0.2)
    assert batches.fits == 2 * 8  # two rounds of 0.2 s
    assert batches.load(9) == pytest.approx(0.3 / 0.48)
    assert Budget(1, 1).fits > 0 and not Budget(1, 1).load(5)  # nothing was measured
    slow = Budget(1, 1)
    slow.told(0.6, 0.6)
    assert slow.fits == 0


def test_faults_of_one_stream_are_its_own() -> None:
    crowd = Crowd(3, costs=STEP, limit=4)
    victim = crowd.viewers[1]

    def broken(*args: object) -> None:
        raise ValueError("a kernel failed")

    crowd.at(1.0, lambda: setattr(victim.stream, "pipeline", FakePipeline(hook=broken)))
    crowd.run(3.0)
    assert "the engine failed: ValueError: a kernel failed" in str(victim.error)
    for viewer in (crowd.viewers[0], crowd.viewers[2]):
        viewer.check()
        assert len(viewer.frames) > 60 and not any(frame.repeated for frame in viewer.frames)
    with pytest.raises(ReferenceError_, match="black"):
        crowd.streams.open(face(0))
    victim.session.close()
    assert crowd.streams.figures().streams == 2


class TroubledCrowd(Crowd):
    """One call of the device fails as it is told to."""

    trouble: Exception | None = None

    def compute(self, calls: Sequence[tuple]) -> list[bool]:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble
        return super().compute(calls)


def test_a_lost_gpu_ends_all_streams_at_once_in_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """Only one call fails: the others are told, and do not find out by steps of their own."""
    crowd = TroubledCrowd(3, costs=STEP, limit=4, name="cuda:0")
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nFor debugging consider …")
    crowd.at(1.0, lambda: setattr(crowd, "trouble", error))
    crowd.run(1.5)
    for viewer in crowd.viewers:
        assert str(viewer.error).startswith("the engine failed: RuntimeError: CUDA error: an illegal memory access")
        assert lost_gpu(viewer.error) == "CUDA error: an illegal memory access was encountered"
    told = [record.getMessage() for record in caplog.records if "streams end" in record.getMessage()]
    assert told == ["cuda:0 was lost (CUDA error: an illegal memory access was encountered): its 3 streams end"]
    assert len([record for record in caplog.records if record.exc_info]) == 1
    with pytest.raises(EngineError, match=r"cuda:0 was lost \(CUDA error: an illegal .*\): no stream begins on it"):
        crowd.join(3)


def test_a_step_without_memory_ends_its_own_stream() -> None:
    crowd = TroubledCrowd(3, costs=STEP, limit=4)
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    crowd.at(1.0, lambda: setattr(crowd, "trouble", error))
    crowd.run(3.0)
    ended = [viewer for viewer in crowd.viewers if viewer.error is not None]
    assert [str(viewer.error) for viewer in ended] == [f"the engine failed: RuntimeError: {error}"]
    for viewer in crowd.viewers:
        assert viewer in ended or len(viewer.frames) > 60
    ended[0].session.close()
    crowd.join(4)  # begins again, as the node does
    crowd.run(2.0)
    assert crowd.viewers[-1].error is None and len(crowd.viewers[-1].frames) > 20


def test_real_threads_give_frames_and_end() -> None:
    pipeline = FakePipeline()
    streams = Streams(pipeline, batch=2, workers=2)
    streams.measure(Reference(face(), "first", pipeline.load_reference(face()).appearance))
    sessions = [streams.open(face(), seed=number, reference_id="first") for number in range(4)]
    seen: dict[int, list[int]] = {number: [] for number in range(4)}

    def watch(number: int) -> None:
        for frame in sessions[number].frames():
            seen[number].append(frame.index)
            if len(seen[number]) == 20:
                return

    watchers = [threading.Thread(target=watch, args=(number,)) for number in range(4)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60.0)
    assert all(indices == list(range(20)) for indices in seen.values())
    assert sessions[0].set_reference(face(7), "other") == "other"
    for session in sessions:
        session.close()
    assert streams.figures().streams == 0
    streams.close()
    with pytest.raises(EngineError, match="were closed"):
        streams.open(face())
    with pytest.raises(ValueError, match="at least 1"):
        Streams(pipeline, batch=0)
