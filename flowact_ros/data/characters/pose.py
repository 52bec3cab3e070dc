# SPDX-License-Identifier: Apache-2.0
"""Where everything lies in every frame: the head's turn with parallax, the mouth's and the eyes' shapes.

The head is an ellipsoid. A feature at (u, v) of the frontal face sits at the ellipsoid's depth there, is turned
by yaw and pitch, and is foreshortened by the local slope; roll turns the whole head about the neck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .canvas import Placement
from .controls import Controls
from .identity import Identity

HEAD_X, HEAD_Y = 256.0, 224.0
NECK_BELOW = 112.0
FACE_W, FACE_H = 108.0, 128.0
DEPTH = 88.0
#: The corners of a mouth at rest lie this much higher than its middle: a friendly face.
REST_SMILE = 5.5
#: Scale of the head at ``head_z`` = 1 is 1 plus this.
LEAN = 0.06
#: How far the lower lip and the chin go to the side with ``jaw_x``, and a mouth's corner up or down with ``smirk``.
JAW_SIDE, CHIN_SIDE, CORNER = 12.0, 13.0, 8.5


@dataclass(frozen=True)
class MouthShape:
    """The lips' geometry in the mouth's own units, each [B].

    Half width, rise and drop of the inner edges; ``curve`` lifts both corners, ``skew`` the one on the picture's
    right alone (and lowers the other), ``shear`` moves the lower lip to the side.
    """

    half_width: Tensor
    rise: Tensor
    drop: Tensor
    curve: Tensor
    skew: Tensor
    shear: Tensor
    upper: Tensor
    lower: Tensor

    @property
    def gap(self) -> Tensor:
        """Height of the opening in its middle."""
        return self.rise + self.drop


class Pose:
    """Geometry of a batch of frames of one character."""

    def __init__(self, identity: Identity, controls: Controls) -> None:
        self.id = identity
        self.c = controls
        one = torch.ones_like(controls["jaw"])
        self.one = one
        yaw, pitch, roll = controls["head_yaw"], controls["head_pitch"], controls["head_roll"]
        self.sin_yaw, self.cos_yaw = torch.sin(yaw), torch.cos(yaw)
        self.sin_pitch, self.cos_pitch = torch.sin(pitch), torch.cos(pitch)
        self.cos_roll, self.sin_roll = torch.cos(roll), torch.sin(roll)
        self.shift_x = controls["head_x"] * 512.0
        self.shift_y = controls["head_y"] * 512.0 - controls["breath"] * 2.0
        pivot_x = HEAD_X + self.shift_x
        pivot_y = HEAD_Y + NECK_BELOW + self.shift_y
        self.pivot_x, self.pivot_y = pivot_x, pivot_y
        #: Scale of everything on the head: leaning towards the viewer makes it larger about the neck.
        self.near = 1.0 + LEAN * controls["head_z"]
        self.head_x = pivot_x + NECK_BELOW * self.near * self.sin_roll
        self.head_y = pivot_y - NECK_BELOW * self.near * self.cos_roll
        self.width = FACE_W * identity.face_width
        self.depth = DEPTH

    @cached_property
    def head(self) -> Placement:
        """The head's own frame: origin in its middle, turned by roll and scaled by the lean."""
        return self.on_head(0.0, 0.0)

    def on_head(self, x: Tensor | float, y: Tensor | float) -> Placement:
        """Frame with the head's turn and scale whose origin is the point (x, y) of the head's own frame."""
        x, y = x * self.near, y * self.near
        px = self.head_x + x * self.cos_roll - y * self.sin_roll
        py = self.head_y + x * self.sin_roll + y * self.cos_roll
        return Placement(px, py, self.cos_roll, self.sin_roll, self.near, self.near)

    def turned(self, u: float, v: float, out: float = 0.0) -> tuple[Tensor, Tensor]:
        """Place in the head's frame of the face's point (u, v), ``out`` units in front of the skin."""
        radius = max(1e-3, 1.0 - (u / 122.0) ** 2 - (v / 165.0) ** 2)
        depth = self.depth * radius**0.5 + out
        x = u * self.cos_yaw + depth * self.sin_yaw
        z = depth * self.cos_yaw - u * self.sin_yaw
        y = v * self.cos_pitch - z * self.sin_pitch
        return x, y

    def feature(self, u: float, v: float, out: float = 0.0, tilt: float = 0.0) -> Placement:
        """Frame of a feature at the face's point (u, v), foreshortened; ``tilt`` (radians) turns it in itself."""
        x, y = self.turned(u, v, out)
        root = max(0.25, 1.0 - (u / 122.0) ** 2 - (v / 165.0) ** 2) ** 0.5
        sx = (self.cos_yaw - self.depth * u / (122.0**2 * root) * self.sin_yaw).clamp(0.55, 1.12)
        sy = (self.cos_pitch + self.depth * v / (165.0**2 * root) * self.sin_pitch).clamp(0.7, 1.1)
        px, py = self.head.point(x, y)
        if tilt:
            cos_t, sin_t = math.cos(tilt), math.sin(tilt)
            cos = self.cos_roll * cos_t - self.sin_roll * sin_t
            sin = self.sin_roll * cos_t + self.cos_roll * sin_t
        else:
            cos, sin = self.cos_roll, self.sin_roll
        return Placement(px, py, cos, sin, sx * self.near, sy * self.near)

    # ---- mouth ----

    @cached_property
    def mouth(self) -> Placement:
        """Frame of the mouth; a jaw pushed aside and a smirk both take the whole mouth along a little."""
        place = self.feature(0.0, self.id.mouth_y, out=4.0)
        x, y = place.point(3.0 * self.c["jaw_x"] + 2.5 * self.c["smirk"], 0.0)
        return replace(place, x=x, y=y)

    @cached_property
    def mouth_shape(self) -> MouthShape:
        c, who = self.c, self.id
        smile, rounding, jaw = c["smile"], c["mouth_round"], c["jaw"]
        half = 44.0 * who.mouth_width
        half = half * (1.0 + 0.17 * c["mouth_width"] + 0.13 * smile - 0.10 * jaw) * (1.0 - 0.50 * rounding)
        half = half * (1.0 - 0.06 * c["lip_press"])
        loose = 1.0 - c["lip_press"]
        gap = (64.0 * jaw + 8.0 * c["lip_lower"] + 7.0 * c["lip_upper"]) * loose
        rise_share = 0.24 + 0.10 * c["lip_upper"] * (1.0 - jaw) + 0.22 * rounding
        full = who.lip_full * (1.0 - 0.40 * c["lip_press"]) * (1.0 + 0.30 * rounding)
        # A wide grin and a wide-open jaw both stretch the lips thin.
        full = full * (1.0 - 0.14 * smile.clamp_min(0.0)) * (1.0 - 0.15 * jaw)
        return MouthShape(
            half_width=half,
            rise=gap * rise_share,
            drop=gap * (1.0 - rise_share),
            curve=REST_SMILE + 12.0 * smile - 5.0 * jaw - 4.0 * rounding,
            skew=CORNER * c["smirk"],
            shear=JAW_SIDE * c["jaw_x"],
            upper=9.5 * full,
            lower=14.0 * full,
        )

    # ---- eyes ----

    def eye(self, side: int) -> Placement:
        """Frame of an eye; ``side`` -1 is image left, +1 image right."""
        return self.feature(side * self.id.eye_spacing, self.id.eye_y, tilt=side * self.id.eye_tilt)

    @cached_property
    def chin_drop(self) -> Tensor:
        """How far the chin goes down with the jaw, units [B]."""
        return 17.0 * self.c["jaw"] * (1.0 - self.c["lip_press"] * 0.8)
