# SPDX-License-Identifier: Apache-2.0
"""Figures of pictures: fidelity, sharpness and movement of pixels. Pure functions of arrays, without networks.

Frames are uint8 `[T, 3, H, W]`, boxes float `[T, 4]` in pixels (x0 y0 x1 y1).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.evaluation.metrics import MetricError

_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
Boxes = np.ndarray | Tensor


def luma(frames: Tensor) -> Tensor:
    """uint8 `[T, 3, H, W]` -> float `[T, 1, H, W]`, 0 .. 255."""
    return (frames.float() * _LUMA.to(frames.device)).sum(1, keepdim=True)


def _inside(frame: Tensor, box: np.ndarray | Tensor) -> Tensor:
    x0, y0, x1, y1 = (int(round(float(v))) for v in box)
    return frame[..., max(y0, 0) : y1, max(x0, 0) : x1]


def psnr(a: Tensor, b: Tensor, boxes: Boxes | None = None) -> float:
    """Peak signal-to-noise ratio [dB] over all pixels, or over those inside one box a frame. Equal frames give 99."""
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
        raise MetricError(
            f"frames are {list(a.shape)} and {list(b.shape)}; two equal [T, 3, H, W] are needed"
        )
    total, count = 0.0, 0
    for k in range(len(a)):
        x, y = (a[k], b[k]) if boxes is None else (_inside(a[k], boxes[k]), _inside(b[k], boxes[k]))
        total += float((x.float() - y.float()).square().sum())
        count += x.numel()
    if not count:
        raise MetricError("the boxes hold no pixel")
    return 99.0 if total == 0 else min(99.0, 10 * float(np.log10(255.0**2 * count / total)))


def frame_psnrs(a: Tensor, b: Tensor, boxes: Boxes | None = None) -> np.ndarray:
    """`psnr` of each frame by itself, `[T]` [dB]."""
    inside = [None] * len(a) if boxes is None else boxes[:, None]
    return np.array([psnr(x[None], y[None], box) for x, y, box in zip(a, b, inside, strict=True)])


def mean_db(values: np.ndarray) -> float:
    """The PSNR [dB] of the mean squared error of pictures with these PSNRs."""
    return float(-10 * np.log10(np.mean(10 ** (-np.asarray(values) / 10))))


def worst_tenth(values: np.ndarray) -> float:
    """`mean_db` of the tenth (at least one) of the pictures that are worst: what is seen to go wrong now and then."""
    return mean_db(np.sort(values)[: max(1, len(values) // 10)])


def edges(frames: Tensor, boxes: Boxes) -> np.ndarray:
    """Mean size of the luma's gradient inside one box a frame, `[T]`: low where a picture is smeared."""
    out = []
    for frame, box in zip(frames, boxes, strict=True):
        part = luma(_inside(frame, box)[None])[0, 0]
        if min(part.shape) < 3:
            raise MetricError(
                f"a box of {part.shape[1]} x {part.shape[0]} pixels has no edges; 3 x 3 are needed"
            )
        across, down = part[1:, 1:] - part[1:, :-1], part[1:, 1:] - part[:-1, 1:]
        out.append(float(torch.hypot(across, down).mean()))
    return np.array(out)


def edge_ratio(frames: Tensor, boxes: Boxes, true: Tensor, true_boxes: Boxes) -> float:
    """Gradients ÷ those of the true frames, each in its own boxes."""
    return float(edges(frames, boxes).mean() / edges(true, true_boxes).mean())


def reduced(frames: Tensor, side: int = 128) -> Tensor:
    """Luma `[T, 1, side, side]`, area-averaged."""
    parts = []
    for part in frames.split(16):
        value = luma(part)
        parts.append(F.interpolate(value, (side, side), mode="area") if value.shape[-2] > side else value)
    return torch.cat(parts)


def movement(frames: Tensor, side: int = 128) -> float:
    """Mean absolute change of the luma from frame to frame, on small pictures; 0 for frozen ones."""
    small = reduced(frames, side)
    return float((small[1:] - small[:-1]).abs().mean()) if len(small) > 1 else 0.0


def flicker(frames: Tensor, side: int = 128) -> float:
    """Mean absolute second difference of the luma in time: what trembles rather than moves."""
    small = reduced(frames, side)
    return float((small[2:] - 2 * small[1:-1] + small[:-2]).abs().mean()) if len(small) > 2 else 0.0
