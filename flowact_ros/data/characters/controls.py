# SPDX-License-Identifier: Apache-2.0
"""The controls of a synthetic character: their names, limits and neutral values."""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.codec.motion import CONTROL_NAMES, RIG
from flowact_ros.models.codec.motion import neutral as rig_neutral

#: Least and greatest value of every control (radians, fractions of the canvas, or plain amounts).
CONTROL_LIMITS: dict[str, tuple[float, float]] = {
    control.name: (control.low, control.high) for control in RIG
}

_INDEX = {name: i for i, name in enumerate(CONTROL_NAMES)}
#: Rounding in float32 arithmetic (a clamp, a sine) may pass a limit by this much.
_SLACK = 1e-3


class CharacterError(ValueError):
    """A character cannot be drawn as asked (controls, identity or size)."""


def control_index(name: str) -> int:
    """Column of the control called ``name``; raises CharacterError if there is none."""
    if name not in _INDEX:
        raise CharacterError(f"no control is called {name!r}; the names are {', '.join(CONTROL_NAMES)}")
    return _INDEX[name]


def neutral(frames: int) -> Tensor:
    """Neutral controls, float32 [frames, K]: looking ahead, mouth closed, hands out of the picture."""
    if frames < 1:
        raise CharacterError(f"{frames} frames asked for; at least 1 is needed")
    return rig_neutral(frames)


def clamp_controls(controls: Tensor) -> Tensor:
    """The same controls [T, K] with every value brought inside its limits."""
    low = controls.new_tensor([CONTROL_LIMITS[name][0] for name in CONTROL_NAMES])
    high = controls.new_tensor([CONTROL_LIMITS[name][1] for name in CONTROL_NAMES])
    return torch.minimum(torch.maximum(controls, low), high)


def check_controls(controls: Tensor) -> Tensor:
    """Controls as float32 [T, K], checked for shape, finiteness and limits (raises CharacterError)."""
    count = len(CONTROL_NAMES)
    if not isinstance(controls, Tensor):
        raise CharacterError(
            f"controls are a {type(controls).__name__}; a float tensor [T, {count}] is needed"
        )
    if controls.ndim != 2 or controls.shape[1] != count or controls.shape[0] < 1:
        raise CharacterError(
            f"controls have shape {list(controls.shape)}; [T, {count}] with T >= 1 is needed"
        )
    controls = controls.detach().float()
    if not bool(torch.isfinite(controls).all()):
        raise CharacterError("controls hold a NaN or an infinity; every value must be finite")
    clamped = clamp_controls(controls)
    excess = (controls - clamped).abs()
    if float(excess.max()) > _SLACK:
        frame, column = divmod(int(excess.argmax()), count)
        name = CONTROL_NAMES[column]
        low, high = CONTROL_LIMITS[name]
        raise CharacterError(
            f"control {name} is {float(controls[frame, column]):g} in frame {frame}; it must lie in [{low:g}, {high:g}]"
        )
    return clamped


class Controls:
    """Checked controls with one attribute-like lookup per name: ``c["jaw"]`` is a tensor [T]."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __getitem__(self, name: str) -> Tensor:
        return self.values[:, _INDEX[name]]

    def __len__(self) -> int:
        return self.values.shape[0]
