# SPDX-License-Identifier: Apache-2.0
"""A person's head: ears, skin with its light, nose, cheeks, beard, glasses."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Colour, blend, per_frame, shade
from .identity import COVERED_EARS, Identity
from .pose import CHIN_SIDE, FACE_H, Pose


def skull(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outline of the head (cranium and jaw joined), in the head's frame."""
    yaw, pitch = per_frame(pose.sin_yaw), per_frame(pose.sin_pitch)
    width = pose.width
    cranium = sdf.ellipse(u + 5.0 * yaw, v + 26.0 + 6.0 * pitch, width, 104.0)
    drop = per_frame(pose.chin_drop)
    # The jaw's ellipse reaches down to the chin and swings towards the side the face turns to.
    bottom = FACE_H + identity.chin + drop - 14.0 * pitch
    middle = 30.0
    aside = CHIN_SIDE * per_frame(pose.c["jaw_x"]) * sdf.smoothstep(v, 10.0, 90.0)
    half = width * (0.54 + 0.46 * identity.jaw_width)
    jaw = sdf.ellipse(u - 17.0 * yaw - aside, v - middle, half, bottom - middle)
    return sdf.smooth_min(cranium, jaw, 34.0)


def paint_ears(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    if identity.hair in COVERED_EARS:
        return
    skin, size = identity.skin, identity.ear_size
    for side in (-1, 1):
        # The near ear comes forward, the far one goes behind the head.
        turn = pose.sin_yaw * side
        shift = -25.6 * turn.clamp_min(0.0) - 6.0 * turn.clamp_max(0.0)
        place = pose.on_head(side * (pose.width + 1.0 + shift), identity.eye_y + 10.0 + 20.0 * pose.sin_pitch)
        window, u, v = canvas.open(place, -26, -38, 26, 42)
        u = u * side
        d = sdf.ellipse(u - v * -0.14, v, 16.0 * size, 27.0 * size)
        brush.fill(window, d, skin, sdf.smoothstep(-v, -30.0, 24.0), -0.26, -0.02)
        inner = sdf.ellipse(u - 1.0 - v * -0.14, v + 1.0, 9.0 * size, 17.0 * size)
        window.paint(sdf.cover(inner, 6.0) * 0.5, _flushed(skin, -0.30))
        if identity.earrings:
            stud = sdf.circle(u + 4.0, v - 28.0 * size, 5.0)
            brush.fill(window, stud, (0.94, 0.78, 0.40), 0.6 - 0.06 * (v - 28.0 * size), -0.35, 0.4)


def paint_skin(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The head's skin, lit from the upper left, with cheeks, freckles and lines."""
    window, u, v = canvas.open(pose.head, -pose.width - 8, -136, pose.width + 8, 164)
    d = skull(identity, pose, u, v)
    skin = identity.skin
    nx, ny = u / (pose.width * 1.05), v / 140.0
    light = 0.66 - 0.28 * nx - 0.24 * ny - 0.30 * (nx * nx + ny * ny)
    edge = sdf.smoothstep(-d, 0.0, 34.0)
    brush.fill(window, d, skin, light * (0.60 + 0.40 * edge) + 0.22, -0.28, 0.18)
    # Cheeks: a warm blush that lifts with a smile.
    lift = per_frame(10.0 * torch.maximum(pose.c["cheek"], pose.c["smile"].clamp_min(0.0)))
    warm = torch.zeros_like(u)
    for side in (-1, 1):
        x, y = pose.turned(side * 64.0, 46.0 + 0.5 * identity.eye_y)
        warm = warm + sdf.gauss(u - per_frame(x), v - per_frame(y) + lift, 30.0, 21.0)
    inside = canvas.cover(d + 2.0)
    brush.mark(window, warm * inside, _flushed(skin, 0.0), 0.12 + 0.26 * identity.blush)
    if identity.freckles:
        _paint_freckles(canvas, identity, pose)
    if identity.lines:
        _paint_lines(canvas, identity, pose)


def _flushed(skin: Colour, amount: float) -> Colour:
    """The skin where blood shines through it."""
    r, g, b = shade(skin, amount)
    return (min(1.0, r * 0.98 + 0.06), g * 0.62, b * 0.60)


def _paint_freckles(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    place = pose.feature(0.0, 34.0, out=10.0)
    window, u, v = canvas.open(place, -78, -22, 78, 26)
    a, b = u * 0.32, v * 0.42
    spots = torch.cos(a + 1.7 * torch.sin(b * 0.9)) * torch.cos(b + 1.3 * torch.sin(a * 0.8 + 0.6))
    where = sdf.gauss(u.abs() - 44.0, v - 4.0, 22.0, 13.0)
    window.paint(sdf.smoothstep(spots, 0.72, 0.88) * where * identity.freckles, shade(identity.skin, -0.36))


def _paint_lines(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The lines that years draw: across the forehead, beside the eyes, from the nose to the mouth."""
    ink = shade(identity.skin, -0.36)
    amount = identity.lines * 0.6
    if identity.hair not in ("fringe", "headscarf"):
        place = pose.feature(0.0, identity.brow_y - 26.0, out=4.0)
        window, u, v = canvas.open(place, -56, -16, 56, 16)
        for y, half in ((-8.0, 38.0), (4.0, 46.0)):
            line = torch.maximum((v - y + 0.0022 * u * u - 1.5).abs() - 0.7, u.abs() - half)
            window.paint(sdf.cover(line, 3.0) * (amount * 0.75), ink)
    smile = per_frame(pose.c["smile"].clamp_min(0.0) + pose.c["squint"])
    for side in (-1, 1):
        place = pose.feature(side * (identity.eye_spacing + 36.0 * identity.eye_size), identity.eye_y + 4.0)
        window, u, v = canvas.open(place, -14, -16, 14, 18)
        for tilt in (-0.5, 0.05, 0.6):
            rod = sdf.capsule(u * side, v, 0.0, 6.0 * tilt, 10.0, 18.0 * tilt, 0.8, 0.5)
            window.paint(sdf.cover(rod, 2.6) * (amount * (0.5 + 0.4 * smile.clamp_max(1.0))), ink)
        x = side * (27.0 * identity.nose_size + 14.0)
        place = pose.feature(x, 0.5 * (identity.nose_y + identity.mouth_y), out=6.0)
        window, u, v = canvas.open(place, -26, -30, 26, 30)
        bend = u * side - 7.0 + 0.010 * (v - 22.0) ** 2 * 0.55
        line = torch.maximum(bend.abs() - 0.9, v.abs() - 18.0)
        window.paint(sdf.cover(line, 4.0) * amount, ink)


def paint_nose(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Bridge, ball, wings and nostrils; the nose stands out, so it moves most."""
    size, skin = identity.nose_size, identity.skin
    window, u, v = canvas.open(pose.feature(0.0, identity.nose_y, out=20.0 * size), -36, -62, 36, 28)
    shape = sdf.smooth_min(
        sdf.ellipse(u, v, 13.0 * size, 11.5 * size),
        sdf.ellipse(u.abs() - 13.0 * size, v - 3.0, 8.0 * size, 7.5 * size),
        8.0,
    )
    nostril = sdf.ellipse(u.abs() - 8.5 * size, v - 7.5 * size, 4.6 * size, 2.6 * size)
    if brush.lines:
        # The contour of the underside, and the shadow beside the bridge.
        under = torch.maximum(shape.abs() - 1.5, 1.0 - v)
        beside = sdf.capsule(u, v, 10.0 * size, -30.0, 15.0 * size, -6.0, 0.8, 2.0)
        window.paint(canvas.cover(shape) * 0.5, blend(skin, _flushed(skin, 0.05), 0.5))
        window.paint(sdf.cover(beside, 2.5) * 0.6, shade(skin, -0.30))
        window.paint(canvas.cover(under), shade(skin, -0.78))
        window.paint(sdf.cover(nostril, 2.0) * 0.6, shade(skin, -0.7))
        return
    if not brush.gradients:
        window.paint(canvas.cover(shape), blend(shade(skin, -0.11), _flushed(skin, -0.05), 0.15))
        window.paint(sdf.cover(nostril, 2.0) * 0.4, shade(skin, -0.5))
        window.paint(
            canvas.cover(sdf.ellipse(u + 4.0, v + 4.5, 4.4 * size, 3.2 * size)) * 0.5, shade(skin, 0.35)
        )
        return
    yaw = per_frame(pose.sin_yaw)
    # Shadow that the nose throws, away from the light and against the turn.
    window.paint(sdf.gauss(u - 6.0, v - 11.0, 19.0 * size, 9.0) * 0.34, shade(skin, -0.36))
    bridge = sdf.gauss(u + (v.clamp_max(0.0)) * yaw * -0.35 - 11.0 * size, v + 26.0, 8.0, 24.0)
    window.paint(bridge * 0.24, shade(skin, -0.30))
    tone = (0.66 - 0.018 * u - 0.030 * v).clamp(0.0, 1.0)
    light = blend(shade(skin, 0.14), _flushed(skin, 0.1), 0.18)
    window.paint(sdf.cover(shape, 5.0), window.mix(shade(skin, -0.24), light, tone))
    window.paint(sdf.cover(nostril, 3.5) * 0.45, shade(skin, -0.62))
    window.paint(sdf.gauss(u + 4.0, v + 4.5, 6.0 * size, 5.0 * size) * 0.6, shade(skin, 0.6))
    window.paint(sdf.gauss(u + 3.0, v + 32.0, 5.5, 18.0) * 0.28, shade(skin, 0.45))


def paint_beard(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Beard along the jaw and moustache; painted under the mouth."""
    if identity.beard == "none":
        return
    window, u, v = canvas.open(pose.head, -pose.width - 8, -20, pose.width + 8, 172)
    mx, my = pose.turned(0.0, identity.mouth_y, 4.0)
    mu, mv = u - per_frame(mx), v - per_frame(my)
    full = identity.beard in ("full", "goatee")
    soft = 6.0 if brush.gradients else canvas.edge
    cover = torch.zeros_like(u)
    if identity.beard in ("short", "full"):
        d = skull(identity, pose, u, v)
        # Everything of the face below a line from the ears to the cheeks, under the lips.
        line = 22.0 + 28.0 * (1.0 - ((u - 0.6 * per_frame(mx)) / pose.width) ** 2).clamp_min(0.0) ** 0.6
        cheek = line - v
        # A full beard stands out at the chin, not at the ears.
        thick = 10.0 * sdf.smoothstep(v, 20.0, 110.0) - 1.0 if full else torch.full_like(v, -0.5)
        shape = sdf.smooth_max(d - thick, cheek, 26.0)
        cover = sdf.cover(shape, soft if full or not brush.gradients else 18.0)
        if brush.gradients:
            cover = cover * sdf.smoothstep(-cheek, -8.0, 30.0)
    if identity.beard == "goatee":
        drop = per_frame(pose.chin_drop)
        shape = sdf.ellipse(u - 0.8 * per_frame(mx), v - 114.0 - identity.chin - drop, 38.0, 24.0)
        cover = sdf.cover(shape, soft)
    if identity.beard != "short":
        gap = per_frame(pose.mouth_shape.rise)
        lobe = mu.abs() - 20.0
        tash = sdf.ellipse(lobe, mv + 16.0 + gap - 0.0065 * mu * mu - 0.10 * lobe, 25.0, 11.0)
        cover = torch.maximum(cover, sdf.cover(tash, min(soft, 3.5)))
    tone = 0.5 - 0.004 * u - 0.002 * v
    if brush.gradients:
        tone = tone + 0.06 * torch.cos((u + 0.25 * v * torch.sign(u)) / 3.2)
    colour = shade(identity.brow, 0.08)
    strength = 0.97 if full or identity.beard == "moustache" else 0.62
    brush.tint(window, cover * strength, shade(colour, -0.30), shade(colour, 0.10), tone)


def paint_glasses(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Rims, a bridge, two arms and a glint; nothing is bent behind the lenses."""
    if identity.glasses == "none":
        return
    frame = identity.glasses_colour
    place = pose.feature(0.0, identity.eye_y + 4.0, out=16.0)
    window, u, v = canvas.open(place, -pose.width - 24, -50, pose.width + 24, 56)
    spacing = identity.eye_spacing + 1.0
    # The far lens narrows as the head turns.
    w = u.abs() * (1.0 + 0.24 * per_frame(pose.sin_yaw) * torch.sign(u))
    lens = _lens(identity.glasses, w - spacing, v)
    across = (w - spacing) * torch.sign(u) * 0.8 + v * 0.55
    glint = sdf.cover(across + 17.0, 5.0) * sdf.cover(-(across + 29.0), 5.0) * canvas.cover(lens + 5.0)
    window.paint(canvas.cover(lens) * 0.08 + glint * 0.14, (1.0, 1.0, 1.0))
    rim = lens.abs() - 2.7
    bridge = torch.maximum((v + 7.0 + 0.02 * (w * w) - 3.0).abs() - 2.6, w - (spacing - 40.0))
    arm = torch.maximum((v + 12.0).abs() - 3.0, (spacing + 40.0) - w)
    # The arms end at the side of the head, which does not shift with the glasses.
    across, _ = window.local(pose.head)
    arm = torch.maximum(arm, across.abs() - (pose.width + 1.0))
    d = torch.minimum(torch.minimum(rim, bridge), arm)
    window.paint(sdf.cover(d - 1.5, 6.0) * 0.18, shade(identity.skin, -0.5))
    tone = sdf.smoothstep(-v, -36.0, 36.0)
    window.paint(canvas.cover(d), window.mix(frame, shade(frame, 0.22), tone))


def _lens(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Distance to a lens; ``x`` grows outwards."""
    if shape == "round":
        return sdf.ellipse(x, y, 43.0, 40.0)
    if shape == "cat":
        return sdf.ellipse(x, y + 0.16 * x + 2.0, 44.0, 35.0 + 0.12 * x)
    return sdf.box(x, y, 43.0, 34.0, 15.0)
