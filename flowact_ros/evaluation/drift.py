# SPDX-License-Identifier: Apache-2.0
"""Does the motion of a long stream drift? The first minute against later ones, beside minutes of the truth.

A minute is its windows of ten seconds, those of all streams together: means and spreads of the body's controls. Two
minutes are compared by the Fréchet distance of their windows. The distance of two minutes of the truth, drawn again and
again, says how far apart minutes are that nothing has drifted between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from flowact_ros.evaluation.long_motion import Long
from flowact_ros.evaluation.sheets import COLOURS
from flowact_ros.models.codec.motion_statistics import MetricError, frechet, window_features
from flowact_ros.timebase import FRAME_RATE

MINUTE = 60 * FRAME_RATE
DRAWS = 200  # pairs of true minutes


@dataclass(frozen=True)
class Row:
    """minutes: that were compared with the first; distance: of each."""

    name: str
    minutes: list[int]
    distance: list[float]


def minutes_of(streams: Sequence[Long]) -> list[np.ndarray]:
    """Window features `[N, F]` of every whole minute, of all streams together."""
    count = min(len(s.motion) for s in streams) // MINUTE
    if count < 2:
        raise MetricError(
            f"streams of {min(len(s.motion) for s in streams)} frames; two minutes or more are needed"
        )
    return [
        np.concatenate([window_features(s.motion[k * MINUTE : (k + 1) * MINUTE]) for s in streams])
        for k in range(count)
    ]


def drift_row(name: str, streams: Sequence[Long]) -> Row:
    """Distances of all minutes after the first from it."""
    minutes = minutes_of(streams)
    return Row(name, list(range(2, len(minutes) + 1)), [frechet(minutes[0], m) for m in minutes[1:]])


def truth_distances(streams: Sequence[Long], seed: int = 0) -> np.ndarray:
    """Distances `[DRAWS]` of two different minutes of the truth."""
    minutes, rng = minutes_of(streams), np.random.default_rng(seed)
    pairs = [rng.choice(len(minutes), 2, replace=False) for _ in range(DRAWS)]
    known = {(a, b): frechet(minutes[a], minutes[b]) for a, b in {(min(p), max(p)) for p in pairs}}
    return np.array([known[min(p), max(p)] for p in pairs])


def table(rows: Sequence[Row], truth: np.ndarray) -> str:
    """For people."""
    low, middle, high = np.percentile(truth, [5, 50, 95])
    lines = [f"two minutes of the truth are {middle:.2f} apart (5 to 95 %: {low:.2f} to {high:.2f})"]
    for row in rows:
        parts = [f"minute {m}: {d:.2f}" for m, d in zip(row.minutes, row.distance)]
        lines.append(f"{row.name}, from minute 1 to " + ", ".join(parts))
    return "\n".join(lines)


def plot(path: Path, rows: Sequence[Row], truth: np.ndarray) -> None:
    """Distances by minute as a PNG, with the truth's range (5 to 95 %) as a grey band."""
    low, high = (float(x) for x in np.percentile(truth, [5, 95]))
    top = 1.1 * max(high, *(d for row in rows for d in row.distance))
    last = max(m for row in rows for m in row.minutes)
    width, height, left, bottom = 720, 360, 60, 320

    def at(minute: float, distance: float) -> tuple[float, float]:
        return left + (width - left - 20) * (minute - 1) / (last - 1), bottom - (bottom - 30) * distance / top

    page = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.rectangle([at(1, high), at(last, low)], fill=(220, 220, 220))
    draw.line([at(1, top), at(1, 0), at(last, 0)], fill=(0, 0, 0))
    for minute in range(2, last + 1, max(1, last // 10)):
        draw.text((at(minute, 0)[0] - 4, bottom + 6), str(minute), fill=(0, 0, 0))
    for distance in (0.0, top / 2, top):
        draw.text((8, at(1, distance)[1] - 6), f"{distance:.1f}", fill=(0, 0, 0))
    draw.text(
        (left, 4), "Distance from minute 1, by minute; grey: two minutes of the truth", fill=(0, 0, 0)
    )
    for k, row in enumerate(rows):
        points = [at(m, d) for m, d in zip(row.minutes, row.distance, strict=True)]
        draw.line(points, fill=COLOURS[k % len(COLOURS)], width=2)
        draw.text((left + 10 + 200 * k, bottom + 22), row.name, fill=COLOURS[k % len(COLOURS)])
    page.save(path)
