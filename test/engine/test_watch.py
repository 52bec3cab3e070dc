# SPDX-License-Identifier: Apache-2.0
"""The live watch: what it knows, when it does not, and what it asks for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from lively import live, training

from flowact_ros.engine import watch
from flowact_ros.engine.watch import Watch
from flowact_ros.models.codec.motion import control_index
from flowact_ros.models.codec.motion_statistics import MetricError, MotionStatistics, measure

TRAINING = training()


def seen(motion: np.ndarray, power: np.ndarray, **options: bool) -> Watch:
    """A watch that was shown all of it."""
    looking = Watch(TRAINING, **options)
    for row, loud in zip(motion, power, strict=True):
        looking.frame(row, float(loud))
    return looking


def test_a_living_face_raises_nothing_and_asks_for_nothing() -> None:
    looking = seen(*live(60))
    figures = looking.figures
    assert figures.alarms == {} and looking.raised == 0
    assert not looking.take_refine() and not looking.take_reset()
    assert figures.drift < 1 and 0.5 < figures.jitter < 2 and figures.without_blink_s < 3
    assert figures.lip_movement > 0.5 and figures.lip_sound > 0.8


def test_what_is_not_known_yet_is_not_a_number() -> None:
    figures = seen(*live(4)).figures
    assert math.isnan(figures.drift) and math.isnan(figures.jitter) and math.isnan(figures.lip_sound)
    motion, _ = live(30)
    figures = seen(motion, np.zeros(len(motion))).figures  # nothing is said: lips may rest
    assert math.isnan(figures.lip_movement) and math.isnan(figures.lip_sound) and figures.drift < 1


def test_frames_that_were_not_made_do_not_count() -> None:
    motion, power = live(40)
    looking = Watch(TRAINING)
    for k, (row, loud) in enumerate(zip(motion, power, strict=True)):
        looking.frame(None if k % 25 == 0 else row, float(loud))
    assert looking.figures.alarms == {} and looking.figures.jitter < 2
    for loud in power[:250]:  # the engine is late for ten seconds
        looking.frame(None, float(loud))
    assert looking.figures.alarms == {} and math.isnan(looking.figures.drift)


def test_drift_asks_for_refinement_every_few_seconds_until_it_is_over() -> None:
    motion, power = live(90)
    motion[500:1250, control_index("head_roll")] += 0.3
    motion[500:1250, control_index("smile")] -= 1.5
    looking, asked = Watch(TRAINING), []
    for k, (row, loud) in enumerate(zip(motion, power, strict=True)):
        looking.frame(row, float(loud))
        if looking.take_refine():
            asked.append(k)
    assert 500 < asked[0] < 500 + 375 and asked[-1] < 1250 + 250
    assert set(np.diff(asked)) == {round(25 * watch.REFINE_S)}
    assert looking.raised == 1 and looking.figures.alarms == {}


def test_a_frozen_face_asks_for_a_new_start_once_a_while() -> None:
    motion, power = live(100)
    motion[500:] = motion[500]
    looking = Watch(TRAINING)
    asked = []
    for k, (row, loud) in enumerate(zip(motion, power, strict=True)):
        looking.frame(row, float(loud))
        if looking.take_reset():
            asked.append(k)
    assert len(asked) == 2 and 500 < asked[0] < 875 and asked[1] - asked[0] == round(25 * watch.RESET_S)
    assert {watch.NO_BLINK, watch.STILL_LIPS} <= set(looking.figures.alarms)


def test_nothing_is_asked_for_where_it_is_not_wanted() -> None:
    motion, power = live(70)
    motion[250:] = motion[250] + 1.0
    looking = seen(motion, power, recover=False)
    assert looking.figures.alarms and not looking.take_refine() and not looking.take_reset()


def test_a_cut_begins_anew() -> None:
    motion, power = live(60)
    motion[250:] = motion[250]
    looking = seen(motion, power)
    assert looking.figures.alarms
    looking.cut()
    for row, loud in zip(*live(3), strict=True):
        looking.frame(row, float(loud))
    assert looking.figures.alarms == {} and looking.figures.without_blink_s <= 3


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "training_motion.json"
    TRAINING.save(path)
    again = MotionStatistics.load(path)
    np.testing.assert_allclose(again.covariance, TRAINING.covariance, atol=1e-5)
    np.testing.assert_allclose(again.mean, TRAINING.mean, atol=1e-5)
    path.write_text(path.read_text().replace("head_yaw", "neck"))
    with pytest.raises(MetricError, match="training_motion.json: its controls are not those of this rig"):
        MotionStatistics.load(path)
    path.write_text("{")
    with pytest.raises(MetricError, match="training_motion.json: .*measure it anew"):
        MotionStatistics.load(path)
    with pytest.raises(MetricError, match="250 frames or more"):
        measure(np.zeros((1, 100, 40)))
