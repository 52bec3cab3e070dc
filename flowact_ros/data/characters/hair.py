# SPDX-License-Identifier: Apache-2.0
"""Hair: a back part behind the head and shoulders, and a cap in front with the face's opening cut out."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import Canvas, Gradient, Placement, Window, per_frame, shade
from .identity import Identity
from .pose import Pose


def _tone(window: Window, identity: Identity, amount: Tensor) -> Gradient:
    base = identity.hair_colour
    return window.mix(shade(base, -0.42), shade(base, 0.14), amount.clamp(0.0, 1.0))


def _scallops(u: Tensor, v: Tensor, count: float, depth: float) -> Tensor:
    """Amount by which a curly outline bulges, from the direction only."""
    return depth * (torch.cos(torch.atan2(v, u) * count).abs() - 0.64)


def _curtain(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the hair that hangs at both sides of the face, before and behind it."""
    volume, w = identity.volume, pose.width
    if identity.hair == "long":
        side = w + 11.0 + 9.0 * volume + 8.0 * torch.sin((v + 10.0) / 52.0) + 0.05 * (v - 40.0).clamp_min(0.0)
        return torch.maximum(u.abs() - side, -(v + 36.0))
    # Bobs swing out at the jaw and turn in at the tips.
    side = w + 9.0 + 7.0 * volume + 8.0 * torch.sin((v + 20.0) / 62.0)
    return torch.maximum(sdf.smooth_max(u.abs() - side, v - 122.0 + 0.0010 * u * u, 52.0), -(v + 36.0))


