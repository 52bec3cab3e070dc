# SPDX-License-Identifier: Apache-2.0
"""Robots: a shell with ears and antennas, a dark face with luminous eyes and brows, a lit mouth, a metal bust."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import sdf
from ..body import torso
from ..canvas import Canvas, Colour, Gradient, Window, blend, per_frame, shade
from ..eyes import Lids
from ..hands import hand_place, paint_hand
from ..identity import Identity, rgb
from ..mouth import MouthField, opened, paint_inside
from ..pose import CHIN_SIDE, Pose
from .soft import SoftBrush, backdrop

DARK = rgb("#2b3242")


def _metal(window: Window, colour: Colour, tone: Tensor) -> Gradient:
    return window.mix(shade(colour, -0.46), shade(colour, 0.30), tone.clamp(0.0, 1.0))


def paint_bust(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Metal shoulders with joints and a lit badge, and a ribbed neck."""
    base = torso(pose)
    window = canvas.window(base, -70, -90, 70, 40)
    u, v = window.local(base)
    lean = per_frame((pose.pivot_x - base.x) / 80.0)
    u = u - lean * (-v).clamp_min(0.0)
    rib = torch.cos(v / 3.4)
    neck = sdf.smooth_max(u.abs() - 36.0 - 2.2 * rib, v - 40.0, 4.0)
    tone = 0.58 - 0.011 * u + 0.16 * rib - 0.55 * (1.0 - sdf.smoothstep(v, -60.0, -10.0))
    window.paint(canvas.cover(neck), _metal(window, identity.cloth_second, tone))
    window, u, v = canvas.open(base, -262, -30, 262, 150)
    cloth = identity.cloth
    a = u.abs()
    for_arm = sdf.circle(a - 166.0, v - 66.0, 50.0)
    tone = 0.66 - 0.009 * (a - 166.0) * torch.sign(u) - 0.010 * (v - 66.0)
    window.paint(canvas.cover(for_arm), _metal(window, identity.cloth_second, tone * 0.8))
    chest = sdf.box(u, v - 116.0, 150.0, 112.0, 66.0)
    edge = sdf.smoothstep(-chest, 0.0, 22.0)
    tone = (0.66 - 0.0020 * u - 0.0035 * v) * (0.72 + 0.28 * edge) + 0.06
    window.paint(canvas.cover(chest), _metal(window, cloth, tone))
    window.paint(canvas.cover(chest) * sdf.gauss(u - 8.0, v - 2.0, 100.0, 26.0) * 0.30, shade(cloth, -0.75))
    collar = sdf.box(u, v - 4.0, 62.0, 15.0, 13.0)
    window.paint(canvas.cover(collar), _metal(window, identity.cloth_second, 0.72 - 0.006 * u - 0.022 * v))
    seam = (a - 92.0).abs() - 1.6
    window.paint(
        sdf.cover(torch.maximum(seam, 34.0 - v), 2.5) * canvas.cover(chest) * 0.35, shade(cloth, -0.8)
    )
    badge = sdf.circle(u, v - 72.0, 15.0)
    window.paint(canvas.cover(badge - 5.0), identity.panel)
    window.paint(sdf.cover(badge + 5.0, 5.0), identity.accent)


