# SPDX-License-Identifier: Apache-2.0
"""Measures of long motion: planted faults are found, healthy motion raises nothing, drift is told from none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lively import live, training

from flowact_ros.evaluation import drift, watch
from flowact_ros.evaluation.long_motion import Long
from flowact_ros.evaluation.main import main
from flowact_ros.models.codec.motion import RIG
from flowact_ros.models.codec.motion_statistics import MetricError, MotionStatistics, frechet

SCALE = np.array([c.scale for c in RIG])
TRAINING = training()


def alive(seconds: float, seed: int = 0) -> Long:
    return Long(*live(seconds, seed))


def test_planted_faults_are_found_in_time_and_health_raises_nothing() -> None:
    stream = alive(121.0)
    healthy = watch.false_alarms([stream], TRAINING)
    assert healthy["alarms"] == {} and healthy["minutes"] == 2.0
    found = watch.planted([stream], TRAINING)
    assert set(found) == set(watch.FAULTS)
    for name, row in found.items():
        assert row["planted"] == row["found"] == 1, f"{name}: {row}"
        assert row["longest_s"] <= row["within_s"]


def test_lips_are_not_judged_where_nothing_is_said() -> None:
    stream = alive(121.0)
    silent = Long(stream.motion, np.zeros_like(stream.power))
    assert watch.planted([silent], TRAINING)["still lips"]["planted"] == 0


def test_frechet_distance_is_that_of_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (4000, 3)), rng.normal(0, 1, (4000, 3))
    assert frechet(a, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet(a, b) < 0.02
    assert frechet(a, b + [2, 0, 0]) == pytest.approx(4.0, abs=0.2)
    assert frechet(a, 3 * b) == pytest.approx(3 * 4.0, rel=0.05)  # (1 - 3)² in each of three directions
    with pytest.raises(MetricError, match=r"\[4000, 3\] and \[4000, 2\]"):
        frechet(a, b[:, :2])


def test_drift_shows_beside_the_truth_and_rest_does_not(tmp_path: Path) -> None:
    truth = [alive(240.0, seed) for seed in (1, 2)]
    walked = []
    for seed in (3, 4):
        stream = alive(240.0, seed)
        walk = np.linspace(0, 4, len(stream.motion))[:, None] * SCALE
        walked.append(Long(stream.motion + walk, stream.power))
    distances = drift.truth_distances(truth)
    row = drift.drift_row("walks away", walked)
    assert row.minutes == [2, 3, 4] and row.distance == sorted(row.distance)
    assert row.distance[-1] > 10 * np.percentile(distances, 95)
    assert max(drift.drift_row("stays", truth).distance) < 2 * distances.max()
    assert "walks away, from minute 1 to minute 2" in drift.table([row], distances)
    drift.plot(tmp_path / "drift.png", [row], distances)
    assert (tmp_path / "drift.png").stat().st_size > 1000
    with pytest.raises(MetricError, match="two minutes or more"):
        drift.drift_row("short", [alive(70)])


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["watch", "--streams", "0"], "--streams is 0; it must lie in 1 .. 64"),
        (["drift", "--minutes", "1"], "--minutes is 1; it must lie in 2 .. 240"),
        (["drift", "--interval", "-2"], "--interval is -2; it must be 0 or more"),
    ],
)
def test_bad_options_are_told_in_one_line(
    options: list[str], wrong: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(options) == 2
    assert capsys.readouterr().err == f"flowact eval: {wrong}\n"


def test_statistics_are_written_for_the_watch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    motion = np.stack([alive(12.0, seed).motion for seed in range(4)]).astype(np.float16)
    np.savez(
        tmp_path / "0000000.npz",
        controls=motion,
        sound=np.zeros((*motion.shape[:2], 384), np.float16),
        text=np.zeros(motion.shape[:2], np.int16),
        texts=np.array(["rests"]),
        vectors=np.zeros((1, 384), np.float16),
    )
    out = tmp_path / "training_motion.json"
    assert main(["statistics", str(tmp_path), "--out", str(out)]) == 0
    assert "4 performances of 300 frames" in capsys.readouterr().err
    assert MotionStatistics.load(out).opening == pytest.approx(0.25, abs=0.1)
    assert main(["statistics", str(tmp_path / "none"), "--out", str(out)]) == 1
    assert "no performances" in capsys.readouterr().err
