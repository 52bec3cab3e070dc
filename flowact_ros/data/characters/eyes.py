# SPDX-License-Identifier: Apache-2.0
"""Human eyes: socket, white, iris, pupil, lights, lids with lashes; and the brows."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, Colour, blend, per_frame, shade
from .identity import Identity, rgb
from .pose import Pose

EYE_HALF = 31.0
WHITE = rgb("#fdfbf8")
LASH = rgb("#231712")


class Lids:
    """Vertical place of both lids over an eye, in units of the eye's own frame; all [B, 1, 1]."""

    def __init__(self, identity: Identity, pose: Pose, side: int) -> None:
        c = pose.c
        blink = per_frame(c["blink_left"] if side < 0 else c["blink_right"])
        wide = per_frame(c["eye_wide"])
        gaze = per_frame(c["gaze_y"])
        cheek = per_frame(torch.maximum(c["cheek"], 0.55 * c["smile"].clamp_min(0.0)))
        self.rx = EYE_HALF * identity.eye_size
        self.ry = self.rx * identity.eye_aspect
        # The open upper lid rests a little below the socket's top and follows the gaze.
        squint = per_frame(c["squint"])
        narrow = (-wide).clamp_min(0.0)
        surprise = wide.clamp_min(0.0)
        rest_up = -self.ry * (0.80 + 0.24 * surprise + 0.08 * gaze - 0.34 * narrow - 0.10 * squint)
        rest_low = self.ry * (0.90 + 0.12 * surprise - 0.30 * narrow - 0.30 * cheek - 0.42 * squint)
        # Lids meet low; a lower lid that is already up stays up.
        meet = self.ry * (0.52 - 0.10 * cheek - 0.24 * squint - 0.10 * narrow)
        ease = blink * blink * (3.0 - 2.0 * blink)
        self.up = rest_up + (meet - rest_up) * ease
        self.low = rest_low + (meet - rest_low) * ease
        # Both lids arch outwards when open and hang together when shut.
        self.up_bend = self.ry * (0.42 - 0.72 * ease)
        self.low_bend = self.ry * (-0.30 + 0.22 * squint)

    def upper(self, t: Tensor) -> Tensor:
        return self.up + self.up_bend * t * t

    def lower(self, t: Tensor) -> Tensor:
        return self.low + self.low_bend * t * t


def _lit(iris: Colour) -> Colour:
    """The iris where light passes through it: brighter, and as rich as before."""
    r, g, b = (min(1.0, 1.5 * x + 0.05) for x in iris)
    return (r, g, b)


def paint_eye(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """One eye; ``side`` -1 is image left."""
    c = pose.c
    place = pose.eye(side)
    lids = Lids(identity, pose, side)
    rx, ry = lids.rx, lids.ry
    window, u, v = canvas.open(place, -rx - 12, -ry - 14, rx + 12, ry + 12)
    t = u / rx
    up, low = lids.upper(t), lids.lower(t)
    socket = sdf.ellipse(u, v, rx, ry * 1.06)
    skin = identity.skin
    # Soft hollow around the eye, then the lid's skin with its crease.
    window.paint(sdf.cover(socket - 3.0, 13.0) * 0.36, shade(skin, -0.30))
    rim = sdf.smoothstep(v - up, -16.0, 0.0)
    window.paint(sdf.cover(socket - 1.0, 4.0), window.mix(shade(skin, -0.02), shade(skin, -0.18), rim * 0.9))
    # Lash line: the opening grown upwards, drawn dark under the white.
    thick = 3.6 + 2.2 * identity.lashes
    outer = (side * t).clamp_min(0.0)
    grown = sdf.ellipse(
        u - side * 1.5 * identity.lashes, v + 2.5, rx + 2.0 + 1.5 * identity.lashes, ry * 1.06 + 1.5
    )
    lash = torch.maximum(
        torch.maximum(grown, up - thick * (0.75 + 0.5 * outer) - v), v - torch.maximum(low + 0.8, up)
    )
    window.paint(canvas.cover(lash), blend(LASH, shade(identity.brow, -0.5), 0.4))
    eye = torch.maximum(socket, torch.maximum(up - v, v - low))
    ball = canvas.cover(eye)
    shadow = sdf.smoothstep(v - up, 0.0, ry * 0.75)
    window.paint(ball, window.mix(rgb("#b9b4c0"), WHITE, 0.35 + 0.65 * shadow))
    # Iris and pupil slide with the gaze.
    gx = per_frame(c["gaze_x"]) * rx * 0.36
    gy = -per_frame(c["gaze_y"]) * ry * 0.30
    du, dv = u - gx, v - gy - 0.5
    radius = 20.5 * identity.iris_size * identity.eye_size
    r = torch.sqrt(du * du + dv * dv)
    glow = sdf.smoothstep(dv / radius, -0.6, 0.9) * (1.0 - sdf.smoothstep(r / radius, 0.75, 1.0))
    iris = identity.iris
    window.paint(ball * canvas.cover(r - radius), window.mix(shade(iris, -0.55), _lit(iris), glow))
    window.paint(ball * sdf.cover(r - radius * 0.47, 3.0), rgb("#120c0e"))
    lid_shade = 1.0 - sdf.smoothstep(v - up, 0.0, ry * 0.5)
    window.paint(ball * lid_shade * 0.38, rgb("#1d1420"))
    hx, hy = gx * 0.75 - 7.0, gy * 0.75 - 7.0
    window.paint(ball * sdf.cover(sdf.circle(u - hx, v - hy, 5.8), 2.0) * 0.97, (1.0, 1.0, 1.0))
    window.paint(ball * sdf.cover(sdf.circle(u - gx - 7.5, v - gy - 8.0, 3.2), 2.0) * 0.6, (1.0, 1.0, 1.0))


def paint_brow(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """One brow: a tapered arc that rises, sinks and tilts."""
    c = pose.c
    lift = c["brow_left"] if side < 0 else c["brow_right"]
    place = pose.feature(side * (identity.eye_spacing + 1.0), identity.brow_y, out=3.0)
    window, u, v = canvas.open(place, -48, -38, 48, 34)
    u = u * side
    t = u / 33.0
    inner = per_frame(c["brow_inner"])
    inside = sdf.smoothstep(-t, -0.4, 1.0)
    arch = 8.0 * identity.brow_arch
    middle = (
        0.85 * arch * (t - 0.12) ** 2
        - arch * 0.45
        - per_frame(lift) * (11.0 + 2.0 * (1.0 - t * t))
        - inner * 11.0 * inside
        + 3.6 * t
        - 1.0
    )
    # A frown also draws the brows together.
    shift = (-inner).clamp_min(0.0) * 5.0
    half = 5.6 * identity.brow_thick * (1.0 - 0.45 * ((t + 0.35).clamp_min(0.0) / 1.35) ** 1.5)
    half = half * (1.0 - 0.35 * sdf.smoothstep(-t, 0.45, 1.1))
    d = (v - middle).abs() - half
    ends = (u + shift).abs() - 33.0
    d = sdf.smooth_max(d, ends, 7.0)
    window.paint(sdf.cover(d, 2.4) * 0.95, identity.brow)
