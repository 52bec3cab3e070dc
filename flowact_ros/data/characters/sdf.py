# SPDX-License-Identifier: Apache-2.0
"""Signed distances (negative inside) and coverages from which every part is painted.

All lengths are canvas units: the canvas is 512 units wide at every pixel size.
"""

from __future__ import annotations

import torch
from torch import Tensor

Scalar = float | Tensor


def ellipse(x: Tensor, y: Tensor, rx: Scalar, ry: Scalar) -> Tensor:
    """Distance to an axis-aligned ellipse, exact on its outline and first-order near it."""
    ix, iy = 1.0 / rx, 1.0 / ry
    px, py = x * ix, y * iy
    px, py = px * px, py * py
    square = px + py
    slope = px * (ix * ix) + py * (iy * iy)
    return (square - torch.sqrt(square)) * torch.rsqrt(slope + 1e-12)


def circle(x: Tensor, y: Tensor, r: Scalar) -> Tensor:
    return torch.sqrt(x * x + y * y) - r


def box(x: Tensor, y: Tensor, hx: Scalar, hy: Scalar, r: Scalar) -> Tensor:
    """Distance to a box of half-sizes ``hx``, ``hy`` with corners rounded by ``r``."""
    qx = x.abs() - (hx - r)
    qy = y.abs() - (hy - r)
    ox, oy = qx.clamp_min(0.0), qy.clamp_min(0.0)
    return torch.sqrt(ox * ox + oy * oy) + torch.maximum(qx, qy).clamp_max(0.0) - r


def capsule(
    x: Tensor, y: Tensor, ax: Scalar, ay: Scalar, bx: Scalar, by: Scalar, r0: Scalar, r1: Scalar
) -> Tensor:
    """Distance to a rod from a to b whose radius goes from ``r0`` to ``r1``."""
    dx, dy = bx - ax, by - ay
    px, py = x - ax, y - ay
    t = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-6)).clamp(0.0, 1.0)
    gx, gy = px - t * dx, py - t * dy
    return torch.sqrt(gx * gx + gy * gy) - (r0 + t * (r1 - r0))


def smooth_min(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union of two shapes with a fillet of about ``k`` units."""
    h = (k - (a - b).abs()).clamp_min(0.0) / k
    return torch.minimum(a, b) - h * h * (k * 0.25)


def smooth_max(a: Tensor, b: Tensor, k: float) -> Tensor:
    return -smooth_min(-a, -b, k)


def cover(d: Tensor, soft: Scalar) -> Tensor:
    """Coverage 1 inside, 0 outside, with a smooth edge about ``soft`` units wide."""
    t = (0.5 - d / soft).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def gauss(x: Tensor, y: Tensor, sx: Scalar, sy: Scalar) -> Tensor:
    """A soft round spot, 1 in the middle and exactly 0 from twice the radii on (close to a Gaussian, but bounded)."""
    px, py = x / sx, y / sy
    s = (1.0 - 0.25 * (px * px + py * py)).clamp_min(0.0)
    s = s * s
    return s * s


def glow(d: Tensor, reach: float) -> Tensor:
    """Light around a shape: 1 on it, falling to exactly 0 at twice ``reach`` outside."""
    px = d.clamp_min(0.0) / reach
    s = (1.0 - 0.25 * px * px).clamp_min(0.0)
    s = s * s
    return s * s
