# SPDX-License-Identifier: Apache-2.0
"""Two hands: a rounded palm, four fingers that fold or point, a thumb and a sleeve, coming in from below."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Colour, Placement, per_frame, shade
from .pose import Pose

REACH = 150.0
SIZE = 1.15
#: Where the fingers stand on the palm, from the little one to the first, and how long they are.
FINGERS = ((-23.5, 0.80), (-8.0, 1.0), (8.0, 1.04), (23.5, 0.92))


def hand_place(pose: Pose, side: int) -> Placement:
    """Frame of a hand: origin in its palm."""
    which = "left" if side < 0 else "right"
    angle = pose.c[f"hand_{which}_angle"]
    x, y = pose.c[f"hand_{which}_x"] * 512.0, pose.c[f"hand_{which}_y"] * 512.0
    return Placement(x, y, torch.cos(angle), torch.sin(angle), SIZE * pose.one, SIZE * pose.one)


def hand_box(pose: Pose, side: int) -> Tensor:
    """Upright box [B, 4] in canvas units around the fingers and the palm, without the arm; not clipped."""
    which = "left" if side < 0 else "right"
    opened, point = pose.c[f"hand_{which}_open"], pose.c[f"hand_{which}_point"]
    spread = opened * (1.0 - point)
    thumb, outer = 34.0 + 28.0 * spread, 34.0 + 9.0 * spread
    left, right = (outer, thumb) if side < 0 else (thumb, outer)  # the thumb points to the middle
    top = 37.0 + 48.0 * torch.maximum(opened, point)
    corners = [hand_place(pose, side).point(u, v) for u in (-left, right) for v in (-top, 42.0 * pose.one)]
    xs, ys = torch.stack([p[0] for p in corners]), torch.stack([p[1] for p in corners])
    return torch.stack([xs.amin(0), ys.amin(0), xs.amax(0), ys.amax(0)], dim=-1)


def paint_hand(brush: Brush, canvas: Canvas, pose: Pose, side: int, skin: Colour, sleeve: Colour) -> None:
    """One hand; ``side`` -1 is image left. Nothing is drawn while it is out of the picture."""
    c = pose.c
    which = "left" if side < 0 else "right"
    place = hand_place(pose, side)
    if float(place.y.min()) > 512.0 + 86.0:
        return
    _paint_arm(brush, canvas, pose, place, side, sleeve)
    openness = per_frame(c[f"hand_{which}_open"])
    point = per_frame(c[f"hand_{which}_point"])
    # Pointing folds all but the first finger, which is straight whether the hand is open or not.
    spread = openness * (1.0 - point)
    straight = (spread, spread, spread, torch.maximum(openness, point))
    window, u, v = canvas.open(place, -72, -96, 72, 66)
    u = u * -side  # the thumb points to the middle of the picture
    palm = sdf.smooth_min(sdf.box(u, v - 2.0, 31.0, 33.0, 22.0), sdf.box(u, v - 34.0, 20.0, 26.0, 10.0), 14.0)
    # The thumb stands off an open hand and lies across the fingers of a closed one.
    thumb = sdf.capsule(u, v, 22.0, 16.0, 22.0 + 30.0 * spread, 2.0 - 20.0 * spread, 11.0, 8.8)
    fingers = None
    for (x, length), up in zip(FINGERS, straight):
        top = -22.0 - (14.0 + 36.0 * up) * length + 11.0 * (1.0 - up)
        rod = sdf.capsule(u, v, x * 0.92, -18.0, x * (0.92 + 0.35 * spread), top, 9.6, 8.6)
        fingers = rod if fingers is None else torch.minimum(fingers, rod)
    shape = sdf.smooth_min(sdf.smooth_min(palm, fingers, 5.0), thumb, 7.0)
    if brush.gradients:
        brush.glaze(window, sdf.cover(shape - 2.0, 10.0) * 0.16, (0.10, 0.07, 0.10))
    edge = sdf.smoothstep(-shape, 0.0, 15.0)
    brush.fill(window, shape, skin, 0.34 + 0.56 * edge - 0.004 * v - 0.003 * u * -side, -0.36, 0.12)
    _paint_palm(brush, canvas, place, side, skin, spread, straight)


def _paint_palm(
    brush: Brush,
    canvas: Canvas,
    place: Placement,
    side: int,
    skin: Colour,
    spread: Tensor,
    straight: tuple[Tensor, ...],
) -> None:
    """What lies within the hand's outline: the gaps between the fingers, and folded fingers and thumb."""
    window, u, v = canvas.open(place, -38, -48, 38, 26)
    u = u * -side
    line = shade(skin, -0.52)
    gaps = None
    for x, up in zip((-15.7, 0.0, 15.7), straight):
        slit = sdf.capsule(u, v, x * 0.95, -20.0, x * (0.95 + 0.3 * spread), -28.0 - 16.0 * up, 1.4, 1.4)
        gaps = slit if gaps is None else torch.minimum(gaps, slit)
    window.paint(sdf.cover(gaps, 4.0) * 0.50, line)
    closed = 1.0 - spread
    if not bool((closed > 0.0).any()):
        return
    folds = None
    for (x, _), up in zip(FINGERS, straight):
        # The end of a folded finger lies on the palm; a straight finger has none.
        end = sdf.capsule(u, v, x * 0.90, -20.0, x * 0.86, -1.0, 8.4, 8.0) + 9.5 * up
        folds = end if folds is None else torch.minimum(folds, end)
    window.paint(sdf.cover(folds - 1.0, 5.0) * (0.45 * closed), line)
    tone = 0.75 - 0.012 * (v + 10.0)
    brush.tint(window, canvas.cover(folds + 0.5) * closed, shade(skin, -0.22), shade(skin, 0.16), tone)
    across = sdf.capsule(u, v, 24.0, 14.0, -2.0, 8.0, 9.5, 8.0)
    window.paint(sdf.cover(across - 1.0, 5.0) * (0.45 * closed), line)
    tone = 0.72 - 0.014 * (v - 8.0)
    brush.tint(window, canvas.cover(across) * closed, shade(skin, -0.22), shade(skin, 0.16), tone)


