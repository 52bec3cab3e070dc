# SPDX-License-Identifier: Apache-2.0
"""Neck, shoulders and clothes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Colour, Placement, Window, per_frame, shade
from .identity import Identity
from .pose import Pose


def torso(pose: Pose) -> Placement:
    """The torso's frame: the middle of the collar, swayed by the shoulders and lifted by the breath."""
    c = pose.c
    x = 256.0 + 10.0 * c["shoulder_x"] + 0.35 * pose.shift_x
    y = 398.0 - 9.0 * c["shoulder_y"] - 4.0 * c["breath"] + 0.25 * pose.shift_y
    tilt = 0.05 * c["shoulder_x"]
    grow = 1.0 + 0.012 * c["breath"] + 0.02 * c["head_z"]
    return Placement(x, y, torch.cos(tilt), torch.sin(tilt), grow * pose.id.build, pose.one)


def shoulders(u: Tensor, v: Tensor, broad: float) -> Tensor:
    """Distance to the outline of trunk and shoulders in the torso's frame."""
    trunk = sdf.box(u, v - 130.0, 184.0 * broad, 112.0, 80.0)
    slope = sdf.ellipse(u, v - 38.0, 98.0, 52.0)
    return sdf.smooth_min(trunk, slope, 40.0)


def paint_neck(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Neck from the collar to the head, with the chin's shadow on it."""
    base = torso(pose)
    if identity.clothes == "hoodie":
        window, u, v = canvas.open(base, -120, -60, 120, 70)
        window.paint(canvas.cover(sdf.ellipse(u, v - 2.0, 96.0, 44.0)), shade(identity.cloth, -0.55))
    half = 40.0 + 56.0 * (identity.jaw_width - 0.8)
    window, u, v = canvas.open(base, -110, -110, 110, 80)
    # The neck leans from the collar towards the head.
    lean = per_frame((pose.pivot_x - base.x) / 80.0)
    u = u - lean * (-v).clamp_min(0.0)
    width = half + 0.0055 * (v + 46.0).clamp_min(0.0) ** 2
    d = torch.maximum(u.abs() - width, v - 92.0)
    chin = per_frame(pose.head_y + (128.0 + identity.chin + pose.chin_drop) * pose.near - base.y)
    shadow = 1.0 - sdf.smoothstep(v - chin - 0.0035 * u * u, -4.0, 40.0)
    side = sdf.smoothstep(u, 0.0, 60.0)
    brush.fill(window, d, identity.skin, 0.9 - 0.72 * shadow - 0.22 * side, -0.46, 0.0)


def paint_clothes(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    base = torso(pose)
    window, u, v = canvas.open(base, -256, -30, 256, 130)
    cloth, second = identity.cloth, identity.cloth_second
    d = shoulders(u, v, 0.94 + 0.5 * (identity.jaw_width - 0.72))
    style = identity.clothes
    fabric = sdf.smooth_max(d, -neckline(style, u, v), 6.0)
    light = 0.66 - 0.0013 * u - 0.0026 * v
    edge = sdf.smoothstep(-d, 0.0, 30.0)
    tone = light * (0.7 + 0.3 * edge) + 0.1
    brush.fill(window, fabric, cloth, tone, -0.38, 0.12)
    if brush.gradients:  # the head's shadow on the chest
        shadow = sdf.gauss(u - 10.0, v + 6.0, 105.0, 40.0)
        brush.glaze(window, canvas.cover(fabric) * shadow * 0.30, shade(cloth, -0.65))
    _DETAILS[style](brush, window, identity, u, v, d, cloth, second)

    for side in (-1, 1):  # the folds over the arms
        window, u, v = canvas.open(base, side * 126.0 - 10.0, 58.0, side * 126.0 + 10.0, 132.0)
        fold = sdf.capsule(u - side * 122.0, v, 0.0, 62.0, side * 7.0, 128.0, 1.0, 1.6)
        window.paint(sdf.cover(fold, 2.6) * (0.25 + 0.4 * brush.lines), shade(cloth, -0.55))


def neckline(style: str, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the opening that clothes leave for the neck."""
    a = u.abs()
    if style == "vneck":
        return sdf.smooth_max(torch.maximum(a * 0.82 + v * 0.57 - 45.0, -(v + 60.0)), a - 62.0, 8.0)
    if style in ("shirt", "blazer"):
        return torch.maximum(a * 0.80 + v * 0.60 - 34.0, -(v + 60.0))
    if style == "turtleneck":
        return sdf.ellipse(u, v + 40.0, 50.0, 14.0)
    if style in ("apron", "dungarees"):
        return sdf.ellipse(u, v + 12.0, 56.0, 36.0)
    return sdf.ellipse(u, v + 8.0, 62.0, 40.0)


def _crew(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    line = neckline("crew", u, v)
    band = sdf.smooth_max((line - 7.0).abs() - 7.0, -(v + 4.0), 8.0)
    brush.fill(window, torch.maximum(band, d + 1.5), shade(cloth, -0.12), 0.62 - 0.004 * u, -0.26, 0.14)


def _vneck(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    line = neckline("vneck", u, v)
    band = torch.maximum(torch.maximum(line - 9.0, -line), d + 1.5)
    window.paint(window.canvas.cover(band), shade(cloth, -0.24))


def _shirt(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    _collar(brush, window, u, v, d, shade(cloth, 0.16))
    placket = sdf.cover(u.abs() - 1.2 - 0.4 * brush.lines, 2.5) * window.canvas.cover(-(v - 54.0))
    window.paint(placket * (0.5 + 0.4 * brush.lines), shade(cloth, -0.5))
    for y in (72.0, 104.0):
        window.paint(window.canvas.cover(sdf.circle(u - 7.0, v - y, 3.6)), shade(cloth, 0.45))


def _hoodie(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    hood = sdf.smooth_max(sdf.ellipse(u, v - 6.0, 112.0, 54.0), -sdf.ellipse(u, v + 10.0, 64.0, 44.0), 8.0)
    brush.fill(window, hood, cloth, 0.5 - 0.004 * u - 0.012 * (v - 20.0), -0.34, 0.16)
    for side in (-1.0, 1.0):
        cord = sdf.capsule(u - side * 34.0, v, 0.0, 46.0, side * 3.0, 92.0, 3.2, 3.2)
        window.paint(window.canvas.cover(cord), second)


def _blazer(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    a = u.abs()
    inner = torch.maximum(torch.maximum(a * 0.90 + v * 0.42 - 62.0, d), a - 60.0)
    shirt = torch.maximum(inner, -neckline("blazer", u, v))
    brush.fill(window, shirt, second, 0.9 - 0.010 * v - 0.002 * u, -0.22, 0.0)
    _collar(brush, window, u, v, d, second)
    lapel = torch.maximum(torch.maximum(a - 96.0 + v * 0.40, 67.0 - v * 0.46 - a), -(v - 2.0))
    brush.fill(window, torch.maximum(lapel, d), shade(cloth, -0.16), 0.6 - 0.002 * u, -0.2, 0.06)


def _turtleneck(
    brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour
) -> None:
    roll = sdf.box(u, v + 6.0, 64.0, 22.0, 16.0)
    rib = 0.07 * torch.cos(u / 3.0) if brush.gradients else 0.0
    brush.fill(window, roll, cloth, 0.72 - 0.005 * u - 0.010 * (v + 6.0) + rib, -0.36, 0.14)


def _apron(brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour) -> None:
    _crew(brush, window, identity, u, v, d, cloth, second)
    a = u.abs()
    strap = torch.maximum((a - 74.0 + 0.22 * v).abs() - 8.0, v - 56.0)
    bib = sdf.box(u, v - 120.0, 84.0, 82.0, 12.0)
    tone = 0.72 - 0.002 * u - 0.003 * v
    brush.fill(window, torch.maximum(strap, d + 1.0), second, tone, -0.24, 0.06)
    brush.fill(window, bib, second, tone + 0.1, -0.24, 0.06)


def _dungarees(
    brush: Brush, window: Window, identity: Identity, u, v, d, cloth: Colour, second: Colour
) -> None:
    _apron(brush, window, identity, u, v, d, cloth, second)
    for side in (-1.0, 1.0):
        button = sdf.circle(u - side * 62.0, v - 58.0, 8.0)
        brush.fill(window, button, (0.93, 0.76, 0.36), 0.6 - 0.05 * (v - 58.0), -0.3, 0.3)


_DETAILS = {
    "crew": _crew,
    "vneck": _vneck,
    "shirt": _shirt,
    "hoodie": _hoodie,
    "blazer": _blazer,
    "turtleneck": _turtleneck,
    "apron": _apron,
    "dungarees": _dungarees,
}


def _collar(brush: Brush, window: Window, u: Tensor, v: Tensor, d: Tensor, colour: Colour) -> None:
    """Two collar points beside the open neck."""
    a = u.abs()
    # Inner edge along the neck's opening, outer edge, and the lower edge that makes the point.
    leaf = torch.maximum(34.0 - a * 0.80 - v * 0.60, a - 58.0 + 0.10 * v)
    leaf = sdf.smooth_max(leaf, v * 0.86 - (a - 20.0) * 0.50 - 24.0, 3.0)
    leaf = sdf.smooth_max(leaf, -(v + 16.0), 8.0)
    if brush.gradients:
        shadow = sdf.cover(leaf - 4.0, 10.0) * window.canvas.cover(d)
        brush.glaze(window, shadow * 0.35, shade(colour, -0.5))
    brush.fill(window, leaf, colour, 0.9 - 0.009 * v - 0.003 * u, -0.26, 0.0)
