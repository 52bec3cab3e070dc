# SPDX-License-Identifier: Apache-2.0
"""Hair and headscarves: what is behind the head, what hangs over the shoulders, and the cap around the face."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .brush import Brush
from .canvas import Canvas, Placement, per_frame, shade
from .hair_shapes import cap, curtain, opening, scallops, scarf, tail
from .identity import Identity
from .pose import Pose

_BACKS = ("bob", "long", "wavy", "curly", "bun", "fringe", "ponytail")
_HANGING = ("bob", "fringe", "long", "wavy")
#: Where the hair in front ends, by its style.
_BOTTOM = {"short": 16.0, "quiff": 14.0, "undercut": 12.0, "crown": 22.0, "curly": 30.0, "afro": 34.0, "bun": 20.0,
           "ponytail": 18.0, "braids": 34.0, "bob": 124.0, "fringe": 124.0, "long": 172.0, "wavy": 150.0}  # fmt: skip

#: How far the hair in front goes beyond the head at the sides, and above its middle.
_EXTENT = {
    "afro": (78, 188),
    "curly": (42, 168),
    "quiff": (38, 168),
    "undercut": (38, 164),
    "short": (38, 158),
}


def paint_back(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """What is behind the head; it moves against the turn."""
    style, volume, w = identity.hair, identity.volume, pose.width
    if style not in _BACKS:
        return
    x, y = pose.head.point(-14.0 * pose.sin_yaw, 8.0 * pose.sin_pitch)
    # Long hair hangs: it follows the head's roll only in part.
    loose = 0.85 if style in ("long", "wavy") else 1.0
    cos, sin = torch.cos(pose.c["head_roll"] * loose), torch.sin(pose.c["head_roll"] * loose)
    place = Placement(x, y, cos, sin, pose.near, pose.near)
    strand: Tensor | float = 0.0
    if style == "curly":
        window, u, v = canvas.open(place, -w - 62, -176, w + 62, 110)
        d = sdf.ellipse(u, v + 34.0, w + 26.0 * volume, 112.0 + 18.0 * volume) - scallops(
            u, v + 34.0, 8.0, 9.0
        )
    elif style == "bun":
        window, u, v = canvas.open(place, -66, -202, 66, -80)
        d = sdf.circle(u - 8.0, v + 140.0, 40.0 + 6.0 * volume)
        strand = 0.34 + 0.05 * torch.cos((u + 0.6 * v) / 6.0)
    elif style == "ponytail":
        window, u, v = canvas.open(place, -170, -164, 170, 66)
        d = tail(identity, u, v)
        strand = 0.22 + 0.07 * torch.cos((u * (1.0 if identity.part >= 0 else -1.0) - 0.2 * v) / 6.0)
    else:
        low = {"long": 300.0, "wavy": 236.0}.get(style, 150.0)
        window, u, v = canvas.open(place, -w - 60, -160, w + 60, low)
        top = sdf.ellipse(u, v + 24.0, w + 13.0 + 8.0 * volume, 112.0 + 6.0 * volume)
        d = torch.minimum(top, curtain(identity, pose, u, v))
        if style == "wavy":
            d = sdf.smooth_max(d, v - 205.0 + 0.0012 * u * u + 5.0 * torch.cos(u / 13.0), 40.0)
    tone = strand + 0.30 - 0.0016 * u - 0.0012 * v
    brush.fill(window, d, identity.hair_colour, tone, -0.46, 0.14)


def paint_hanging(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Braids over the shoulders, or the scarf's cloth around the neck: before the clothes, behind the chin."""
    if identity.hair == "headscarf":
        _paint_wrap(brush, canvas, identity, pose)
    if identity.hair != "braids":
        return
    for side in (-1, 1):
        x, y = pose.head.point(side * (pose.width + 2.0) - 10.0 * pose.sin_yaw, 54.0)
        lean = 0.5 * pose.c["head_roll"]
        place = Placement(x, y, torch.cos(lean), torch.sin(lean), pose.near, pose.near)
        window, u, v = canvas.open(place, -34, -46, 34, 190)
        u = u - side * 7.0 * torch.sin(v / 70.0)
        knot = (v / 26.0 + 0.5).floor() * 26.0
        plait = sdf.ellipse(u, v - knot, 21.0, 17.5)
        plait = torch.maximum(torch.minimum(plait, u.abs() - 12.0), (v - 60.0).abs() - 97.0)
        brush_end = sdf.ellipse(u, v - 172.0, 13.0, 20.0)
        tone = 0.5 - 0.010 * u - 0.001 * v + 0.12 * torch.cos((v - 2.0 * u.abs()) / 4.2)
        brush.fill(window, torch.minimum(plait, brush_end), identity.hair_colour, tone, -0.42, 0.14)
        band = sdf.box(u, v - 153.0, 13.0, 6.5, 5.0)
        brush.fill(window, band, identity.scarf, 0.7 - 0.03 * u, -0.3, 0.1)


