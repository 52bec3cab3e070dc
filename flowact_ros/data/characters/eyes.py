# SPDX-License-Identifier: Apache-2.0
"""Human eyes: socket, white, iris, pupil, lights, lids with lashes; and the brows."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Colour, Window, blend, per_frame, shade
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
        self.ease, self.squint = ease, squint
        self.up = rest_up + (meet - rest_up) * ease
        self.low = rest_low + (meet - rest_low) * ease
        # Both lids arch outwards when open and hang together when shut.
        self.up_bend = self.ry * (0.42 - 0.72 * ease)
        self.low_bend = self.ry * (-0.30 + 0.22 * squint)

    def upper(self, t: Tensor | float) -> Tensor:
        return self.up + self.up_bend * t * t

    def lower(self, t: Tensor | float) -> Tensor:
        return self.low + self.low_bend * t * t


def _lit(iris: Colour) -> Colour:
    """The iris where light passes through it: brighter, and as rich as before."""
    r, g, b = (min(1.0, 1.5 * x + 0.05) for x in iris)
    return (r, g, b)


def paint_eye(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """One eye; ``side`` -1 is image left."""
    c = pose.c
    lids = Lids(identity, pose, side)
    rx, ry = lids.rx, lids.ry
    window, u, v = canvas.open(pose.eye(side), -rx - 13, -ry - 16, rx + 13, ry + 13)
    t = u / rx
    up, low = lids.upper(t), lids.lower(t)
    socket = sdf.ellipse(u, v, rx, ry * 1.06)
    _paint_lids(brush, window, identity, lids, socket, u, v, up, low)
    # Lash line: the opening grown upwards, drawn dark under the white.
    thick = (3.4 + 2.2 * identity.lashes) * brush.lashes
    outer = (side * t).clamp_min(0.0)
    grown = sdf.ellipse(
        u - side * 1.5 * identity.lashes, v + 2.5, rx + 2.0 + 1.5 * identity.lashes, ry * 1.06 + 1.5
    )
    lash = torch.maximum(
        torch.maximum(grown, up - thick * (0.75 + 0.5 * outer) - v),
        v - torch.maximum(low + 0.8 + brush.lines, up),
    )
    if identity.lashes > 0.5:
        y = lids.upper(0.80)
        flick = sdf.capsule(u * side, v, 0.84 * rx, y, rx + 5.5, y - 8.0 + 8.0 * lids.ease, 2.6, 0.5)
        lash = torch.minimum(lash, flick)
    window.paint(canvas.cover(lash), blend(LASH, shade(identity.brow, -0.5), 0.4))
    eye = torch.maximum(socket, torch.maximum(up - v, v - low))
    ball = canvas.cover(eye)
    shadow = sdf.smoothstep(v - up, -2.0, ry * 0.75)
    brush.tint(window, ball, rgb("#c9c2cc"), WHITE, 0.22 + 0.78 * shadow)
    # Iris and pupil slide with the gaze.
    gx = per_frame(c["gaze_x"]) * rx * 0.36
    gy = -per_frame(c["gaze_y"]) * ry * 0.30
    du, dv = u - gx, v - gy - 0.5
    radius = 20.5 * identity.iris_size * identity.eye_size
    r = torch.sqrt(du * du + dv * dv)
    glow = sdf.smoothstep(dv / radius, -0.6, 0.9) * (1.0 - sdf.smoothstep(r / radius, 0.75, 1.0))
    iris = identity.iris
    disc = ball * canvas.cover(r - radius)
    if not brush.gradients:
        window.paint(disc, shade(iris, -0.62))
        disc = ball * canvas.cover(r - radius + 2.6)
        glow = glow + 0.12
    brush.tint(window, disc, shade(iris, -0.55), _lit(iris), glow)
    window.paint(ball * sdf.cover(r - radius * 0.47, 2.0), rgb("#120c0e"))
    if brush.gradients:
        lid_shade = 1.0 - sdf.smoothstep(v - up, 0.0, ry * 0.5)
        window.paint(ball * lid_shade * 0.34, rgb("#1d1420"))
    big, hx, hy = 6.2 * identity.eye_size, gx * 0.75 - 7.0, gy * 0.75 - 7.0
    window.paint(ball * sdf.cover(sdf.circle(u - hx, v - hy, big), 2.0) * 0.98, (1.0, 1.0, 1.0))
    window.paint(ball * sdf.cover(sdf.circle(u - gx - 7.5, v - gy - 8.0, 3.0), 2.0) * 0.65, (1.0, 1.0, 1.0))


def _paint_lids(
    brush: Brush,
    window: Window,
    identity: Identity,
    lids: Lids,
    socket: Tensor,
    u,
    v,
    up: Tensor,
    low: Tensor,
) -> None:
    """The skin of the lids: the upper one with its crease, the lower one with the fold that squinting makes."""
    skin = identity.skin
    lid = torch.maximum(socket - 0.5, v - up)
    if brush.gradients:
        window.paint(sdf.cover(socket - 2.0, 16.0) * 0.22, shade(skin, -0.32))
        rim = sdf.smoothstep(v - up, -18.0, 0.0)
        window.paint(sdf.cover(lid, 4.0), window.mix(shade(skin, 0.06), shade(skin, -0.16), rim))
    else:
        window.paint(window.canvas.cover(lid), shade(skin, -0.14))
    crease = torch.maximum((v - up + 8.0 - 3.0 * lids.ease).abs() - 0.6, u.abs() - lids.rx * 0.84)
    window.paint(sdf.cover(crease, 3.0) * (0.40 * (1.0 - lids.ease)), shade(skin, -0.50))
    fold = torch.maximum((v - low - 4.5).abs() - 0.6, u.abs() - lids.rx * 0.66)
    window.paint(
        sdf.cover(fold, 3.4) * (0.16 + 0.44 * lids.squint) * (1.0 - 0.5 * lids.ease), shade(skin, -0.45)
    )


def paint_brow(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
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
    half = (
        (5.4 + 0.5 * brush.lines)
        * identity.brow_thick
        * (1.0 - 0.45 * ((t + 0.35).clamp_min(0.0) / 1.35) ** 1.5)
    )
    half = half * (1.0 - 0.35 * sdf.smoothstep(-t, 0.45, 1.1))
    d = (v - middle).abs() - half
    ends = (u + shift).abs() - 33.0
    d = sdf.smooth_max(d, ends, 7.0)
    window.paint(sdf.cover(d, 2.4 if brush.gradients else canvas.edge) * 0.96, identity.brow)
