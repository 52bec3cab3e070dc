# SPDX-License-Identifier: Apache-2.0
"""Two simple hands: a rounded palm, four fingers, a thumb and a sleeve, coming in from below."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, Placement, per_frame, shade
from .identity import Identity
from .pose import Pose

REACH = 150.0
SIZE = 1.15


def _placement(pose: Pose, side: int) -> Placement:
    """Frame of a hand: origin in its palm."""
    which = "left" if side < 0 else "right"
    angle = pose.c[f"hand_{which}_angle"]
    x, y = pose.c[f"hand_{which}_x"] * 512.0, pose.c[f"hand_{which}_y"] * 512.0
    return Placement(x, y, torch.cos(angle), torch.sin(angle), SIZE * pose.one, SIZE * pose.one)


def hand_box(pose: Pose, side: int) -> Tensor:
    """Upright box [B, 4] in canvas units around the fingers and the palm, without the arm; not clipped."""
    inward, outward = (52.0, 42.0) if side < 0 else (42.0, 52.0)  # the thumb points to the middle
    return torch.stack(_placement(pose, side).bounds(-outward, -84.0, inward, 42.0), dim=-1)


def paint_hand(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """One hand; ``side`` -1 is image left. Nothing is drawn while it is out of the picture."""
    c = pose.c
    which = "left" if side < 0 else "right"
    place = _placement(pose, side)
    if float(place.y.min()) > 512.0 + 86.0:
        return
    robot = identity.style == "robot"
    skin = identity.shell if robot else identity.skin
    sleeve = identity.cloth_second if robot else identity.cloth
    _paint_arm(canvas, pose, place, side, sleeve, skin, robot)
    window, u, v = canvas.open(place, -66, -92, 66, 62)
    u = u * -side  # the thumb points to the middle of the picture
    openness = per_frame(c[f"hand_{which}_open"])
    point = per_frame(c[f"hand_{which}_point"])
    # Pointing folds all but the first finger, which is straight whether the hand is open or not.
    folded = openness * (1.0 - point)
    palm = sdf.box(u, v - 2.0, 31.0, 33.0, 22.0)
    wrist = sdf.box(u, v - 34.0, 20.0, 26.0, 10.0)
    palm = sdf.smooth_min(palm, wrist, 14.0)
    fingers = None
    for i, (fx, more) in enumerate(((-23.5, 0.80), (-8.0, 1.0), (8.0, 1.04), (23.5, 0.92))):
        straight = torch.maximum(openness, point) if i == 3 else folded
        spread = fx * 0.35 * folded
        # A closed hand folds the fingers over the palm.
        top = -22.0 - (16.0 + 34.0 * straight) * more + 9.0 * (1.0 - straight)
        rod = sdf.capsule(u, v, fx * 0.92, -18.0, fx * 0.92 + spread, top, 9.6, 8.6)
        fingers = rod if fingers is None else torch.minimum(fingers, rod)
    thumb = sdf.capsule(u, v, 22.0, 16.0, 30.0 + 22.0 * folded, -6.0 - 12.0 * folded, 11.0, 8.8)
    shape = sdf.smooth_min(sdf.smooth_min(palm, fingers, 5.0), thumb, 7.0)
    window.paint(sdf.cover(shape - 2.0, 10.0) * 0.16, (0.10, 0.07, 0.10))
    edge = sdf.smoothstep(-shape, 0.0, 15.0)
    tone = (0.30 + 0.60 * edge - 0.004 * v - 0.003 * u).clamp(0.0, 1.0)
    alpha = canvas.cover(shape)
    window.paint(alpha, window.mix(shade(skin, -0.36), shade(skin, 0.12), tone))
    # Gaps between the fingers, and the folded fingers' knuckle line.
    fold = sdf.gauss(u, v + 4.0, 30.0, 7.0) * (1.0 - folded)
    window.paint(alpha * fold * 0.40, shade(skin, -0.45))
    for gap in (-15.7, 0.0, 15.7):
        slit = sdf.capsule(u, v, gap * 0.95, -20.0, gap * 0.95 + gap * 0.3 * folded, -44.0, 1.4, 1.4)
        window.paint(alpha * sdf.cover(slit, 4.0) * 0.50, shade(skin, -0.50))
    if robot:
        window.paint(canvas.cover(sdf.circle(u, v - 2.0, 12.0)) * 0.9, identity.panel)
        window.paint(sdf.cover(sdf.circle(u, v - 2.0, 6.5), 3.0), identity.accent)


def _paint_arm(canvas: Canvas, pose: Pose, place: Placement, side: int, sleeve, skin, robot: bool) -> None:
    """Forearm from the wrist down out of the picture."""
    wx, wy = place.point(0.0, 46.0)
    ex = wx + (wx - place.x) * 1.6 + side * 18.0
    ey = wy + REACH + 110.0
    if float(wy.min()) > 560.0:
        return
    frame = Placement(wx, wy, pose.one, torch.zeros_like(pose.one), pose.one, pose.one)
    window = canvas.window(frame, -120, -40, 120, REACH + 60)
    u, v = window.local(frame)
    dx, dy = per_frame(ex - wx), per_frame(ey - wy)
    arm = sdf.capsule(u, v, 0.0, 12.0, dx, dy, 34.0, 50.0)
    cuff = sdf.capsule(u, v, 0.0, 8.0, dx * 0.07, 8.0 + dy * 0.07, 36.0, 37.0)
    across = u - v * dx / dy
    tone = (0.62 - 0.012 * across).clamp(0.0, 1.0)
    window.paint(sdf.cover(arm - 2.0, 12.0) * 0.14, (0.08, 0.06, 0.10))
    window.paint(canvas.cover(arm), window.mix(shade(sleeve, -0.40), shade(sleeve, 0.10), tone))
    window.paint(canvas.cover(cuff), window.mix(shade(sleeve, -0.30), shade(sleeve, 0.22), tone))
