# SPDX-License-Identifier: Apache-2.0
"""Background, neck, shoulders and clothes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, Placement, per_frame, shade
from .identity import Identity
from .pose import Pose


def background(identity: Identity, size: int, device: torch.device) -> Tensor:
    """Smooth backdrop [3, size, size]: a gradient, a large soft disc behind the head, darker corners."""
    line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (512.0 / size)
    x, y = line[None, :], line[:, None]
    top = torch.tensor(identity.back_top, device=device).view(3, 1, 1)
    bottom = torch.tensor(identity.back_bottom, device=device).view(3, 1, 1)
    picture = top + (bottom - top) * sdf.smoothstep(y + 0.12 * x, 0.0, 560.0)
    disc = sdf.cover(sdf.circle(x - 256.0, y - 232.0, 205.0), 26.0)
    picture = picture + (1.0 - picture) * (disc * (0.30 if sum(identity.back_top) > 1.5 else 0.10))
    corners = sdf.smoothstep(torch.sqrt(((x - 256.0) / 380.0) ** 2 + ((y - 230.0) / 380.0) ** 2), 0.55, 1.25)
    return (picture * (1.0 - 0.16 * corners)).clamp(0.0, 1.0)


def torso(pose: Pose) -> Placement:
    """The torso's frame: the middle of the collar, swayed by the shoulders and lifted by the breath."""
    c = pose.c
    x = 256.0 + 10.0 * c["shoulder_x"] + 0.35 * pose.shift_x
    y = 398.0 - 9.0 * c["shoulder_y"] - 4.0 * c["breath"] + 0.25 * pose.shift_y
    tilt = 0.05 * c["shoulder_x"]
    grow = 1.0 + 0.012 * c["breath"] + 0.02 * c["head_z"]
    return Placement(x, y, torch.cos(tilt), torch.sin(tilt), grow, pose.one)


def shoulders(u: Tensor, v: Tensor, broad: float) -> Tensor:
    """Distance to the outline of trunk and shoulders in the torso's frame."""
    trunk = sdf.box(u, v - 130.0, 184.0 * broad, 112.0, 80.0)
    slope = sdf.ellipse(u, v - 38.0, 98.0, 52.0)
    return sdf.smooth_min(trunk, slope, 40.0)


