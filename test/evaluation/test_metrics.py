# SPDX-License-Identifier: Apache-2.0
"""Every measure on inputs whose answer is known, and on the controls that must fail."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.evaluation import metrics
from flowact_ros.evaluation.metrics import MetricError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("delay", [-3.0, 0.0, 1.0, 2.5])
def test_best_lag_is_found_to_a_fraction_of_a_frame(delay: float):
    t = np.arange(250) / 25
    true = np.sin(2 * np.pi * 1.3 * t) + 0.5 * np.sin(2 * np.pi * 2.9 * t + 1)
    late = np.sin(2 * np.pi * 1.3 * (t - delay / 25)) + 0.5 * np.sin(2 * np.pi * 2.9 * (t - delay / 25) + 1)
    lag = metrics.best_lag([(late, true)])
    assert lag.seconds == pytest.approx(delay / 25, abs=0.006)
    assert lag.correlation > 0.9


def test_shuffled_curves_do_not_correlate_and_still_ones_give_nothing():
    a = np.convolve(RNG.standard_normal(500), np.ones(5) / 5, "same")
    assert metrics.correlation(a, a) == pytest.approx(1.0)
    assert abs(metrics.correlation(a, np.roll(a, 111))) < 0.25
    assert metrics.correlation(a, np.zeros(500)) == 0.0
    assert np.isnan(metrics.best_lag([(np.zeros(100), a[:100])]).seconds)
    with pytest.raises(MetricError, match=r"\[500\] and \[499\]"):
        metrics.correlation(a, a[1:])


def test_loudness_is_in_step_with_the_frames():
    pcm = np.zeros(50 * 960, np.float32)
    pcm[20 * 960 : 30 * 960] = 0.3 * np.sin(np.arange(10 * 960) / 5)
    loud = metrics.loudness(pcm, 50, 0.04)
    assert (loud[20:30] > 0.3).all() and loud[:19].max() == 0.0 and loud[31:].max() == 0.0


def test_short_pauses_are_no_silence():
    quiet = np.zeros(40, bool)
    quiet[10:15] = True
    assert not metrics.settled(quiet).any()
