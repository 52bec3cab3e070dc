# SPDX-License-Identifier: Apache-2.0
"""When a frame leaves, as a table."""

from __future__ import annotations

import pytest

from flowact_ros.engine.pacing import Action, decide, stamp

T0 = 5000.0


@pytest.mark.parametrize(
    ("after_due", "ready", "action", "seconds"),
    [
        (-0.5, True, Action.WAIT, 0.5),
        (-0.5, False, Action.WAIT, 0.5),
        (-0.001, True, Action.WAIT, 0.001),
        (0.0, True, Action.SHOW, 0.0),
        (0.0, False, Action.WAIT, 0.02),
        (0.015, True, Action.SHOW, 0.0),
        (0.015, False, Action.WAIT, 0.005),
        (0.02, False, Action.REPEAT, 0.0),
        (0.02, True, Action.SHOW, 0.0),
        (0.9, True, Action.SHOW, 0.0),
        (0.9, False, Action.REPEAT, 0.0),
        (1.5, True, Action.REANCHOR, 1.5),
        (1.5, False, Action.REANCHOR, 1.5),
        (-1.5, True, Action.REANCHOR, -1.5),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 999_999])
def test_table(index, after_due, ready, action, seconds):
    due = T0 + index / 25 - 0.08
    decision = decide(index, due + after_due, T0, ready)
    assert decision.action is action
    assert decision.seconds == pytest.approx(seconds, abs=1e-6)


def test_settings_are_used():
    assert decide(0, T0 - 0.3, T0, True, lead=0.3).action is Action.SHOW
    assert decide(0, T0 - 0.08, T0, False, grace=0.0).action is Action.REPEAT
    assert decide(0, T0 + 5.0, T0, True, reanchor=10.0).action is Action.SHOW


def test_reanchoring_makes_the_frame_due_now():
    now = T0 + 77.0
    decision = decide(10, now, T0, True)
    assert decide(10, now, T0 + decision.seconds, True).action is Action.SHOW
    assert stamp(10, T0 + decision.seconds) == pytest.approx(now + 0.08)


def test_stamps_are_exact_multiples():
    assert stamp(0, T0) == T0 and stamp(25, T0) == T0 + 1.0 and stamp(90_000, 0.0) == 3600.0