def paint_front(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The cap of hair over the head, with its shadow on the forehead and its shine."""
    style, w = identity.hair, pose.width
    if style == "headscarf":
        _paint_scarf(brush, canvas, identity, pose)
        return
    if style in ("bald", "crown"):
        _paint_shine(brush, canvas, identity, pose)
    if style == "bald":
        return
    bottom = _BOTTOM[style]
    wide, high = _EXTENT.get(style, (38, 150))
    window, u, v = canvas.open(pose.head, -w - wide, -high, w + wide, bottom + 6)
    outer = cap(identity, pose, u, v)
    face = opening(identity, pose, u, v)
    hanging = style in _HANGING
    if hanging:
        outer = torch.minimum(outer, curtain(identity, pose, u + 6.0 * per_frame(pose.sin_yaw), v))
        if style in ("long", "wavy"):
            outer = sdf.smooth_max(outer, v - bottom + 0.9 * (u.abs() - w + 6.0).abs(), 30.0)
        clip = outer
        d = sdf.smooth_max(outer, -face, 5.0)
    else:
        end = v - bottom + 0.10 * (w - u.abs())
        clip = torch.maximum(outer, end)
        d = sdf.smooth_max(sdf.smooth_max(outer, -face, 5.0), end, 44.0 if style == "afro" else 9.0)
    # Shadow on the forehead, thrown down by the hair.
    if style != "crown":
        shadow = (
            sdf.cover(-face - 8.0, 20.0) * canvas.cover(clip + 6.0) * (1.0 - sdf.smoothstep(v, -45.0, 8.0))
        )
        brush.mark(window, shadow, shade(identity.skin, -0.46), 0.26)
    # Light falls on the crown; soft strands run from the parting; a band of shine crosses them.
    x, y = 30.0 * pose.sin_yaw, -40.0 * pose.sin_pitch
    su, sv = u - per_frame(x), v - per_frame(y) + 30.0
    strand: Tensor | float = 0.0
    if brush.gradients or style not in ("curly", "afro"):
        strand = _strands(identity, style, su, sv)
    tone = 0.50 - 0.0020 * u - 0.0016 * (v + 40.0) + 0.085 * strand
    colour = identity.hair_colour
    if style in ("short", "quiff", "undercut"):
        # The cropped sides let the skin through.
        thin = (0.60 if style == "undercut" else 0.40) * sdf.smoothstep(v, -58.0, bottom)
        if style == "undercut":
            thin = 0.66 * sdf.smoothstep(v, -86.0, -52.0)
        if brush.gradients or style == "undercut":
            alpha = canvas.cover(d) * (1.0 - thin)
            brush.tint(window, alpha, shade(colour, -0.42), shade(colour, 0.14), tone)
        else:
            brush.fill(window, d, colour, tone, -0.42, 0.14)
    else:
        brush.fill(window, d, colour, tone, -0.42, 0.14)
    if style not in ("afro", "crown"):
        rho = torch.sqrt((su / (w + 12.0)) ** 2 + (sv / 118.0) ** 2)
        band = (
            sdf.glow((rho - 0.76 + 0.03 * strand).abs(), 0.10)
            * sdf.smoothstep(-sv, 5.0, 70.0)
            * sdf.smoothstep(-su, -70.0, 40.0)
        )
        brush.mark(window, canvas.cover(d + 3.0) * band, shade(colour, 0.45), 0.40)


def _strands(identity: Identity, style: str, su: Tensor, sv: Tensor) -> Tensor:
    """Soft relief of the hair, about -1 .. 1."""
    if style in ("short", "quiff", "undercut"):
        side = 1.0 if identity.part >= 0 else -1.0
        return torch.cos((su * side + 0.55 * sv) / 7.5) * sdf.smoothstep(-sv, 20.0, 60.0)
    if style in ("curly", "afro"):
        # Soft curls: a gentle checker of round bulges.
        size, depth = (5.0, 0.7) if style == "afro" else (8.0, 1.3)
        a, b = (su + 0.3 * sv) / size, (sv - 0.3 * su) / size
        return depth * torch.cos(a + 0.9 * torch.sin(0.37 * b)) * torch.cos(b + 0.9 * torch.sin(0.41 * a))
    root = 40.0 * identity.part if style in ("bob", "long", "wavy", "bun") else 0.0
    angle = torch.atan2(su - root, -sv + 96.0)
    return 0.6 * torch.cos(angle * 7.0) + 0.4 * torch.cos(angle * 13.0 + 1.0)


def _paint_shine(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """A bare head has its own soft light."""
    x, y = pose.turned(-34.0, -88.0)
    window, u, v = canvas.open(pose.on_head(x, y), -60, -40, 60, 40)
    brush.mark(window, sdf.gauss(u + 0.25 * v, v - 0.25 * u, 36.0, 15.0), shade(identity.skin, 0.65), 0.45)


def _paint_wrap(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The scarf's cloth under the chin and over the shoulders."""
    x, y = pose.head.point(-4.0 * pose.sin_yaw, 0.0)
    lean = 0.4 * pose.c["head_roll"]
    place = Placement(x, y, torch.cos(lean), torch.sin(lean), pose.near, pose.near)
    w = pose.width
    window, u, v = canvas.open(place, -w - 66, -10, w + 66, 262)
    sides = sdf.box(u, v - 60.0, w + 13.0, 90.0, 60.0)
    drape = sdf.ellipse(u, v - 176.0, w + 46.0, 74.0)
    d = sdf.smooth_min(sides, drape, 60.0)
    folds = torch.cos((v + 0.004 * (u + 20.0) ** 2) / 9.0) * sdf.smoothstep(v, 110.0, 170.0)
    tone = 0.66 - 0.0020 * u - 0.0016 * (v - 60.0) + 0.09 * folds
    # Under the chin it lies in the face's shadow.
    tone = tone - 0.55 * sdf.gauss(u, v - 120.0 - 0.4 * per_frame(pose.chin_drop), 64.0, 26.0)
    brush.fill(window, d, identity.scarf, tone, -0.42, 0.12)


def _paint_scarf(brush: Brush, canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The scarf over the head with its band along the forehead."""
    w = pose.width
    window, u, v = canvas.open(pose.head, -w - 20, -146, w + 20, 122)
    outer, face = scarf(pose, u, v)
    d = sdf.smooth_max(outer, -face, 4.0)
    shadow = sdf.cover(-face - 6.0, 16.0) * canvas.cover(outer + 6.0)
    brush.mark(window, shadow, shade(identity.skin, -0.46), 0.24)
    fold = torch.cos((torch.sqrt(u * u + (v - 30.0) ** 2) - 0.3 * u) / 8.0) * sdf.smoothstep(-v, -30.0, 60.0)
    tone = 0.64 - 0.0026 * u - 0.0020 * (v + 40.0) + 0.05 * fold
    brush.fill(window, d, identity.scarf, tone, -0.42, 0.12)
    rim = torch.maximum(face - 11.0, -face)
    brush.fill(window, torch.maximum(rim, outer), shade(identity.scarf, -0.10), tone + 0.1, -0.3, 0.1)
