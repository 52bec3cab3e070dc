# SPDX-License-Identifier: Apache-2.0
"""Outlines of hair and headscarves: distances in the head's frame."""

from __future__ import annotations

import torch
from torch import Tensor

from . import sdf
from .canvas import per_frame
from .identity import Identity
from .pose import Pose


def scallops(u: Tensor, v: Tensor, count: float, depth: float) -> Tensor:
    """Amount by which a curly outline bulges, from the direction only."""
    return depth * (torch.cos(torch.atan2(v, u) * count).abs() - 0.64)


def curtain(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the hair that hangs at both sides of the face, before and behind it."""
    volume, w = identity.volume, pose.width
    if identity.hair == "long":
        side = w + 9.0 + 8.0 * volume + 7.0 * torch.sin((v + 10.0) / 52.0) + 0.05 * (v - 40.0).clamp_min(0.0)
        return torch.maximum(u.abs() - side, -(v + 36.0))
    if identity.hair == "wavy":
        side = w + 12.0 + 9.0 * volume + 7.0 * torch.sin((v + 16.0) / 15.0) + 0.10 * (v - 20.0).clamp_min(0.0)
        return torch.maximum(u.abs() - side, -(v + 36.0))
    # Bobs swing out at the jaw and turn in at the tips.
    side = w + 8.0 + 7.0 * volume + 7.0 * torch.sin((v + 20.0) / 62.0)
    return torch.maximum(sdf.smooth_max(u.abs() - side, v - 122.0 + 0.0010 * u * u, 52.0), -(v + 36.0))


def cap(identity: Identity, pose: Pose, u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outer outline of the hair on the head."""
    style, volume, w = identity.hair, identity.volume, pose.width
    u = u + 6.0 * per_frame(pose.sin_yaw)
    side = 1.0 if identity.part >= 0 else -1.0
    if style in ("short", "quiff", "undercut", "crown"):
        base = sdf.ellipse(u, v + 26.0, w + 2.5, 105.0)
        if style == "crown":  # what is left around a bald top
            ring = sdf.ellipse(u, v + 12.0, w + 7.0 + 4.0 * volume, 78.0)
            return sdf.smooth_max(ring, 0.78 * w - u.abs() + 0.16 * (v + 12.0), 14.0)
        if style == "short":
            # Cropped sides under a fuller, softly uneven top.
            top = sdf.ellipse(u - side * 8.0, v + 84.0, 91.0, 48.0 + 9.0 * volume)
            return sdf.smooth_min(base, top - 2.6 * torch.cos(u / 13.0 + 1.0), 22.0)
        if style == "undercut":
            # A long top that falls to one side over shaved ones.
            top = sdf.ellipse(u - side * 6.0, v + 96.0 + side * 0.12 * u, 86.0, 42.0 + 12.0 * volume)
            return sdf.smooth_min(base + 1.5, top - 2.2 * torch.cos(side * u / 15.0), 26.0)
        crest = sdf.ellipse(u - side * 22.0, v + 100.0 - side * 0.10 * u, 72.0, 44.0 + 13.0 * volume)
        swell = sdf.ellipse(u + side * 40.0, v + 98.0, 54.0, 30.0 + 8.0 * volume)
        return sdf.smooth_min(sdf.smooth_min(base, crest, 22.0), swell, 16.0)
    if style == "curly":
        d = sdf.ellipse(u, v + 32.0, w + 13.0 * volume, 106.0 + 15.0 * volume)
        return d - scallops(u, v + 32.0, 7.0, 8.0)
    if style == "afro":
        d = sdf.ellipse(u, v + 38.0, w + 30.0 + 14.0 * volume, 118.0 + 18.0 * volume)
        return d - scallops(u, v + 38.0, 13.0, 5.0)
    if style in ("bun", "ponytail", "braids"):
        return sdf.ellipse(u, v + 25.0, w + 5.0 + 4.0 * volume, 107.0 + 5.0 * volume)
    return sdf.ellipse(u, v + 24.0, w + 8.0 + 6.0 * volume, 108.0 + 8.0 * volume)


#: Half width of the face's opening over the head's, by hair; 0.90 for the others.
_OPENINGS = {
    "fringe": 0.86,
    "short": 0.94,
    "quiff": 0.94,
    "undercut": 0.95,
    "curly": 0.88,
    "afro": 0.88,
    "wavy": 0.88,
}


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
        top = -56.0 + 10.0 * t * t + 2.0 * torch.cos(t * 11.0 + 0.6)
    elif style == "short":
        # Three soft locks brushed to one side.
        top = -73.0 + 9.0 * t * t + 5.5 * torch.sin(side * t * 6.5 + 0.4) + 5.0 * side * t
    elif style == "quiff":
        top = -79.0 + 16.0 * t * t - 6.0 * side * t
    elif style == "undercut":
        top = -78.0 + 14.0 * t * t + 16.0 * side * t
    elif style in ("curly", "afro"):
        top = -66.0 + 12.0 * t * t + 4.5 * torch.cos(t * 10.0)
    elif style == "ponytail":
        top = -84.0 + 26.0 * t * t
    else:
        # Parted hair: the opening peaks at the parting and falls away on both sides.
        p = t - (0.12 if style == "braids" else 0.55) * part
        top = -92.0 + 62.0 * (torch.sqrt(p * p + 0.012) - 0.11)
    top = top.clamp(-112.0, -20.0)
    # A rounded outline whose upper half reaches up to ``top``.
    half = w * _OPENINGS.get(style, 0.90)
    # Below, it stays open: what hangs at the sides never closes under the chin.
    ry = torch.where(fv < 0, -top, 1e4 * torch.ones_like(top))
    across, along = (fu / half).square(), (fv / ry).square()
    # Between an ellipse and a squarer outline.
    k = 0.32 * torch.sqrt(across + along + 1e-6) + 0.68 * torch.sqrt(
        torch.sqrt(across.square() + along.square() + 1e-6)
    )
    return (k - 1.0) * torch.minimum(-top, half * torch.ones_like(top)) * 0.95


def tail(identity: Identity, u: Tensor, v: Tensor) -> Tensor:
    """Distance to a ponytail that comes from high on the head and falls behind one side."""
    side = 1.0 if identity.part >= 0 else -1.0
    u = u * side
    root = sdf.ellipse(u - 52.0, v + 118.0, 44.0, 38.0)
    fall = sdf.capsule(u - 16.0 * torch.sin((v + 110.0) / 55.0), v, 92.0, -92.0, 118.0, 44.0, 33.0, 13.0)
    return sdf.smooth_min(root, fall, 26.0)


def scarf(pose: Pose, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to a headscarf's outline over the head and to the face's opening in it."""
    w = pose.width
    outer = sdf.ellipse(u + 5.0 * per_frame(pose.sin_yaw), v + 18.0, w + 15.0, 122.0)
    x, y = 40.0 * pose.sin_yaw, -36.0 * pose.sin_pitch
    fu, fv = u - per_frame(x), v - per_frame(y)
    upper = sdf.ellipse(fu, fv + 2.0, w * 0.83, 78.0)
    face = torch.where(fv < -2.0, upper, fu.abs() - w * 0.83 + 0.0009 * fv.clamp_min(0.0) ** 2)
    return outer, face
