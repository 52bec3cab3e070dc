# SPDX-License-Identifier: Apache-2.0
"""The stream's figures as a message: what was not measured is NaN, and every field is what its comment says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from flowact_ros.engine.metrics import StreamMetrics
from flowact_ros.engine.watch import MotionFigures
from flowact_ros.nodes import frame_publisher
from flowact_ros.nodes.engine_messages import metrics_message
from flowact_ros.nodes.frame_publisher import FramePublisher
from flowact_ros.nodes.motion_health import motion_health
from flowact_ros.nodes.pace_health import too_slow


def test_nothing_measured_is_not_a_number() -> None:
    message = metrics_message(StreamMetrics(), 0.0)
    names = ("real_time_factor", "real_time_factor_p95", "load", "ttff", "step_ms", "av_skew", "barge_in_stop")
    assert all(math.isnan(getattr(message, name)) for name in names)
    assert message.frames == 0 and list(message.stage_names) == list(message.wait_names) == []
    names = ("motion_drift", "motion_jitter", "without_blink", "lip_movement", "lip_sound")
    assert all(math.isnan(getattr(message, name)) for name in names) and list(message.motion_alarms) == []


def test_figures_are_carried_over() -> None:
    figures = StreamMetrics(
        frames=50, steps=4, real_time_factor_median=0.5, real_time_factor_p95=0.75, load_median=0.625,
        step_ms={"denoise": 60.0, "render": 120.0, "commit": 20.0},
        waits_ms={"exposed_encode": 4.0, "draw": 100.0, "exposed_draw": 2.5},
        ttff_s=(0.5, 0.25), barge_in_s=(0.5, 0.375),
        ring_fill=20, repeated=1, dropped=2, underruns=3, rewinds=4, av_skew_s=0.04,
    )  # fmt: skip
    message = metrics_message(figures, 25.0)
    assert (message.fps, message.load) == (25.0, 0.625)
    assert (message.real_time_factor, message.real_time_factor_p95) == (0.5, 0.75)
    assert (message.ttff, message.barge_in_stop) == (0.25, 0.375)  # the last ones
    assert message.step_ms == 200.0 and list(message.stage_ms) == [60.0, 120.0, 20.0]
    assert list(message.stage_names) == ["denoise", "render", "commit"]
    assert dict(zip(message.wait_names, message.wait_ms)) == {"exposed_encode": 4.0, "draw": 100.0, "exposed_draw": 2.5}
    assert message.ring_fill == pytest.approx(0.8)  # seconds
    counts = (message.frames, message.repeated_frames, message.dropped_frames, message.underruns, message.rewinds)
    assert counts == (50, 1, 2, 3, 4)


def test_what_became_of_speech_is_carried_over() -> None:
    figures = StreamMetrics(
        received_samples=1000, heard_samples=700, filled_samples=50, dropped_samples={"repeated": 200, "late": 100},
        lost_chunks=1, lost_samples=60, repeats=3, reordered=4, unterminated=5,
    )  # fmt: skip
    message = metrics_message(figures, 25.0)
    assert (message.received_samples, message.heard_samples, message.filled_samples) == (1000, 700, 50)
    assert dict(zip(message.dropped_reasons, message.dropped_samples)) == {"repeated": 200, "late": 100}
    counts = (message.lost_chunks, message.lost_samples, message.repeated_chunks, message.reordered_chunks)
    assert (*counts, message.unended_utterances) == (1, 60, 3, 4, 5)


def test_how_the_motion_looks_is_carried_over() -> None:
    motion = MotionFigures(0.5, 1.25, 31.0, 0.75, 0.625, {"no blink": 1.0})
    figures = StreamMetrics(motion=motion, alarms_raised=2, refinements=3, recoveries=4)
    message = metrics_message(figures, 25.0)
    assert (message.motion_drift, message.motion_jitter, message.without_blink) == (0.5, 1.25, 31.0)
    assert (message.lip_movement, message.lip_sound) == (0.75, 0.625)
    assert list(message.motion_alarms) == ["no blink"] and message.motion_alarms_raised == 2
    assert (message.memory_refinements, message.memory_resets) == (3, 4)


def test_an_alarm_is_a_warning_and_an_error_once_it_lasts() -> None:
    assert motion_health(None) == (0, "", {})
    assert motion_health(StreamMetrics())[:2] == (0, "")
    for seconds, level in ((1.0, 1), (59.0, 1), (60.0, 2)):
        motion = MotionFigures(drift=2.5, alarms={"drift": seconds})
        found = motion_health(StreamMetrics(motion=motion, refinements=3))
        assert found[:2] == (level, f"motion: drift for {seconds:.0f} s")
        assert found[2]["motion_drift"] == 2.5 and found[2]["memory_refinements"] == 3
        assert "lip_sound" not in found[2]


def test_a_processor_that_is_too_slow_is_told_what_to_turn() -> None:
    slow = StreamMetrics(frames=500, fps=9.6)
    told = "10 frames a second in time, the processor is too slow or too busy"
    assert too_slow(slow, 1, True) == f"{told}: draw_every 2 (now 1) halves the work"
    assert too_slow(slow, 2, True) == f"{told}: draw_every 4 (now 2) halves the work"
    assert too_slow(slow, 4, True) == too_slow(slow, 1, False) == told
    assert too_slow(None, 1, True) == too_slow(StreamMetrics(frames=500, fps=24.8), 1, True) == ""
    assert too_slow(StreamMetrics(frames=50, fps=9.6), 1, True) == ""  # it has just been started


def test_frames_a_second_are_those_of_the_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(frame_publisher, "time", SimpleNamespace(monotonic=lambda: now))
    publisher = FramePublisher.__new__(FramePublisher)
    publisher._recent = [now - ago for ago in (9.0, 5.0, 2.5, 1.5, 0.9, 0.5, 0.01)]
    assert publisher.fps == 3.0
