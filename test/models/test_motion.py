# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from flowact_ros.models.codec import motion


def test_neutral_is_zero_for_the_networks_and_lies_inside_its_limits() -> None:
    rest = motion.neutral(2)
    assert rest.shape == (2, motion.CONTROLS) and torch.equal(rest, motion.clamp(rest))
    assert torch.equal(motion.normalise(rest), torch.zeros(2, motion.CONTROLS))


def test_normalising_is_undone() -> None:
    raw = motion.neutral(5) + torch.rand(5, motion.CONTROLS)
    torch.testing.assert_close(motion.denormalise(motion.normalise(raw)), raw)


def test_values_beyond_their_limits_are_brought_inside() -> None:
    raw = motion.neutral(1)
    raw[0, motion.control_index("jaw")] = 3.0
    raw[0, motion.control_index("head_yaw")] = -9.0
    clamped = motion.clamp(raw)[0]
    assert clamped[motion.control_index("jaw")] == 1.0
    assert clamped[motion.control_index("head_yaw")] == -0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    raw = motion.neutral(3)
    raw[1, motion.control_index("gaze_x")] = bad
    with pytest.raises(motion.MotionError, match="NaN or an infinity in gaze_x"):
        motion.clamp(raw)


def test_another_width_is_refused_with_both_numbers() -> None:
    with pytest.raises(motion.MotionError, match=rf"\[3, 34\]; \[..., {motion.CONTROLS}\]"):
        motion.check(torch.zeros(3, 34))
    with pytest.raises(motion.MotionError, match="'tail'; the names are head_yaw"):
        motion.control_index("tail")


def test_left_and_right_have_the_same_limits() -> None:
    by_name = {control.name: control for control in motion.RIG}
    for name, control in by_name.items():
        if "left" in name:
            other = by_name[name.replace("left", "right")]
            assert (control.low, control.high, control.scale) == (other.low, other.high, other.scale)
