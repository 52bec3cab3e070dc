# SPDX-License-Identifier: Apache-2.0
"""Measures of pictures, lips and drift: pure functions of arrays, without networks.

Frames are uint8 `[T, 3, H, W]`, boxes float `[T, 4]` in pixels (x0 y0 x1 y1), curves float `[T]` at 25/s, sound float32
at 24 kHz. None of them means anything alone: every figure is read beside the truth's and beside a control that must
fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
STATISTICS = ("luma", "contrast", "saturation", "sharpness")
END_SHARE = 0.15  # drift compares the first and the last 15 % (start-end contrast, arXiv 2504.12626)


class MetricError(ValueError):
    """Inputs that do not fit together, with their sizes."""


def _same(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
        raise MetricError(
            f"frames are {list(a.shape)} and {list(b.shape)}; two equal [T, 3, H, W] are needed"
        )


# ---------------------------------------------------------------- pictures


def psnr(a: Tensor, b: Tensor, boxes: np.ndarray | Tensor | None = None) -> float:
    """Peak signal-to-noise ratio [dB] over all pixels, or over those inside one box a frame. Equal frames give 99."""
    _same(a, b)
    total, count = 0.0, 0
    for k in range(len(a)):
        x, y = a[k], b[k]
        if boxes is not None:
            x0, y0, x1, y1 = (int(round(float(v))) for v in boxes[k])
            x, y = x[:, y0:y1, x0:x1], y[:, y0:y1, x0:x1]
        total += float((x.float() - y.float()).square().sum())
        count += x.numel()
    if not count:
        raise MetricError("the boxes hold no pixel")
    return 99.0 if total == 0 else min(99.0, 10 * float(np.log10(255.0**2 * count / total)))


def luma(frames: Tensor) -> Tensor:
    """uint8 `[T, 3, H, W]` -> float `[T, 1, H, W]`, 0 .. 255."""
    return (frames.float() * _LUMA.to(frames.device)).sum(1, keepdim=True)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of the luma, mean over frames (Wang et al. 2004: 11 x 11 window, sigma 1.5)."""
    _same(a, b)
    taps = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for k in range(len(a)):
        x, y = luma(a[k : k + 1]), luma(b[k : k + 1])
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        s = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        values.append(float(s.mean()))
    return float(np.mean(values))


def differences(frames: Tensor, side: int = 128) -> np.ndarray:
    """Mean absolute change of the luma from frame to frame, on pictures reduced to `side` lines: float `[T - 1]`."""
    small = reduced(frames, side)
    return (small[1:] - small[:-1]).abs().mean((1, 2, 3)).numpy()


def reduced(frames: Tensor, side: int = 128) -> Tensor:
    """Luma `[T, 1, side, side']`, area-averaged."""
    parts = []
    for part in frames.split(16):
        value = luma(part)
        width = max(1, round(side * value.shape[-1] / value.shape[-2]))
        parts.append(F.interpolate(value, (side, width), mode="area") if value.shape[-2] > side else value)
    return torch.cat(parts)


def motion_energy(changes: np.ndarray) -> float:
    """Mean of `differences`: 0 for frozen frames, large for jitter."""
    return float(np.mean(changes)) if len(changes) else 0.0


def boundary_jump(changes: np.ndarray, boundaries: Iterable[int]) -> float:
    """Median change into the first frames of chunks, over the median change elsewhere; 1 where no seam can be seen.

    changes: `differences`, so that changes[k - 1] leads into frame k; boundaries: first frames of chunks.
    """
    at = sorted({k - 1 for k in boundaries if 1 <= k <= len(changes)})
    inside = np.delete(changes, at)
    if not at or not len(inside):
        raise MetricError(f"{len(at)} boundaries in {len(changes)} changes; both kinds are needed")
    return float(np.median(changes[at]) / max(float(np.median(inside)), 1e-6))


# ---------------------------------------------------------------- drift


def statistics(frames: Tensor) -> np.ndarray:
    """float `[T, 4]` in the order of STATISTICS: mean luma, its deviation, mean saturation, mean edge strength."""
    rows = []
    for part in frames.split(16):
        grey = luma(part)
        saturation = (part.amax(1).float() - part.amin(1).float()).mean((1, 2))
        laplacian = (
            4 * grey[..., 1:-1, 1:-1]
            - grey[..., :-2, 1:-1]
            - grey[..., 2:, 1:-1]
            - grey[..., 1:-1, :-2]
            - grey[..., 1:-1, 2:]
        )
        rows.append(
            torch.stack(
                [grey.mean((1, 2, 3)), grey.std((1, 2, 3)), saturation, laplacian.abs().mean((1, 2, 3))], 1
            )
        )
    return torch.cat(rows).numpy()


def detail(frames: Tensor, boxes: np.ndarray | Tensor) -> float:
    """Mean edge strength (Laplacian of the luma) inside one box a frame: low for smeared faces, high for noisy ones."""
    values = []
    for frame, box in zip(frames, boxes, strict=True):
        x0, y0, x1, y1 = (int(round(float(v))) for v in box)
        part = frame[None, :, y0:y1, x0:x1]
        if min(part.shape[-2:]) < 3:
            raise MetricError(f"a box of {x1 - x0} x {y1 - y0} pixels has no edges; 3 x 3 are needed")
        values.append(statistics(part)[0, STATISTICS.index("sharpness")])
    return float(np.mean(values))