def paint_neck(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Neck from the collar to the head, with the chin's shadow on it."""
    base = torso(pose)
    if identity.clothes == "hoodie":
        window, u, v = canvas.open(base, -120, -60, 120, 70)
        window.paint(canvas.cover(sdf.ellipse(u, v - 2.0, 96.0, 44.0)), shade(identity.cloth, -0.55))
    skin = identity.skin
    half = 41.0 + 56.0 * (identity.jaw_width - 0.8)
    window = canvas.window(base, -130, -110, 130, 100)
    u, v = window.local(base)
    # The neck leans from the collar towards the head.
    lean = per_frame((pose.pivot_x - base.x) / 80.0)
    up = (-v).clamp_min(0.0)
    u = u - lean * up
    width = half + 0.0055 * (v + 46.0).clamp_min(0.0) ** 2
    d = torch.maximum(u.abs() - width, v - 92.0)
    chin = per_frame(pose.head_y + (128.0 + pose.chin_drop) * pose.near - base.y)
    shadow = 1.0 - sdf.smoothstep(v - chin - 0.0025 * u * u, -8.0, 40.0)
    side = sdf.smoothstep(u, 0.0, 60.0)
    tone = 0.86 - 0.66 * shadow - 0.25 * side
    window.paint(canvas.cover(d), window.mix(shade(skin, -0.46), shade(skin, -0.02), tone.clamp(0.0, 1.0)))


def paint_clothes(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    base = torso(pose)
    window, u, v = canvas.open(base, -262, -30, 262, 150)
    cloth, second = identity.cloth, identity.cloth_second
    broad = 0.94 + 0.5 * (identity.jaw_width - 0.72)
    d = shoulders(u, v, broad)
    style = identity.clothes
    a = u.abs()
    neckline = sdf.ellipse(u, v + 8.0, 62.0, 40.0)
    if style == "vneck":
        neckline = sdf.smooth_max(torch.maximum(a * 0.82 + v * 0.57 - 45.0, -(v + 60.0)), a - 62.0, 8.0)
    elif style in ("shirt", "blazer"):
        neckline = torch.maximum(a * 0.80 + v * 0.60 - 34.0, -(v + 60.0))
    fabric = sdf.smooth_max(d, -neckline, 6.0)
    light = 0.66 - 0.0013 * u - 0.0026 * v
    fold = 0.10 * sdf.gauss(a - 118.0 - 0.2 * v, v - 92.0, 16.0, 60.0)
    edge = sdf.smoothstep(-d, 0.0, 30.0)
    tone = (light * (0.7 + 0.3 * edge) - fold + 0.1).clamp(0.0, 1.0)
    alpha = canvas.cover(fabric)
    window.paint(alpha, window.mix(shade(cloth, -0.38), shade(cloth, 0.12), tone))
    # The head's shadow on the chest.
    window.paint(alpha * sdf.gauss(u - 10.0, v + 6.0, 105.0, 40.0) * 0.30, shade(cloth, -0.65))
    if style == "crew":
        band = (neckline - 7.0).abs() - 7.0
        tone = (0.62 - 0.004 * u - 0.05 * band).clamp(0.0, 1.0)
        window.paint(
            canvas.cover(sdf.smooth_max(band, -(v + 4.0), 8.0)) * canvas.cover(d - 1.5),
            window.mix(shade(cloth, -0.34), shade(cloth, 0.04), tone),
        )
    elif style == "vneck":
        window.paint(canvas.cover(neckline - 9.0) * alpha, shade(cloth, -0.22))
    elif style == "shirt":
        _paint_collar(window, canvas, u, v, d, shade(cloth, 0.10), shade(cloth, -0.34))
        window.paint(sdf.cover(u.abs() - 1.6, 2.5) * canvas.cover(-(v - 52.0)) * 0.45, shade(cloth, -0.5))
    elif style == "hoodie":
        hood = sdf.smooth_max(
            sdf.ellipse(u, v - 6.0, 112.0, 54.0), -sdf.ellipse(u, v + 10.0, 64.0, 44.0), 8.0
        )
        tone = (0.5 - 0.004 * u - 0.012 * (v - 20.0)).clamp(0.0, 1.0)
        window.paint(canvas.cover(hood), window.mix(shade(cloth, -0.34), shade(cloth, 0.16), tone))
        for side in (-1.0, 1.0):
            cord = sdf.capsule(u - side * 34.0, v, 0.0, 46.0, side * 3.0, 92.0, 3.2, 3.2)
            window.paint(canvas.cover(cord), second)
    elif style == "blazer":
        inner = torch.maximum(torch.maximum(a * 0.90 + v * 0.42 - 62.0, d), a - 60.0)
        shirt = canvas.cover(torch.maximum(inner, -neckline))
        window.paint(
            shirt, window.mix(shade(second, -0.22), second, (0.9 - 0.010 * v - 0.002 * u).clamp(0, 1))
        )
        _paint_collar(window, canvas, u, v, d, second, shade(second, -0.30))
        lapel = torch.maximum(torch.maximum(a - 96.0 + v * 0.40, 67.0 - v * 0.46 - a), -(v - 2.0))
        window.paint(canvas.cover(lapel) * canvas.cover(d), shade(cloth, -0.20))


def _paint_collar(window, canvas: Canvas, u: Tensor, v: Tensor, d: Tensor, colour, dark) -> None:
    """Two collar points beside the open neck."""
    a = u.abs()
    # Inner edge along the neck's opening, outer edge, and the lower edge that makes the point.
    leaf = torch.maximum(34.0 - a * 0.80 - v * 0.60, a - 58.0 + 0.10 * v)
    leaf = sdf.smooth_max(leaf, v * 0.86 - (a - 20.0) * 0.50 - 24.0, 3.0)
    leaf = sdf.smooth_max(leaf, -(v + 16.0), 8.0)
    window.paint(sdf.cover(leaf - 4.0, 10.0) * canvas.cover(d) * 0.4, dark)
    tone = (0.8 - 0.010 * v - 0.003 * u).clamp(0.0, 1.0)
    window.paint(canvas.cover(leaf), window.mix(dark, colour, 0.35 + 0.65 * tone))
