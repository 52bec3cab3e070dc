# SPDX-License-Identifier: Apache-2.0
"""Human head: ears, skin with its soft light, nose, cheeks, beard, glasses."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, per_frame, shade
from .identity import Identity
from .pose import CHIN_SIDE, FACE_H, Pose

#: Hair styles that hang over the ears.
COVERED_EARS = ("bob", "fringe", "long")


def skull(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outline of the head (cranium and jaw joined), in the head's frame."""
    yaw, pitch = per_frame(pose.sin_yaw), per_frame(pose.sin_pitch)
    width = pose.width
    cranium = sdf.ellipse(u + 5.0 * yaw, v + 26.0 + 6.0 * pitch, width, 104.0)
    drop = per_frame(pose.chin_drop)
    chin = FACE_H + identity.chin
    # The jaw's ellipse reaches down to the chin and swings towards the side the face turns to.
    bottom = chin + drop - 14.0 * pitch
    middle = 34.0
    aside = CHIN_SIDE * per_frame(pose.c["jaw_x"]) * sdf.smoothstep(v, 10.0, 90.0)
    jaw = sdf.ellipse(
        u - 17.0 * yaw - aside, v - middle, width * (0.62 + 0.40 * identity.jaw_width), bottom - middle
    )
    return sdf.smooth_min(cranium, jaw, 34.0)


