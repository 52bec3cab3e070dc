# SPDX-License-Identifier: Apache-2.0
"""Stamps of frames beside a fake clock: what a simulation does with the time, and what a machine does with ours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_harness import Watcher, spun_generator
from ros_harness import stamps as stamps_of
from rosgraph_msgs.msg import Clock as ClockMessage

from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import to_time
from flowact_ros.nodes.stamps import FRAME_NS, TOLERANCE_NS, Stamps, followed

START_S = 1000.0  # of the monotonic clock at frame 0
LEAD_S = 0.08  # a frame leaves so long before it is to be seen
Clock = Callable[[float], float]  # [s] since frame 0 -> [s] of the simulated clock


def run(
    clock: Clock,
    frames: int,
    *,
    simulated: bool = True,
    late: Clock = lambda s: 0.0,
    slept: Clock = lambda s: 0.0,
) -> list[tuple[int, int]]:
    """(stamp, simulated clock + lead) [ns] of frames that leave 25 times a second, each `late` [s] after its time.

    slept: by how much the session has moved its t0 by then [s].
    """
    stamps, out = Stamps(), []
    assert stamps[0] == stamps[7] == 0
    for k in range(frames):
        since = k / 25 + slept(k / 25)
        now = since + late(since)
        clock_ns, monotonic_ns = round(clock(now) * 1e9), round((START_S + now) * 1e9)
        pts = START_S + since + LEAD_S
        stamp = stamps.take(k, pts, clock_ns=clock_ns, monotonic_ns=monotonic_ns, simulated=simulated)
        assert stamp == stamps[k] == stamps[k + 3] - 3 * FRAME_NS
        out.append((stamp, round(clock(since) * 1e9 + LEAD_S * 1e9)))
    return out


def steps(out: list[tuple[int, int]]) -> list[int]:
    return [b - a for (a, _), (b, _) in pairwise(out)]


def published(clock: Clock, hz: float) -> Clock:
    """What a node knows of a clock that is published `hz` times a second."""
    return lambda s: clock(int(s * hz + 1e-6) / hz)


CLOCKS: dict[str, tuple[Clock, list[int]]] = {  # and the steps between stamps once it has settled
    "real time": (lambda s: 50 + s, [FRAME_NS]),
    "half as fast": (lambda s: 50 + s / 2, [FRAME_NS // 2]),
    "twice as fast": (lambda s: 50 + 2 * s, [2 * FRAME_NS]),
    "paused": (lambda s: 50.0, [1]),
    "paused after two seconds": (lambda s: 50 + min(s, 2.0), [1]),
    "paused for four seconds": (lambda s: 50 + min(s, 2.0) + max(0.0, s - 6.0), [FRAME_NS]),
    "first /clock after two seconds": (lambda s: 0.0 if s < 2 else 50 + s, [FRAME_NS]),
    "published 10 times a second": (published(lambda s: 50 + s, 10), [FRAME_NS]),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_simulated_time(name: str) -> None:
    clock, settled = CLOCKS[name]
    out = run(clock, 500)
    assert min(steps(out)) >= 1, "stamps strictly increase"
    for stamp, due in out:
        assert abs(stamp - due) <= TOLERANCE_NS + len(out), (
            "near the clock; while it is paused, 1 ns more a frame"
        )
    assert set(steps(out)[-100:]) <= {step + rounding for step in settled for rounding in (-1, 0, 1)}


def test_real_time_is_as_exact_as_system_time() -> None:
    assert set(steps(run(lambda s: 50 + s, 100))) == {FRAME_NS}
    # Threads wake late, /clock comes when it does: stamps do not tremble with them.
    jittered = run(published(lambda s: 50 + s, 40), 200, late=lambda s: 0.03 * ((s * 7919) % 1.0))
    assert set(steps(jittered)) == {FRAME_NS}


def test_the_first_clock_message_is_a_jump() -> None:
    out = run(CLOCKS["first /clock after two seconds"][0], 100)
    assert all(0 <= stamp < 200_000_000 for stamp, _ in out[:50]), "near zero until then"
    assert out[50] == (52_080_000_000, 52_080_000_000), "then exactly where it belongs"


@pytest.mark.parametrize("back", [0.5, 20.0])
def test_a_clock_that_is_set_back_is_followed_once(back: float) -> None:
    out = run(lambda s: 50 + s - (back if s >= 4 else 0.0), 300)
    assert [k for k, step in enumerate(steps(out), 1) if step <= 0] == [100]
    assert out[100][0] == out[100][1]
    assert set(steps(out)[100:]) == {FRAME_NS}


def test_a_bag_that_is_played_again() -> None:
    out = run(lambda s: 7 + s % 3.0, 400)
    assert len([step for step in steps(out) if step <= 0]) == 5
    assert all(abs(stamp - due) <= TOLERANCE_NS for stamp, due in out)


def test_stamps_are_never_before_the_epoch() -> None:
    out = run(lambda s: 5.0 if s < 1 else 0.0, 60, late=lambda s: 0.5 if s > 0.9 else 0.0)
    assert min(stamp for stamp, _ in out) >= 0


def test_a_clock_that_is_set_ahead_is_followed() -> None:
    out = run(lambda s: 50 + s + (20.0 if s >= 4 else 0.0), 200)
    assert out[100][0] == out[100][1] and set(steps(out)[100:]) == {FRAME_NS}


def test_simulated_time_may_be_switched_on_and_off() -> None:
    stamps, out = Stamps(), []
    for k, (simulated, clock_s) in enumerate([(False, 1e6), (True, 5.0), (True, 5.04), (False, 1e6 + 0.12)]):
        ns, monotonic = round(clock_s * 1e9), round((START_S + k / 25) * 1e9)
        pts = START_S + k / 25 + LEAD_S
        out.append(stamps.take(k, pts, clock_ns=ns, monotonic_ns=monotonic, simulated=simulated))
    assert out == [1_000_000_080_000_000, 5_080_000_000, 5_120_000_000, 1_000_000_200_000_000]


def test_system_time_is_steady() -> None:
    """A clock that NTP corrects by little does not move stamps; a machine that slept does, never back."""
    drifting = run(lambda s: 1e9 + s - (0.05 if s > 2 else 0.0), 200, simulated=False)
    assert drifting[0][0] == 1_000_000_000_080_000_000 and set(steps(drifting)) == {FRAME_NS}
    asleep = steps(run(lambda s: 1e9 + s, 100, simulated=False, slept=lambda s: 3.0 if s >= 2 else 0.0))
    assert [(k, step) for k, step in enumerate(asleep, 1) if step != FRAME_NS] == [
        (50, 3_000_000_000 + FRAME_NS)
    ]
    early = run(lambda s: 1e9 + s, 100, simulated=False, slept=lambda s: -3.0 if s >= 2 else 0.0)
    assert set(steps(early)) == {FRAME_NS}


@pytest.mark.parametrize(
    ("predicted", "expected", "last", "stamp"),
    [
        (140, 100, 100, 140),
        (140, 170, 100, 140),
        (TOLERANCE_NS + 40, 0, 30, TOLERANCE_NS),
        (40, TOLERANCE_NS + 90, 0, 90),
        (TOLERANCE_NS + 40, 0, TOLERANCE_NS, TOLERANCE_NS + 1),
        (40, 5_000_000_000, 0, 5_000_000_000),
        (5_000_000_000, 40, 4_960_000_000, 4_960_000_001),
    ],
)
def test_followed(predicted: int, expected: int, last: int, stamp: int) -> None:
    assert followed(predicted, expected, last) == stamp


@pytest.mark.ros
def test_a_generator_beside_a_paused_simulation(reference: Path, domain: None) -> None:
    """Frames that leave before the first /clock are stamped near zero, those after it near its time."""
    with spun_generator(reference, "simulated") as node:
        node.set_parameters([Parameter("use_sim_time", value=True)])
        watcher = Watcher("/simulated", (topics.AUDIO, topics.IMAGE))
        try:
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            audio, images = watcher.seen[topics.AUDIO], watcher.seen[topics.IMAGE]
            watcher.until(lambda: len(audio) > 5, "sound before the first /clock")
            assert stamps_of(audio)[-1] < 1e9
            clock = watcher.node.create_publisher(ClockMessage, "/clock", 1)
            watcher.until(clock.get_subscription_count, "a listener on /clock")
            paused = ClockMessage(clock=to_time(1_000_000_000_000))
            # Nodes hear it with best effort, and lose what comes before they have found it: simulations repeat it.
            watcher.until(lambda: clock.publish(paused) or stamps_of(audio)[-1] > 1e12, "sound with its time")
            count = len(audio)
            watcher.until(
                lambda: len(audio) > count + 25 and len(images) > 10, "a second more, of a paused clock"
            )
            assert all(b > a for a, b in pairwise(stamps_of(audio)))
            assert 0 < stamps_of(audio)[-1] - 1e12 < 0.2e9
            assert set(stamps_of(images)) & set(stamps_of(audio))
        finally:
            watcher.close()


@pytest.mark.parametrize("by", [3600.0, 0.4, -3600.0])
def test_stamps_follow_a_system_clock_that_is_set(by: float) -> None:
    """As a time server does to a board that started without one."""
    out = run(lambda s: 1e9 + s + (by if s >= 2.0 else 0.0), 200, simulated=False)
    moved = [step for step in steps(out) if step != FRAME_NS]
    assert moved == [pytest.approx(FRAME_NS + by * 1e9, abs=1000)]  # a float's nanoseconds
    assert all(abs(stamp - wanted) < 1000 for stamp, wanted in out[100:])  # in step with the clock 2 s later


def test_a_reading_that_was_interrupted_sets_nothing() -> None:
    out = run(lambda s: 1e9 + s + (0.3 if 2.0 <= s < 2.5 else 0.0), 200, simulated=False)
    assert set(steps(out)) == {FRAME_NS}


@pytest.mark.ros
def test_a_generator_whose_machines_clock_is_set(
    reference: Path, domain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spun_generator(reference, "set") as node:
        watcher = Watcher("/set", (topics.AUDIO,))
        try:
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            audio, real = watcher.seen[topics.AUDIO], node.now_ns
            watcher.until(lambda: len(audio) > 5, "sound")
            monkeypatch.setattr(node, "now_ns", lambda: real() + 3600 * 10**9)
            watcher.until(lambda: stamps_of(audio)[-1] > stamps_of(audio)[0] + 3590 * 10**9, "sound an hour later")
            came = stamps_of(audio)
            assert sum(b - a > 10**12 for a, b in pairwise(came)) == 1  # at once, not bit by bit
        finally:
            watcher.close()
            node.trigger_deactivate()
