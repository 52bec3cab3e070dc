# SPDX-License-Identifier: Apache-2.0
"""The look turned towards a target: eyes first, head after, within limits, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.engine.gaze import EYE_MOST, EYE_TURN, HEAD_MOST, REST, Gaze, columns_of, turn
from flowact_ros.models.codec.motion import CONTROL_NAMES, RIG, neutral

COLUMNS = columns_of(CONTROL_NAMES)
GX, GY, YAW, PITCH = COLUMNS


def still(frames: int) -> np.ndarray:
    return neutral(frames).numpy()


def lively(frames: int, seed: int = 0) -> np.ndarray:
    """Motion as the sampler gives it: within the limits."""
    rng = np.random.default_rng(seed)
    scale, low, high = (np.array([getattr(c, name) for c in RIG]) for name in ("scale", "low", "high"))
    drift = np.cumsum(rng.normal(0, 0.3, (frames, len(RIG))), 0) * scale
    return np.clip(still(frames) + drift, low, high).astype(np.float32)


def look(motion: np.ndarray, columns: tuple[int, int]) -> np.ndarray:
    """Direction of the eyes [rad], head and eyes together, along one axis."""
    eye, head = columns
    return motion[:, eye] * EYE_TURN + motion[:, head]


def test_eyes_before_head() -> None:
    out, gaze = turn(still(25), REST, (1.0, 0.0), COLUMNS)
    eyes, head = out[:, GX] * EYE_TURN, out[:, YAW]
    where = look(out, (GX, YAW))
    assert where[1] == pytest.approx(0.5, abs=0.01) and where[0] > 0.2  # there in two frames
    np.testing.assert_allclose(where[2:], 0.5, atol=1e-3)  # and they stay on it while the head moves
    assert head[1] < 0.2 * head[-1] < eyes[1]  # when the eyes are there the head has hardly begun
    final = head[-1]
    assert 0.1 < final <= HEAD_MOST[0] + 1e-6 and (np.diff(head) > -1e-6).all()  # no overshoot
    reached = int(np.argmax(head > 0.9 * final)) / 25
    assert 0.3 <= reached <= 0.6
    assert np.abs(np.diff(head, 2)).max() < 0.015  # smooth
    assert eyes[-1] == pytest.approx(0.5 - final, abs=1e-3)  # turned back by what the head took over
    assert gaze.hold == 1.0
    others = [c for c in range(len(RIG)) if c not in (GX, YAW)]
    np.testing.assert_array_equal(out[:, others], still(25)[:, others])


@pytest.mark.parametrize(
    ("target", "axis", "sign"),
    [((-1, 0), (GX, YAW), -1), ((0, 1), (GY, PITCH), 1), ((0, -1), (GY, PITCH), -1)],
)
def test_directions(target: tuple[float, float], axis: tuple[int, int], sign: int) -> None:
    """x to the right as the viewer sees it, y up: as the rig has it."""
    out, _ = turn(still(25), REST, target, COLUMNS)
    assert sign * out[-1, axis[0]] > 0.2 and sign * out[-1, axis[1]] > 0.04
    assert abs(out[:, [c for c in COLUMNS if c not in axis]]).max() == 0.0


def test_a_small_glance_is_of_the_eyes_alone() -> None:
    out, _ = turn(still(25), REST, (0.1, 0.1), COLUMNS)
    assert not out[:, [YAW, PITCH]].any() and out[0, GX] == out[-1, GX] > 0.0


def test_without_a_target_nothing_is_touched() -> None:
    motion = lively(12)
    out, gaze = turn(motion, REST, None, COLUMNS)
    assert out is motion and gaze is REST


def test_release_is_smooth_and_ends_in_rest() -> None:
    motion = lively(200)
    out, gaze = turn(motion[:25], REST, (-0.8, 0.5), COLUMNS)
    back, rest = turn(motion[25:], gaze, None, COLUMNS)
    assert rest == REST
    np.testing.assert_allclose(back[75:], motion[100:], atol=5e-3)
    offset = (look(back, (GX, YAW)) - look(motion[25:], (GX, YAW)))[:30]
    before = look(out, (GX, YAW))[-1] - look(motion[:25], (GX, YAW))[-1]
    assert np.abs(np.diff([before, *offset])).max() < 0.12  # no jump back
    assert turn(motion, rest, None, COLUMNS)[0] is motion


def test_small_movements_stay() -> None:
    motion = lively(50)
    motion[20:26, [CONTROL_NAMES.index("blink_left"), CONTROL_NAMES.index("blink_right")]] = 1.0
    out, _ = turn(motion, Gaze(hold=1.0), (0.0, 0.0), COLUMNS)
    np.testing.assert_allclose(out[:, YAW], motion[:, YAW], atol=1e-6)  # nods and sways of the head
    others = [c for c in range(len(RIG)) if c not in COLUMNS]
    np.testing.assert_array_equal(out[:, others], motion[:, others])  # blinks
    was, now = look(motion, (GX, YAW)), look(out, (GX, YAW))
    assert 0.2 < np.std(np.diff(now)) / np.std(np.diff(was)) < 0.6  # held back, not frozen


POINTS = st.none() | st.tuples(st.floats(-10, 10), st.floats(-10, 10))


@settings(max_examples=60, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=8), st.integers(0, 50))
def test_limits_hold_and_cuts_do_not_matter(targets: list, seed: int) -> None:
    """Whatever the targets: within the rig, without sudden turns of the head, the same in pieces and as a whole."""
    motion = lively(12 * len(targets), seed)
    gaze, parts = REST, []
    for i, target in enumerate(targets):
        part, gaze = turn(motion[12 * i : 12 * i + 12], gaze, target, COLUMNS)
        parts.append(part)
    out = np.concatenate(parts)
    low, high = (np.array([getattr(c, name) for c in RIG], np.float32) for name in ("low", "high"))
    assert ((out >= low - 1e-6) & (out <= high + 1e-6)).all() and out.dtype == np.float32
    beyond = np.abs(out[:, [GX, GY]]) - np.maximum(np.abs(motion[:, [GX, GY]]), EYE_MOST)
    assert beyond.max() < 1e-6
    beyond = np.abs(out[:, [YAW, PITCH]]) - np.maximum(np.abs(motion[:, [YAW, PITCH]]), HEAD_MOST)
    assert beyond.max() < 1e-6
    assert np.abs(np.diff((out - motion)[:, [YAW, PITCH]], axis=0)).max() < 0.1
    assert np.abs(np.array(gaze.head)).max() <= max(HEAD_MOST) + 1e-9
    halves = []
    gaze = REST
    for i, target in enumerate(targets):
        for at in (12 * i, 12 * i + 4, 12 * i + 8):
            part, gaze = turn(motion[at : at + 4], gaze, target, COLUMNS)
            halves.append(part)
    np.testing.assert_array_equal(np.concatenate(halves), out)


def test_models_without_a_gaze() -> None:
    assert columns_of(("jaw", "gaze_x")) is None and columns_of(()) is None