def paint_back(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """What hangs behind the head; it moves against the turn."""
    style, volume = identity.hair, identity.volume
    if style not in ("bob", "long", "curly", "bun", "fringe"):
        return
    x, y = pose.head.point(-14.0 * pose.sin_yaw, 8.0 * pose.sin_pitch)
    # Long hair hangs: it follows the head's roll only in part.
    loose = 0.85 if style == "long" else 1.0
    cos, sin = torch.cos(pose.c["head_roll"] * loose), torch.sin(pose.c["head_roll"] * loose)
    place = Placement(x, y, cos, sin, pose.near, pose.near)
    w = pose.width
    light = 0.0
    if style == "curly":
        window, u, v = canvas.open(place, -w - 62, -176, w + 62, 110)
        d = sdf.ellipse(u, v + 34.0, w + 26.0 * volume, 112.0 + 18.0 * volume) - _scallops(
            u, v + 34.0, 8.0, 9.0
        )
    elif style == "bun":
        window, u, v = canvas.open(place, -70, -206, 70, -70)
        d = sdf.circle(u - 8.0, v + 146.0, 42.0 + 6.0 * volume)
        light = 0.34 + 0.05 * torch.cos((u + 0.6 * v) / 6.0)
    else:
        window, u, v = canvas.open(place, -w - 60, -160, w + 60, 300 if style == "long" else 150)
        top = sdf.ellipse(u, v + 24.0, w + 14.0 + 8.0 * volume, 114.0 + 6.0 * volume)
        d = torch.minimum(top, _curtain(identity, pose, u, v))
    light = light + 0.30 - 0.0016 * u - 0.0012 * v
    window.paint(canvas.cover(d), _tone(window, identity, light))


def cap(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outer outline of the hair on the head."""
    style, volume, w = identity.hair, identity.volume, pose.width
    yaw = per_frame(pose.sin_yaw)
    u = u + 6.0 * yaw
    side = 1.0 if identity.part >= 0 else -1.0
    if style == "short":
        # Cropped sides under a fuller, softly uneven top.
        base = sdf.ellipse(u, v + 26.0, w + 3.0, 106.0)
        top = sdf.ellipse(u - side * 8.0, v + 84.0, 91.0, 48.0 + 9.0 * volume)
        top = top - 2.6 * torch.cos(u / 13.0 + 1.0)
        return sdf.smooth_min(base, top, 22.0)
    if style == "quiff":
        base = sdf.ellipse(u, v + 26.0, w + 3.0, 106.0)
        crest = sdf.ellipse(u - side * 22.0, v + 100.0 - side * 0.10 * u, 72.0, 44.0 + 13.0 * volume)
        swell = sdf.ellipse(u + side * 40.0, v + 98.0, 54.0, 30.0 + 8.0 * volume)
        return sdf.smooth_min(sdf.smooth_min(base, crest, 22.0), swell, 16.0)
    if style == "curly":
        d = sdf.ellipse(u, v + 32.0, w + 14.0 * volume, 106.0 + 16.0 * volume)
        return d - _scallops(u, v + 32.0, 7.0, 8.0)
    return sdf.ellipse(u, v + 24.0, w + 9.0 + 6.0 * volume, 110.0 + 8.0 * volume)


def opening(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the face's opening in the hair (negative on the bare face)."""
    w = pose.width
    style, part = identity.hair, identity.part
    side = 1.0 if part >= 0 else -1.0
    x, y = 58.0 * pose.sin_yaw, -46.0 * pose.sin_pitch
    fu, fv = u - per_frame(x), v - per_frame(y)
    t = fu / w
    if style == "fringe":
        # A straight fringe with a softly rounded edge and a hint of locks.
        top = -58.0 + 10.0 * t * t + 2.0 * torch.cos(t * 11.0 + 0.6)
        bottom_w = 0.86
    elif style == "short":
        # Three soft locks brushed to one side.
        top = -73.0 + 9.0 * t * t + 5.5 * torch.sin(side * t * 6.5 + 0.4) + 5.0 * side * t
        bottom_w = 0.94
    elif style == "quiff":
        top = -79.0 + 16.0 * t * t - 6.0 * side * t
        bottom_w = 0.94
    elif style == "curly":
        top = -64.0 + 12.0 * t * t + 5.5 * torch.cos(t * 10.0)
        bottom_w = 0.88
    else:
        # Parted hair: the opening peaks at the parting and falls away on both sides.
        p = t - 0.55 * part
        top = -92.0 + 62.0 * (torch.sqrt(p * p + 0.012) - 0.11)
        bottom_w = 0.90
    top = top.clamp(-112.0, -20.0)
    # A rounded outline whose upper half reaches up to ``top``.
    half = w * bottom_w
    # Below, it stays open: what hangs at the sides never closes under the chin.
    ry = torch.where(fv < 0, -top, 1e4 * torch.ones_like(top))
    across, along = (t / bottom_w).abs(), (fv / ry).abs()
    k = (across * across * across + along * along * along).clamp_min(1e-6) ** (1.0 / 3.0)
    return (k - 1.0) * torch.minimum(-top, half * torch.ones_like(top)) * 0.95


def paint_front(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """The cap of hair over the head, with its shadow on the forehead and its shine."""
    style = identity.hair
    if style == "bald":
        _paint_shine(canvas, identity, pose)
        return
    w = pose.width
    bottom = {
        "short": 16.0,
        "quiff": 14.0,
        "curly": 30.0,
        "bun": 20.0,
        "bob": 124.0,
        "fringe": 124.0,
        "long": 172.0,
    }[style]
    window, u, v = canvas.open(pose.head, -w - 44, -186, w + 44, bottom + 6)
    outer = cap(identity, pose, u, v)
    face = opening(identity, pose, u, v)
    hanging = style in ("bob", "fringe", "long")
    if hanging:
        outer = torch.minimum(outer, _curtain(identity, pose, u + 6.0 * per_frame(pose.sin_yaw), v))
        if style == "long":
            outer = sdf.smooth_max(outer, v - bottom + 0.9 * (u.abs() - w + 6.0).abs(), 30.0)
        d = sdf.smooth_max(outer, -face, 5.0)
        clip = outer
    else:
        end = v - bottom + 0.10 * (w - u.abs())
        d = sdf.smooth_max(sdf.smooth_max(outer, -face, 5.0), end, 9.0)
        clip = torch.maximum(outer, end)
    # Shadow on the forehead, thrown down by the hair.
    shadow = sdf.cover(-face - 9.0, 22.0) * canvas.cover(clip + 6.0) * (1.0 - sdf.smoothstep(v, -45.0, 8.0))
    window.paint(shadow * 0.26, shade(identity.skin, -0.50))
    # Light falls on the crown; soft strands run from the parting; a band of shine crosses them.
    x, y = 30.0 * pose.sin_yaw, -40.0 * pose.sin_pitch
    su, sv = u - per_frame(x), v - per_frame(y) + 30.0
    rho = torch.sqrt((su / (w + 12.0)) ** 2 + (sv / 118.0) ** 2)
    if style in ("short", "quiff"):
        side = 1.0 if identity.part >= 0 else -1.0
        strand = torch.cos((su * side + 0.55 * sv) / 7.5) * sdf.smoothstep(-sv, 20.0, 60.0)
    elif style == "curly":
        # Soft curls: a gentle checker of round bulges.
        strand = 1.3 * torch.cos((su + 0.3 * sv) / 8.0) * torch.cos((sv - 0.3 * su) / 8.0)
    else:
        root = 40.0 * identity.part if style in ("bob", "long", "bun") else 0.0
        angle = torch.atan2(su - root, -sv + 96.0)
        strand = 0.6 * torch.cos(angle * 7.0) + 0.4 * torch.cos(angle * 13.0 + 1.0)
    tone = 0.48 - 0.0020 * u - 0.0016 * (v + 40.0) + 0.085 * strand
    alpha = canvas.cover(d)
    if not hanging and style in ("short", "quiff"):
        # The cropped sides let the skin through.
        alpha = alpha * (1.0 - 0.40 * sdf.smoothstep(v, -58.0, bottom))
    window.paint(alpha, _tone(window, identity, tone))
    band = (
        sdf.glow((rho - 0.76 + 0.03 * strand).abs(), 0.10)
        * sdf.smoothstep(-sv, 5.0, 70.0)
        * sdf.smoothstep(-su, -70.0, 40.0)
    )
    window.paint(alpha * band * 0.40, shade(identity.hair_colour, 0.55))


def _paint_shine(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """A bare head has its own soft light."""
    x, y = pose.turned(-34.0, -88.0)
    place = pose.on_head(x, y)
    window, u, v = canvas.open(place, -60, -40, 60, 40)
    window.paint(sdf.gauss(u + 0.25 * v, v - 0.25 * u, 36.0, 15.0) * 0.45, shade(identity.skin, 0.65))
