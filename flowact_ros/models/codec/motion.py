# SPDX-License-Identifier: Apache-2.0
"""The rig: named controls of one frame, which are the latents of the embedded codec.

A latent is the motion of four frames, `[4, K]`. Outside the networks motion is in the units of `RIG` ("raw"); inside
it is normalised: (raw - neutral) / scale, so that every control has a deviation of about one over the training corpus.
The names are public: they are those of the `motion` topic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class MotionError(ValueError):
    """Motion that cannot be used: wrong shape, or a value that is not finite. The message names the control."""


@dataclass(frozen=True)
class Control:
    """One control: its limits and neutral value (radians, fractions of the canvas, or plain amounts), and `scale`, its
    typical distance from neutral in the training corpus.
    """

    name: str
    low: float
    high: float
    scale: float
    neutral: float = 0.0


#: Left and right are those of the picture.
RIG: tuple[Control, ...] = (
    # head: turned to the picture's right, up, towards its right shoulder [rad]; moved right, down, closer
    Control("head_yaw", -0.5, 0.5, 0.08),
    Control("head_pitch", -0.35, 0.35, 0.055),
    Control("head_roll", -0.3, 0.3, 0.045),
    Control("head_x", -0.06, 0.06, 0.007),
    Control("head_y", -0.06, 0.06, 0.006),
    Control("head_z", -1.0, 1.0, 0.25),  # -1: 6 % smaller, 1: 6 % larger
    # eyes: gaze to the picture's right and up; lids closed, opened wide, narrowed from below
    Control("gaze_x", -1.0, 1.0, 0.23),
    Control("gaze_y", -1.0, 1.0, 0.2),
    Control("blink_left", 0.0, 1.0, 0.2),
    Control("blink_right", 0.0, 1.0, 0.2),
    Control("eye_wide", -1.0, 1.0, 0.15),
    Control("squint", 0.0, 1.0, 0.2),
    Control("brow_left", -1.0, 1.0, 0.28),
    Control("brow_right", -1.0, 1.0, 0.28),
    Control("brow_inner", -1.0, 1.0, 0.16),  # inner ends up (worried) or down and together (frowning)
    # mouth
    Control("jaw", 0.0, 1.0, 0.28),
    Control("jaw_x", -1.0, 1.0, 0.15),  # to the picture's right
    Control("mouth_width", -1.0, 1.0, 0.27),
    Control("mouth_round", 0.0, 1.0, 0.23),
    Control("lip_upper", 0.0, 1.0, 0.2),
    Control("lip_lower", 0.0, 1.0, 0.23),
    Control("lip_press", 0.0, 1.0, 0.27),
    Control("teeth", 0.0, 1.0, 0.38),
    Control("tongue", 0.0, 1.0, 0.2),
    Control("smile", -1.0, 1.0, 0.3),
    Control(
        "smirk", -1.0, 1.0, 0.2
    ),  # the corner on the picture's right up and the other down, or the reverse
    Control("cheek", 0.0, 1.0, 0.2),
    # body
    Control("shoulder_x", -1.0, 1.0, 0.14),
    Control("shoulder_y", -1.0, 1.0, 0.1),
    Control("breath", 0.0, 1.0, 0.4),
    # hands: the palm's place as fractions of the canvas (neutral is below it), turned clockwise [rad], how open, and
    # whether the open hand points with its first finger alone
    Control("hand_left_x", -0.5, 1.5, 0.04, 0.25),
    Control("hand_left_y", 0.0, 2.0, 0.15, 1.2),
    Control("hand_left_angle", -3.15, 3.15, 0.15),
    Control("hand_left_open", 0.0, 1.0, 0.26),
    Control("hand_left_point", 0.0, 1.0, 0.2),
    Control("hand_right_x", -0.5, 1.5, 0.04, 0.75),
    Control("hand_right_y", 0.0, 2.0, 0.15, 1.2),
    Control("hand_right_angle", -3.15, 3.15, 0.15),
    Control("hand_right_open", 0.0, 1.0, 0.26),
    Control("hand_right_point", 0.0, 1.0, 0.2),
)

CONTROL_NAMES: tuple[str, ...] = tuple(control.name for control in RIG)
CONTROLS = len(RIG)  # K

_INDEX = {name: i for i, name in enumerate(CONTROL_NAMES)}
_NEUTRAL = torch.tensor([c.neutral for c in RIG])
_SCALE = torch.tensor([c.scale for c in RIG])
_LOW = torch.tensor([c.low for c in RIG])
_HIGH = torch.tensor([c.high for c in RIG])


def control_index(name: str) -> int:
    """Column of the control called `name`; raises MotionError if there is none."""
    if name not in _INDEX:
        raise MotionError(f"no control is called {name!r}; the names are {', '.join(CONTROL_NAMES)}")
    return _INDEX[name]


def indices(*names: str) -> list[int]:
    """Columns of several controls."""
    return [control_index(name) for name in names]


GAZE = indices("gaze_x", "gaze_y")
#: What shapes sounds; expressions such as the smile are no part of it.
LIPS = indices(
    "jaw", "jaw_x", "mouth_width", "mouth_round", "lip_upper", "lip_lower", "lip_press", "teeth", "tongue"
)


def neutral(frames: int) -> Tensor:
    """Neutral raw motion, float32 `[frames, K]`: looking ahead, mouth closed, hands out of the picture."""
    return _NEUTRAL.expand(frames, -1).clone()


def clamp(raw: Tensor) -> Tensor:
    """Raw motion `[..., K]` with every control brought inside its limits. Raises MotionError, as `check`."""
    raw = check(raw)
    return torch.minimum(torch.maximum(raw, _LOW.to(raw)), _HIGH.to(raw))


def check(raw: Tensor) -> Tensor:
    """`raw` itself `[..., K]`. Raises MotionError for another width, and for a value that is not finite, by name."""
    if raw.shape[-1] != CONTROLS:
        raise MotionError(
            f"motion has shape {list(raw.shape)}; [..., {CONTROLS}] is needed, one column a control"
        )
    if not bool(torch.isfinite(raw).all()):
        column = int((~torch.isfinite(raw)).reshape(-1, CONTROLS).any(0).nonzero()[0])
        raise MotionError(
            f"motion holds a NaN or an infinity in {CONTROL_NAMES[column]}; every value must be finite"
        )
    return raw


def normalise(raw: Tensor) -> Tensor:
    """Raw motion `[..., K]` -> what the networks work in."""
    return (raw - _NEUTRAL.to(raw)) / _SCALE.to(raw)


def denormalise(motion: Tensor) -> Tensor:
    """Inverse of `normalise`."""
    return motion * _SCALE.to(motion) + _NEUTRAL.to(motion)


def limited(motion: Tensor) -> Tensor:
    """Normalised motion `[..., K]` within the limits of the rig: all that is done to what the sampler gave."""
    return normalise(clamp(denormalise(motion)))
