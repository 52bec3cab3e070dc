# SPDX-License-Identifier: Apache-2.0
"""Times for the page and for recordings, whatever a simulation does with stamps."""

from __future__ import annotations

import pytest

from flowact_ros.nodes.content_time import ContentTime
from flowact_ros.nodes.stamps import FRAME_NS

START = 50_000_000_000


def test_system_time_is_that_of_the_stamps() -> None:
    times = ContentTime()
    for k in range(10):
        stamp = START + 41_000_000 * k
        assert times.sound(stamp, 960 * k, 24000, simulated=False) == times.picture(stamp) == stamp


@pytest.mark.parametrize("step", [1, FRAME_NS // 2, 2 * FRAME_NS])
def test_samples_are_counted_in_simulated_time(step: int) -> None:
    times = ContentTime()
    for k in range(1000):
        time = times.sound(START + step * k, 960 * (k + 7), 24000, simulated=True)
        assert time == times.picture(START + step * k) == START + FRAME_NS * k
    assert len(times._by_stamp) <= 250


def test_a_stream_that_began_anew_goes_on_after_the_one_before() -> None:
    times = ContentTime()
    for k in range(50):
        last = times.sound(START + k, 960 * k, 24000, simulated=True)
    assert times.sound(START + 60, 0, 24000, simulated=True) == last  # its clock stood still
    later = last + 7_000_000_000
    assert times.sound(later, 0, 24000, simulated=True) >= last


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    times = ContentTime()
    for k in range(20):
        stamp = START + FRAME_NS * (k % 10)
        assert times.sound(stamp, 960 * k, 24000, simulated=True) == START + FRAME_NS * k
        assert times.picture(stamp) == START + FRAME_NS * k