def paint_top(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Ear discs and whatever grows on the head; behind the shell."""
    second = identity.cloth_second
    w = pose.width
    for side in (-1, 1):
        turn = pose.sin_yaw * side
        place = pose.on_head(side * (w + 8.0 - 22.0 * turn.clamp_min(0.0)), 6.0 + 16.0 * pose.sin_pitch)
        window, u, v = canvas.open(place, -34, -52, 34, 52)
        size = identity.ear_size
        d = sdf.box(u, v, 20.0 * size, 38.0 * size, 16.0 * size)
        window.paint(canvas.cover(d), _metal(window, second, 0.62 - 0.008 * v - 0.012 * u))
        window.paint(
            sdf.cover(sdf.box(u - side * 11.0 * size, v, 4.5, 20.0 * size, 4.5), 4.0), identity.accent
        )
    stalks: tuple[float, ...] = {"antenna": (0.0,), "twin": (-46.0, 46.0), "fin": (), "none": ()}[
        identity.robot_top
    ]
    for x in stalks:
        place = pose.on_head(x - 10.0 * pose.sin_yaw, -118.0 + 8.0 * pose.sin_pitch)
        lean = 0.22 if x > 0 else (-0.22 if x < 0 else 0.0)
        window, u, v = canvas.open(place, -52, -84, 52, 20)
        rod = sdf.capsule(u, v, 0.0, 10.0, lean * 44.0, -36.0, 6.0, 4.0)
        window.paint(canvas.cover(rod), _metal(window, second, 0.6 - 0.03 * u))
        bu, bv = u - lean * 48.0, v + 42.0
        window.paint(sdf.gauss(bu, bv, 18.0, 18.0) * 0.6, identity.accent)
        ball = sdf.circle(bu, bv, 12.0)
        window.paint(
            canvas.cover(ball),
            window.mix(identity.accent, (1.0, 1.0, 1.0), sdf.gauss(bu + 3.5, bv + 3.5, 6.0, 6.0) * 0.9),
        )
    if identity.robot_top == "fin":
        place = pose.on_head(-10.0 * pose.sin_yaw, -116.0 + 8.0 * pose.sin_pitch)
        window, u, v = canvas.open(place, -60, -40, 60, 30)
        fin = sdf.ellipse(u, v - 4.0, 44.0, 28.0)
        window.paint(canvas.cover(fin), _metal(window, identity.accent, 0.62 - 0.01 * u - 0.016 * v))


def shell(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outline of the head's shell; the jaw part drops with the mouth."""
    w = pose.width + 4.0
    yaw = per_frame(pose.sin_yaw)
    pitch = per_frame(pose.sin_pitch)
    drop = per_frame(pose.chin_drop) * 0.95
    upper = sdf.box(u + 3.0 * yaw, v + 14.0 + 5.0 * pitch, w, 108.0, 84.0 * identity.corner)
    lower = sdf.box(
        u - 10.0 * yaw - 0.6 * CHIN_SIDE * per_frame(pose.c["jaw_x"]) * sdf.smoothstep(v, 10.0, 90.0),
        v - 52.0 - 0.5 * (drop + identity.chin) + 8.0 * pitch,
        w * (0.66 + 0.30 * identity.jaw_width),
        72.0 + 0.5 * (drop + identity.chin),
        60.0 * identity.corner,
    )
    return sdf.smooth_min(upper, lower, 26.0)


def face_plate(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outline of the face panel, which turns with the features."""
    x, y = 44.0 * pose.sin_yaw, 10.0 - 40.0 * pose.sin_pitch
    narrow = 1.0 - 0.16 * per_frame(pose.sin_yaw.abs())
    drop = per_frame(pose.chin_drop)
    return sdf.box(
        u - per_frame(x),
        v - per_frame(y) - drop * 0.5 - 4.0,
        93.0 * narrow,
        97.0 + drop * 0.5,
        58.0 * identity.corner,
    )


def paint_head(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    window, u, v = canvas.open(pose.head, -pose.width - 14, -134, pose.width + 14, 152)
    d = shell(identity, pose, u, v)
    edge = sdf.smoothstep(-d, 0.0, 26.0)
    tone = (0.66 - 0.0030 * u - 0.0028 * v) * (0.62 + 0.38 * edge) + 0.06
    window.paint(canvas.cover(d), _metal(window, identity.shell, tone))
    window.paint(canvas.cover(d) * sdf.gauss(u + 42.0, v + 104.0, 52.0, 12.0) * 0.55, (1.0, 1.0, 1.0))
    panel = face_plate(identity, pose, u, v)
    if identity.robot_face == "screen":
        window.paint(canvas.cover(panel - 4.0), shade(identity.shell, -0.42))
        tone = sdf.smoothstep(v + 0.4 * u, 150.0, -150.0)
        window.paint(
            canvas.cover(panel), window.mix(shade(identity.panel, -0.25), shade(identity.panel, 0.16), tone)
        )
        gloss = sdf.cover(u * 0.55 + v + 52.0, 40.0)
        window.paint(canvas.cover(panel + 6.0) * gloss * 0.10, (1.0, 1.0, 1.0))
    else:
        plate = blend(identity.shell, (1.0, 1.0, 1.0), 0.62)
        window.paint(canvas.cover(panel - 3.0), shade(identity.shell, -0.34))
        tone = 0.78 - 0.0022 * u - 0.0030 * v
        window.paint(
            canvas.cover(panel), window.mix(shade(plate, -0.30), shade(plate, 0.3), tone.clamp(0, 1))
        )
    if identity.blush > 0.3:
        for side in (-1, 1):
            x, y = pose.turned(side * 62.0, 46.0)
            spot = sdf.gauss(u - per_frame(x), v - per_frame(y), 17.0, 11.0)
            window.paint(spot * 0.40 * identity.blush, rgb("#ff8aa8"))


def paint_eye(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """A luminous eye whose lids close over it; the pupil's dark centre and light show the gaze."""
    c = pose.c
    lids = Lids(identity, pose, side)
    rx, ry = lids.rx, lids.rx * 0.98
    window, u, v = canvas.open(pose.eye(side), -rx - 19, -ry - 19, rx + 19, ry + 19)
    kind = identity.robot_eyes
    if kind == "pill":
        outline = sdf.box(u, v, rx * 0.80, ry, rx * 0.80)
    else:
        outline = sdf.circle(u, v, rx)
    stretch = ry / lids.ry
    t = u / rx
    up, low = lids.upper(t) * stretch, lids.lower(t) * stretch
    accent = identity.accent
    if identity.robot_face == "plate":
        window.paint(canvas.cover(outline - 5.0), shade(identity.panel, 0.05))
    gap = sdf.smoothstep(low - up, 0.0, 16.0)
    window.paint(sdf.glow(outline, 9.0) * 0.34 * gap, accent)
    eye = torch.maximum(outline, torch.maximum(up - v, v - low))
    shut = torch.maximum(torch.maximum(outline - 0.5, up - 5.5 - v), v - torch.maximum(low, up))
    window.paint(canvas.cover(shut), blend(accent, identity.panel, 0.25))
    ball = canvas.cover(eye)
    gx, gy = per_frame(c["gaze_x"]) * rx * 0.34, -per_frame(c["gaze_y"]) * ry * 0.30
    du, dv = u - gx, v - gy
    r = torch.sqrt(du * du + dv * dv)
    if kind == "lens":
        window.paint(
            ball,
            window.mix(shade(identity.panel, 0.20), shade(identity.panel, -0.35), sdf.smoothstep(v, -ry, ry)),
        )
        ring = (r - rx * 0.48).abs() - 5.5
        window.paint(ball * sdf.glow(ring, 7.0) * 0.45, accent)
        window.paint(
            ball * canvas.cover(ring),
            window.mix(accent, (1.0, 1.0, 1.0), sdf.smoothstep(-dv, -6.0, 20.0) * 0.6),
        )
        window.paint(ball * sdf.cover(r - rx * 0.16, 5.0), blend(accent, (1.0, 1.0, 1.0), 0.6))
    else:
        light = (1.0 - r / (rx * 1.25)).clamp(0.0, 1.0)
        window.paint(ball, window.mix(shade(accent, -0.12), blend(accent, (1.0, 1.0, 1.0), 0.65), light))
        window.paint(ball * sdf.cover(r - rx * 0.42, 4.0), blend(identity.panel, accent, 0.10))
    hx, hy = gx * 0.8 - rx * 0.20, gy * 0.8 - rx * 0.22
    window.paint(ball * sdf.cover(sdf.circle(u - hx, v - hy, 5.5), 2.0) * 0.95, (1.0, 1.0, 1.0))


def paint_brow(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """A short bar over the eye: luminous on a screen, dark on a plate."""
    c = pose.c
    lift = c["brow_left"] if side < 0 else c["brow_right"]
    window, u, v = canvas.open(
        pose.feature(side * identity.eye_spacing, identity.brow_y, out=2.0), -40, -34, 40, 30
    )
    t = u * side / 24.0
    middle = (
        6.0 * identity.brow_arch * (t * t - 0.5)
        + 2.6 * t
        - per_frame(lift) * 10.0
        - per_frame(c["brow_inner"]) * 9.0 * sdf.smoothstep(-t, -0.6, 1.0)
    )
    d = sdf.smooth_max((v - middle).abs() - 4.0 * identity.brow_thick, u.abs() - 24.0, 5.0)
    colour = identity.accent if identity.robot_face == "screen" else identity.panel
    if identity.robot_face == "screen":
        window.paint(sdf.glow(d, 6.0) * 0.25, colour)
    window.paint(sdf.cover(d, 2.2) * 0.92, colour)


def paint_mouth(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The same opening as a person's mouth, framed by a lit lip."""
    window, u, v = canvas.open(pose.mouth, -84, -50, 84, 96)
    field = MouthField(pose, u, v)
    lip = identity.accent if identity.robot_face == "screen" else identity.panel
    press = per_frame(pose.c["lip_press"])
    width = 7.0 - 2.0 * press
    # The frame is an ellipse around the opening, never thinner than its own bar.
    tall = torch.where(field.above, field.rise, field.drop) + width
    bar = sdf.capsule(u, field.v, -field.half, 0.0, field.half, 0.0, 4.6, 4.6)
    body = torch.minimum(sdf.ellipse(u, field.v, field.half + width, tall), bar)
    if identity.robot_face == "screen":
        high = 0.5 * (field.rise + field.drop) + width
        around = sdf.box(
            u,
            field.v - 0.5 * (field.drop - field.rise),
            field.half + width,
            high,
            torch.minimum(high, field.half),
        )
        window.paint(sdf.glow(around, 8.0) * 0.34, lip)
    light = sdf.smoothstep(field.v, -14.0, 26.0)
    window.paint(canvas.cover(body), window.mix(blend(lip, (1.0, 1.0, 1.0), 0.35), lip, light))
    window.paint(
        canvas.cover(field.v.abs() - 1.2) * canvas.cover(u.abs() - field.half) * (1.0 - opened(pose)) * 0.7,
        shade(lip, -0.6),
    )
    paint_inside(
        canvas,
        window,
        pose,
        field,
        teeth_colour=rgb("#e8eef4"),
        tongue_colour=blend(rgb("#d2656b"), identity.accent, 0.25),
    )


def paint_badge(canvas: Canvas, identity: Identity, pose: Pose, side: int) -> None:
    """A light in the palm of an open hand."""
    place = hand_place(pose, side)
    if float(place.y.min()) > 532.0:
        return
    which = "left" if side < 0 else "right"
    shown = per_frame(pose.c[f"hand_{which}_open"] * (1.0 - pose.c[f"hand_{which}_point"]))
    window, u, v = canvas.open(place, -14, -12, 14, 16)
    window.paint(canvas.cover(sdf.circle(u, v - 2.0, 12.0)) * 0.9 * shown, identity.panel)
    window.paint(sdf.cover(sdf.circle(u, v - 2.0, 6.5), 3.0) * shown, identity.accent)


class Robot:
    """The style of robots (see ``styles.Style``)."""

    brush = SoftBrush()

    def background(self, identity: Identity, size: int, device: torch.device) -> Tensor:
        return backdrop(identity, size, device)

    def eye_aspect(self, identity: Identity) -> float:
        return 1.0

    def paint(self, canvas: Canvas, identity: Identity, pose: Pose) -> None:
        paint_bust(canvas, identity, pose)
        paint_top(canvas, identity, pose)
        paint_head(canvas, identity, pose)
        for side in (-1, 1):
            paint_eye(canvas, identity, pose, side)
            paint_brow(canvas, identity, pose, side)
        paint_mouth(canvas, identity, pose)
        for side in (-1, 1):
            paint_hand(self.brush, canvas, pose, side, identity.shell, identity.cloth_second)
            paint_badge(canvas, identity, pose, side)


STYLE = Robot()
