# SPDX-License-Identifier: Apache-2.0
"""How much to make next, as a table; and the cost that it relies on."""

from __future__ import annotations

import math

import pytest

from flowact_ros.engine.metrics import StepCost, percentile
from flowact_ros.engine.policy import Situation, choose, overloaded, shortest_lead, sustained
from flowact_ros.engine.session_config import SessionConfig

LATENT, LOOK = 3840, 1920


class Costs:
    """A step of n latents takes `whole[n - 1]` seconds; its first picture must leave `first[n - 1]` after its start."""

    def __init__(self, *whole: float, first: tuple[float, ...] | None = None) -> None:
        self._whole, self._first = whole, first or whole

    def __call__(self, latents: int) -> float:
        return self._whole[latents - 1]

    def first(self, latents: int) -> float:
        return self._first[latents - 1]


cost = Costs(0.1, 0.15, 0.2)


def situation(**changes: object) -> Situation:
    usual: dict = {
        "slack": 0.4, "ahead": 8, "flowing": False, "gathering": False, "supply": 0, "bounded": True, "small": False,
        "lookahead": LOOK,
    }  # fmt: skip
    return Situation(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "latents"),
    [
        ({}, 3),
        ({"ahead": 24}, 0),  # idle: nothing more ahead than useful
        ({"ahead": 20, "flowing": True, "slack": 0.15}, 1),  # speaking: the ring holds more ...
        ({"ahead": 12, "flowing": True}, 3),
        (
            {"ahead": 20, "flowing": True, "slack": 0.8},
            0,
        ),  # ... but it is worth waiting for room for a large step
        ({"ahead": 24, "flowing": True}, 0),
        ({"slack": 0.2, "ahead": 4}, 2),  # only 2 are done in time
        ({"slack": 0.15, "ahead": 2}, 1),
        ({"slack": -1.0, "ahead": 0}, 1),
        ({"small": True}, 3),  # each would be there in time with twice the margin
        ({"small": True, "slack": 0.29}, 2),
        ({"small": True, "slack": 0.24}, 1),
        ({"small": True, "ahead": 20}, 1),  # no room for more
        ({"small": True, "flowing": True, "bounded": False, "supply": 2 * LATENT + LOOK}, 2),
        ({"small": True, "slack": math.inf, "ahead": 0}, 1),
        ({"small": True, "slack": 0.05, "ahead": 2}, 1),  # late anyway, and steps of one keep up
        ({"gathering": True}, 0),  # speech arrives: stay free
        ({"gathering": True, "slack": 0.12, "ahead": 1}, 1),  # until the deadline
        ({"flowing": True, "bounded": False, "supply": 3 * LATENT + LOOK}, 3),
        ({"flowing": True, "bounded": False, "supply": 3 * LATENT + LOOK - 1}, 0),  # calm: wait for the rest
        (
            {"flowing": True, "bounded": False, "supply": 2 * LATENT + LOOK, "slack": 0.3},
            2,
        ),  # not calm: what there is
        ({"flowing": True, "bounded": False, "supply": LATENT + LOOK - 1, "slack": 0.3}, 0),
        ({"flowing": True, "bounded": False, "supply": 10, "slack": 0.12}, 1),  # the deadline: underrun
        ({"flowing": True, "bounded": True, "supply": 10}, 3),  # the end of speech needs no more
        ({"slack": math.inf, "ahead": 0, "gathering": True}, 1),  # the first picture waits for nothing
        ({"slack": math.inf, "ahead": 4, "gathering": True}, 1),  # nor do the others that the clock starts with
        ({"offline": True, "slack": math.inf, "ahead": 100}, 3),
        ({"offline": True, "flowing": True, "bounded": False, "supply": 2 * LATENT + LOOK}, 2),
        ({"offline": True, "flowing": True, "bounded": False, "supply": 5}, 1),
    ],
)
def test_table(changes, latents):
    n, wait = choose(situation(**changes), cost, SessionConfig())
    assert n == latents
    assert (wait > 0) == (n == 0)


def test_only_the_first_picture_of_a_step_is_waited_for():
    config, one_by_one = SessionConfig(), Costs(0.18, 0.27, 0.36, first=(0.18, 0.21, 0.24))
    tight = 0.24 + config.margin_s + 1e-6
    assert choose(situation(slack=tight, ahead=4), one_by_one, config) == (3, 0.0)
    assert choose(situation(slack=tight - 0.01, ahead=4), one_by_one, config) == (2, 0.0)


def test_idle_keeps_less_ahead_where_told_so():
    config = SessionConfig(idle_frames=20)
    assert choose(situation(ahead=20, slack=0.15, flowing=True), cost, config)[0] == 1
    assert choose(situation(ahead=20, slack=0.15), cost, config)[0] == 0