def _paint_arm(brush: Brush, canvas: Canvas, pose: Pose, place: Placement, side: int, sleeve: Colour) -> None:
    """Forearm from the wrist down out of the picture, with a cuff."""
    wx, wy = place.point(0.0, 46.0)
    ex = wx + (wx - place.x) * 1.6 + side * 18.0
    ey = wy + REACH + 110.0
    if float(wy.min()) > 560.0:
        return
    dx, dy = per_frame(ex - wx), per_frame(ey - wy)
    # The window follows the middle of what can be seen of the arm; the arm's own frame is at the wrist.
    upright = (pose.one, torch.zeros_like(pose.one), pose.one, pose.one)
    window = canvas.window(Placement(wx + 0.4 * dx[:, 0, 0], wy, *upright), -98.0, -34.0, 98.0, REACH + 60)
    u, v = window.local(Placement(wx, wy, *upright))
    arm = sdf.capsule(u, v, 0.0, 12.0, dx, dy, 34.0, 50.0)
    cuff = sdf.capsule(u, v, 0.0, 8.0, dx * 0.07, 8.0 + dy * 0.07, 36.0, 37.0)
    across = u - v * dx / dy
    if brush.gradients:
        brush.glaze(window, sdf.cover(arm - 2.0, 12.0) * 0.14, (0.08, 0.06, 0.10))
    brush.fill(window, arm, sleeve, 0.62 - 0.012 * across, -0.40, 0.10)
    brush.fill(window, cuff, shade(sleeve, 0.08), 0.66 - 0.012 * across, -0.32, 0.14)