def paint_ears(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    skin = identity.skin
    if identity.hair in COVERED_EARS:
        return
    for side in (-1, 1):
        # The near ear comes forward, the far one goes behind the head.
        turn = pose.sin_yaw * side
        shift = -16.0 * turn.clamp_min(0.0) * 1.6 - 6.0 * turn.clamp_max(0.0)
        x, y = side * (pose.width + 3.0 + shift), 12.0 + 20.0 * pose.sin_pitch
        place = pose.on_head(x, y)
        size = identity.ear_size
        window, u, v = canvas.open(place, -24, -36, 24, 36)
        u = u * side
        d = sdf.ellipse(u - v * -0.14, v, 16.0 * size, 27.0 * size)
        light = sdf.smoothstep(-v, -30.0, 24.0)
        window.paint(canvas.cover(d), window.mix(shade(skin, -0.26), shade(skin, -0.04), light))
        inner = sdf.ellipse(u - 1.0 - v * -0.14, v + 1.0, 9.0 * size, 17.0 * size)
        window.paint(sdf.cover(inner, 7.0) * 0.55, shade(skin, -0.36))


def paint_skin(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The head's skin, lit from the upper left, with cheeks."""
    window, u, v = canvas.open(pose.head, -pose.width - 8, -136, pose.width + 8, 164)
    d = skull(identity, pose, u, v)
    inside = canvas.cover(d)
    skin = identity.skin
    nx, ny = u / (pose.width * 1.05), v / 140.0
    light = 0.62 - 0.30 * nx - 0.30 * ny - 0.30 * (nx * nx + ny * ny)
    edge = sdf.smoothstep(-d, 0.0, 34.0)
    tone = (light * (0.55 + 0.45 * edge) + 0.22).clamp(0.0, 1.0)
    colour = window.mix(shade(skin, -0.30), shade(skin, 0.16), tone)
    window.paint(inside, colour)
    # Cheeks: a warm blush that lifts with a smile.
    blush = 0.10 + 0.20 * identity.blush
    lift = per_frame(10.0 * torch.maximum(pose.c["cheek"], pose.c["smile"].clamp_min(0.0)))
    warm = torch.zeros_like(u)
    for side in (-1, 1):
        x, y = pose.turned(side * 66.0, 44.0)
        warm = warm + sdf.gauss(u - per_frame(x), v - per_frame(y) + lift, 30.0, 21.0)
    window.paint(warm * inside * blush, _blush(identity))


def _blush(identity: Identity) -> tuple[float, float, float]:
    r, g, b = identity.skin
    return (min(1.0, r * 0.98 + 0.06), g * 0.60, b * 0.58)


def paint_nose(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Bridge, ball, wings and nostrils, all in soft shades of the skin; it stands out, so it moves most."""
    size = identity.nose_size
    skin = identity.skin
    place = pose.feature(0.0, identity.nose_y, out=20.0 * size)
    window, u, v = canvas.open(place, -42, -66, 42, 34)
    yaw = per_frame(pose.sin_yaw)
    # Shadow that the nose throws, away from the light and against the turn.
    window.paint(sdf.gauss(u - 7.0, v - 12.0, 21.0 * size, 11.0) * 0.42, shade(skin, -0.36))
    bridge = sdf.gauss(u + (v.clamp_max(0.0)) * yaw * -0.35 - 11.0 * size, v + 26.0, 8.0, 26.0)
    window.paint(bridge * 0.28, shade(skin, -0.30))
    shape = sdf.smooth_min(
        sdf.ellipse(u, v, 13.0 * size, 11.5 * size),
        sdf.ellipse(u.abs() - 13.0 * size, v - 3.0, 8.0 * size, 7.5 * size),
        8.0,
    )
    tone = (0.62 - 0.020 * u - 0.034 * v).clamp(0.0, 1.0)
    window.paint(sdf.cover(shape, 4.5), window.mix(shade(skin, -0.26), shade(skin, 0.14), tone))
    nostril = sdf.ellipse(u.abs() - 8.5 * size, v - 7.5 * size, 4.6 * size, 2.6 * size)
    window.paint(sdf.cover(nostril, 3.5) * 0.48, shade(skin, -0.66))
    window.paint(sdf.gauss(u + 4.0, v + 5.0, 6.0 * size, 5.0 * size) * 0.55, shade(skin, 0.55))
    window.paint(sdf.gauss(u + 3.0, v + 34.0, 6.0, 22.0) * 0.30, shade(skin, 0.45))


def paint_beard(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Beard along the jaw and moustache, softly edged; painted under the mouth."""
    if identity.beard == "none":
        return
    window, u, v = canvas.open(pose.head, -pose.width - 8, -20, pose.width + 8, 168)
    mx, my = pose.turned(0.0, identity.mouth_y, 4.0)
    mu, mv = u - per_frame(mx), v - per_frame(my)
    d = skull(identity, pose, u, v)
    full = identity.beard == "full"
    colour = identity.hair_colour if identity.hair != "bald" else identity.brow
    cover = torch.zeros_like(u)
    if identity.beard in ("short", "full"):
        # Everything of the face below a line from the ears to the cheeks, under the lips.
        line = 22.0 + 28.0 * (1.0 - ((u - 0.6 * per_frame(mx)) / pose.width) ** 2).clamp_min(0.0) ** 0.6
        cheek = line - v
        # A full beard stands out at the chin, not at the ears.
        thick = 9.0 * sdf.smoothstep(v, 20.0, 110.0) - 1.0 if full else torch.full_like(v, -0.5)
        shape = sdf.smooth_max(d - thick, cheek, 26.0)
        cover = sdf.cover(shape, 6.0 if full else 18.0)
        cover = cover * sdf.smoothstep(-cheek, -8.0, 30.0)
    if identity.beard != "short":
        gap = per_frame(pose.mouth_shape.rise)
        bend = 0.0065 * mu * mu
        lobe = mu.abs() - 20.0
        tash = sdf.ellipse(lobe, mv + 16.0 + gap - bend - 0.10 * lobe, 25.0, 11.0)
        cover = torch.maximum(cover, sdf.cover(tash, 5.0))
    tone = (0.45 - 0.004 * u - 0.002 * v).clamp(0.0, 1.0)
    strength = 0.96 if full or identity.beard == "moustache" else 0.62
    window.paint(cover * strength, window.mix(shade(colour, -0.30), shade(colour, 0.10), tone))


def paint_glasses(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    if identity.glasses == "none":
        return
    frame = identity.glasses_colour
    place = pose.feature(0.0, identity.eye_y + 4.0, out=16.0)
    window, u, v = canvas.open(place, -pose.width - 24, -50, pose.width + 24, 56)
    spacing = identity.eye_spacing + 1.0
    # The far lens narrows as the head turns.
    yaw = per_frame(pose.sin_yaw)
    squeeze = 1.0 + 0.24 * yaw * torch.sign(u)
    w = u.abs() * squeeze
    if identity.glasses == "round":
        lens = sdf.ellipse(w - spacing, v, 43.0, 40.0)
    else:
        lens = sdf.box(w - spacing, v, 43.0, 34.0, 15.0)
    window.paint(canvas.cover(lens) * 0.10, (1.0, 1.0, 1.0))
    glint = sdf.cover((w - spacing) * torch.sign(u) * 0.8 + v * 0.55 + 17.0, 9.0) * sdf.cover(
        -((w - spacing) * torch.sign(u) * 0.8 + v * 0.55 + 29.0), 9.0
    )
    window.paint(glint * canvas.cover(lens + 5.0) * 0.16, (1.0, 1.0, 1.0))
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