def ends(values: np.ndarray, share: float = END_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Means over the first and the last `share` of the rows."""
    if len(values) < 2:
        raise MetricError(f"drift needs at least 2 values, got {len(values)}")
    count = max(1, round(share * len(values)))
    return values[:count].mean(0), values[-count:].mean(0)


def drift(values: np.ndarray) -> dict[str, float]:
    """Relative change from the first 15 % to the last 15 % of each of STATISTICS, and the largest as "worst"."""
    first, last = ends(values)
    change = np.abs(last - first) / np.maximum(np.abs(first), 1e-6)
    out = {name: float(value) for name, value in zip(STATISTICS, change, strict=True)}
    return {**out, "worst": max(out.values())}


def pooled(latents: Tensor, side: int = 2) -> Tensor:
    """Latents `[N, C, h, w]` -> `[N, C * side * side]`: what identity is compared on.

    Two by two fields: with four by four the turn of the head counts for as much as who turns it.
    """
    return F.adaptive_avg_pool2d(latents.float(), side).flatten(1)


def cosines(latents: Tensor, reference: Tensor, everyone: Tensor | None = None) -> np.ndarray:
    """Cosine of each pooled latent `[N, C, h, w]` to the pooled reference `[C, h, w]`: float `[N]`.

    everyone: latents `[M, C, h, w]` of many characters; what they have in common is taken away first, so that a
    stranger lies near 0 instead of near 1.
    """
    common = 0.0 if everyone is None else pooled(everyone).mean(0, keepdim=True)
    return F.cosine_similarity(pooled(latents) - common, pooled(reference[None]) - common).numpy()


# ---------------------------------------------------------------- lips


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 when one of them does not move."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise MetricError(f"curves are {list(a.shape)} and {list(b.shape)}; two equal [T] are needed")
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 0.0 if scale < 1e-12 else float((a * b).sum() / scale)


@dataclass(frozen=True)
class Lag:
    """Where the cross-correlation is highest. seconds > 0: the first curve comes after the second."""

    seconds: float
    correlation: float


def best_lag(pairs: Sequence[tuple[np.ndarray, np.ndarray]], most_s: float = 0.4) -> Lag:
    """Lag of the first curves against the second over all pairs together, to a fraction of a frame (parabolic peak).

    NaN seconds when a curve does not move.
    """
    reach = round(most_s * FRAME_RATE)
    values = []
    for lag in range(-reach, reach + 1):
        xy = xx = yy = 0.0
        for a, b in pairs:
            count = len(a) - abs(lag)
            if len(a) != len(b) or count < 2:
                raise MetricError(
                    f"curves of {len(a)} and {len(b)} frames; two equal, longer than {reach + 1}, are needed"
                )
            x = np.asarray(a[max(lag, 0) : max(lag, 0) + count], np.float64)
            y = np.asarray(b[max(-lag, 0) : max(-lag, 0) + count], np.float64)
            x, y = x - x.mean(), y - y.mean()
            xy, xx, yy = xy + float(x @ y), xx + float(x @ x), yy + float(y @ y)
        values.append(xy / np.sqrt(xx * yy) if xx * yy > 1e-20 else 0.0)
    k = int(np.argmax(values))
    if not any(values):
        return Lag(float("nan"), 0.0)
    shift = 0.0
    if 0 < k < len(values) - 1:
        before, peak, after = values[k - 1 : k + 2]
        bend = before - 2 * peak + after
        shift = 0.5 * (before - after) / bend if bend < -1e-12 else 0.0
    return Lag(float(k - reach + shift) / FRAME_RATE, float(values[k]))


def loudness(pcm: np.ndarray, frames: int, window_s: float = 0.08) -> np.ndarray:
    """Loudness around the middle of each frame, float `[frames]`: root of the effective value (Stevens' law)."""
    half = round(window_s * SAMPLE_RATE / 2)
    power = np.concatenate([[0.0], np.cumsum(np.asarray(pcm, np.float64) ** 2)])
    middle = ((np.arange(frames) + 0.5) * SAMPLE_RATE / FRAME_RATE).astype(int)
    low, high = np.clip(middle - half, 0, len(pcm)), np.clip(middle + half, 0, len(pcm))
    mean = np.maximum(power[high] - power[low], 0.0) / (2 * half)
    return mean**0.25


def silence(pcm: np.ndarray, frames: int, *, least_s: float = 0.3, below_db: float = -35.0) -> np.ndarray:
    """bool `[frames]`: nothing is said, and has not been for 0.2 s, nor will be for 0.12 s (lips need so long).

    Only stretches of `least_s` or more count. A frame is quiet when it lies `below_db` under the loud ones.
    """
    level = loudness(pcm, frames, 0.04) ** 2
    loud = float(np.percentile(level, 95)) if frames else 0.0
    return settled(level < max(loud * 10 ** (below_db / 20), 1e-4), least_s)


def settled(quiet: np.ndarray, least_s: float = 0.3) -> np.ndarray:
    """Stretches of `quiet` bool `[T]` of `least_s` or more, without 0.2 s at their start and 0.12 s at their end."""
    out = np.zeros(len(quiet), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= round(least_s * FRAME_RATE):
            first = start + (5 if start > 0 else 0)
            last = end - (3 if end < len(quiet) else 0)
            out[first:last] = True
    return out


def stillness(opening: np.ndarray, still: np.ndarray) -> float:
    """Deviation of the opening within the stretches of `still`, about each stretch's own mean; lower is calmer."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    parts = [
        opening[a:b] - opening[a:b].mean() for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1
    ]
    if not parts:
        return float("nan")
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))