def test_waiting_ends_before_the_deadline():
    s = situation(gathering=True)
    _, wait = choose(s, cost, SessionConfig())
    assert wait == pytest.approx(0.4 - 0.1 - SessionConfig().margin_s)


def test_step_size_is_a_limit():
    assert choose(situation(), cost, SessionConfig(step_latents=2))[0] == 2


def test_cost_does_not_count_the_set_up_and_does_not_panic():
    c = StepCost(0.12)
    assert c(1) == c.first(1) == 0.12 and c(3) == pytest.approx(0.36)
    c.add(1, 4.0, 1.0)  # the first step compiles
    assert c(1) == 0.12
    c.add(1, 0.08, 0.02)
    assert c(1) == pytest.approx(0.1)
    assert c(3) == pytest.approx(0.3)
    for _ in range(10):
        c.add(1, 0.08, 0.02)
    c.add(1, 9.0, 0.5)  # one hiccup
    assert c(1) == pytest.approx(0.1)
    for _ in range(5):
        c.add(1, 0.16, 0.04)  # slower for good
    assert c(1) == pytest.approx(0.2)


def test_cost_of_a_smaller_step_is_a_guess_until_it_is_seen():
    c = StepCost(0.1)
    c.add(3, 9.0, None)
    c.add(3, 0.24, 0.02)
    assert c(3) == pytest.approx(0.3) and 0.1 < c(1) < c(2) < 0.3
    c.add(1, 9.0, None)
    c.add(1, 0.03, None)  # no picture of it was rendered
    assert c(1) == pytest.approx(0.05) and 0.1 - 1e-9 <= c(2) < 0.3


def test_what_a_size_took_on_a_busy_machine_is_not_believed_once_other_sizes_are_quick():
    c = StepCost(0.1)
    for n, seconds in ((1, 0.04), (3, 0.08), (1, 0.5), (3, 1.0)):
        for _ in range(9):
            c.add(n, seconds, 0.0)
    assert c(1) == pytest.approx(0.5) and c(3) == pytest.approx(1.0)  # busy: a newer, slower step says nothing
    for _ in range(9):
        c.add(3, 0.08, 0.0)  # idle; no step of another size is made
    assert c(1) == pytest.approx(0.08)
    for _ in range(9):
        c.add(3, 1.0, 0.0)
    for _ in range(9):
        c.add(2, 0.06, 0.0)
    assert c(3) == pytest.approx(0.09) and c(1) == pytest.approx(0.06)
    c.add(3, 1.0, 0.0)
    assert c(3) == pytest.approx(1.0)  # it was made again, and is still slow


def test_pictures_come_one_by_one():
    c = StepCost(0.1)
    c.add(3, 0.1, 0.05)
    assert c.first(3) == pytest.approx(0.15) and c(3) == pytest.approx(0.25)
    slow = StepCost(0.1)
    slow.add(3, 0.1, 0.2)  # 40 ms longer than it is shown: the first one waits for the others
    assert slow.first(3) == pytest.approx(0.1 + 0.2 + 2 * 0.04)


@pytest.mark.parametrize(
    ("costs", "least"),
    [((0.1, 0.15, 0.2), 1), ((0.15, 0.2, 0.25), 2), ((0.2, 0.3, 0.35), 3), ((0.5, 0.9, 1.4), 3)],
)
def test_a_late_engine_makes_steps_that_keep_up(costs, least):
    of = Costs(*costs)
    assert sustained(of, 3) == least
    assert choose(situation(slack=-0.1, ahead=0), of, SessionConfig()) == (least, 0.0)
    lead = shortest_lead(of, SessionConfig())
    if least < 3:  # one latent first, then such a step: both in time
        assert costs[0] <= lead and costs[0] + costs[least - 1] <= lead + 0.16
    assert 0.08 <= lead <= 0.8
    if least == 2:  # the small step after an onset, where the next one is in time; else one that keeps up by itself
        assert choose(situation(small=True, slack=lead), of, SessionConfig()) == (1, 0.0)
        assert choose(situation(small=True, slack=0.15), of, SessionConfig()) == (2, 0.0)


def test_an_engine_that_cannot_keep_up_makes_large_steps_without_a_pause():
    of = Costs(0.5, 0.7, 0.9)
    assert overloaded(of, 3) and not overloaded(cost, 3)
    for changes in ({"ahead": 12}, {"ahead": 12, "flowing": True}, {"small": True, "ahead": 0}):
        assert choose(situation(slack=0.95, **changes), of, SessionConfig()) == (3, 0.0)
    assert choose(situation(slack=2.0, ahead=24), of, SessionConfig())[0] == 0


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([], 0.5, 0.0),
        ([3.0], 0.95, 3.0),
        ([1, 2, 3, 4], 0.5, 2),
        ([1, 2, 3, 4], 0.75, 3),
        (range(1, 101), 0.95, 95),
    ],
)
def test_percentile(values, q, expected):
    assert percentile(values, q) == expected
