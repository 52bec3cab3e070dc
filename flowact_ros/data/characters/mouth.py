# SPDX-License-Identifier: Apache-2.0
"""Mouth: lips, dark inside, teeth and tongue, from one shape that also gives the true opening."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Window, per_frame, shade
from .identity import Identity, rgb
from .pose import Pose

INSIDE = rgb("#3d0f16")
INSIDE_DEEP = rgb("#260910")
TEETH = rgb("#fbf7f0")
TONGUE = rgb("#d2656b")


class MouthField:
    """Distances of the mouth's parts on a window, in the mouth's own units."""

    def __init__(self, pose: Pose, u: Tensor, v: Tensor) -> None:
        m = pose.mouth_shape
        half = per_frame(m.half_width)
        # The lower lip goes sideways with the jaw, the upper one stays.
        reach = per_frame(0.5 * (m.drop + m.lower) + 4.0)
        u = u - per_frame(m.shear) * (0.3 + 0.7 * ((v + 2.0) / reach)).clamp(0.0, 1.0)
        t = u / half
        # Bending the vertical axis gives the smile: the corners rise with the square of the distance.
        self.t = t
        square = (t * t).clamp_max(1.6)
        # A smirk lifts one corner and lowers the other by less.
        skew = per_frame(m.skew) * torch.sign(t) * square
        self.v = v + per_frame(m.curve) * (square - 0.35) + torch.maximum(skew, 0.45 * skew)
        self.u = u
        self.half = half
        self.rise = per_frame(m.rise).clamp_min(0.05)
        self.drop = per_frame(m.drop).clamp_min(0.05)
        self.upper = per_frame(m.upper)
        self.lower = per_frame(m.lower)
        self.rounding = per_frame(pose.c["mouth_round"])
        above = self.v < 0
        self.above = above
        self.inner = torch.maximum(
            sdf.ellipse(u, self.v, half, torch.where(above, self.rise, self.drop)), u.abs() - half
        )

    def top_edge(self) -> Tensor:
        """Height of the inner edge of the upper lip at each column."""
        return -self.rise * torch.sqrt((1.0 - self.t * self.t).clamp_min(0.0))

    def bottom_edge(self) -> Tensor:
        return self.drop * torch.sqrt((1.0 - self.t * self.t).clamp_min(0.0))

    def lips(self) -> Tensor:
        """Distance to the outline of both lips together."""
        # Cupid's bow: two soft peaks beside a dip in the middle of the upper lip.
        flat = torch.zeros_like(self.t)
        bow = 0.10 * sdf.gauss(self.t.abs() - 0.28, flat, 0.16, 1.0) - 0.30 * sdf.gauss(
            self.t, flat, 0.13, 1.0
        )
        bow = 1.0 + bow * (1.0 - 0.7 * self.rounding)
        # Lips taper towards the corners, less so when they are pushed forward.
        taper = 1.0 - (0.42 - 0.30 * self.rounding) * (self.t * self.t).clamp_max(1.0)
        upper = self.rise + self.upper * bow * taper
        lower = self.drop + self.lower * taper
        return sdf.ellipse(self.u, self.v, self.half + 4.0, torch.where(self.above, upper, lower))


def opened(pose: Pose) -> Tensor:
    """How much of the dark inside is shown, [B, 1, 1]: 0 for a closed mouth, 1 from a gap of 2.5 units on."""
    return sdf.smoothstep(per_frame(pose.mouth_shape.gap), 0.0, 2.5)


def paint_inside(
    canvas: Canvas, window: Window, pose: Pose, field: MouthField, teeth_colour=TEETH, tongue_colour=TONGUE
) -> None:
    """Dark cavity, tongue and both rows of teeth, all clipped to the opening."""
    c = pose.c
    hole = canvas.cover(field.inner) * opened(pose)
    depth = sdf.smoothstep(field.v, -20.0, 44.0)
    window.paint(hole, window.mix(INSIDE_DEEP, INSIDE, depth))
    # Tongue: a soft mound on the floor of the mouth, higher with the control.
    rise = per_frame(c["tongue"])
    tongue_v = field.v - field.drop + 4.0 - 3.0 * (1.0 - rise) + rise * field.drop * 0.30
    mound = sdf.ellipse(
        field.u, tongue_v - 8.0, field.half * (0.60 + 0.06 * rise), 9.0 + field.drop * (0.28 + 0.22 * rise)
    )
    light = sdf.gauss(field.u, tongue_v + 2.0, field.half * 0.4, 9.0)
    window.paint(
        hole * sdf.cover(mound, 3.0),
        window.mix(shade(tongue_colour, -0.28), shade(tongue_colour, 0.10), light),
    )
    # Lower teeth show when the lower lip is pulled down or the jaw is wide open.
    show = per_frame((0.35 * c["teeth"] + 0.75 * c["lip_lower"]).clamp_max(1.0))
    low = field.bottom_edge() - field.v - (1.0 + 8.0 * show)
    window.paint(
        hole * canvas.cover(low) * canvas.cover(field.u.abs() - field.half * 0.62) * show * 0.9,
        shade(teeth_colour, -0.14),
    )
    # Upper teeth follow the upper lip's inner edge; they never fill the whole opening unless asked for.
    amount = per_frame(
        c["teeth"] * 0.75 + 0.25 * c["smile"].clamp_min(0.0) + 0.25 * c["lip_upper"]
    ).clamp_max(1.0)
    height = 3.0 + 12.0 * amount + 0.05 * field.drop
    height = height * (1.0 - 0.75 * per_frame(c["mouth_round"]))
    edge = field.v - (field.top_edge() + height * (1.0 - 0.35 * field.t * field.t))
    upper = hole * canvas.cover(edge) * sdf.cover(field.u.abs() - field.half * 0.86, 5.0)
    tone = sdf.smoothstep(field.v - field.top_edge(), 0.0, 9.0)
    window.paint(upper * (0.72 + 0.28 * amount), window.mix(shade(teeth_colour, -0.22), teeth_colour, tone))


def paint_mouth(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The whole mouth of a person."""
    window, u, v = canvas.open(pose.mouth, -84, -52, 84, 94)
    field = MouthField(pose, u, v)
    u = field.u
    lips = field.lips()
    lip = identity.lip
    # A soft shadow under the lower lip lifts it off the chin.
    below = field.v - field.drop - field.lower
    under = sdf.gauss(u, below - 6.0, field.half * 0.55, 6.0)
    if brush.gradients:
        window.paint(under * 0.30, shade(identity.skin, -0.38))
    elif brush.lines:
        stroke = torch.maximum((below - 7.0 + 0.006 * u * u).abs() - 1.0, u.abs() - field.half * 0.34)
        window.paint(canvas.cover(stroke) * 0.8, shade(identity.skin, -0.45))
    shine = sdf.gauss(u, below + field.lower * 0.55, field.half * 0.45, field.lower * 0.45)
    tone = torch.where(field.above, 0.12 * torch.ones_like(u), 0.40 + 0.60 * shine)
    brush.tint(window, canvas.cover(lips), shade(lip, -0.16), shade(lip, 0.24), tone)
    # The line where the lips meet; it stays as the rim of the opening.
    weight = 1.5 + 0.8 * brush.lines
    line = sdf.cover(field.v.abs() - weight * (1.15 - field.t * field.t).clamp_min(0.0), 2.0) * canvas.cover(
        u.abs() - field.half - 2.0
    )
    window.paint(line * (1.0 - opened(pose)) * 0.9, shade(lip, -0.55))
    corner = sdf.gauss(u.abs() - field.half - 2.0, field.v, 6.0, 5.0)
    brush.mark(window, corner, shade(lip, -0.5), 0.30 + 0.5 * brush.lines)
    paint_inside(canvas, window, pose, field)
    if brush.lines:
        # The rim of an open mouth is drawn as all other contours are.
        rim = sdf.cover((field.inner + 2.2).abs() - 1.0, 2.0) * opened(pose)
        window.paint(rim, INSIDE_DEEP)
