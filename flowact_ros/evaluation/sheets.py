# SPDX-License-Identifier: Apache-2.0
"""Contact sheets and curves, to look at: a figure that contradicts the picture is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.data.characters import NAMED, neutral_picture
from flowact_ros.engine.interfaces import Pipeline
from flowact_ros.evaluation.generate import generate
from flowact_ros.evaluation.recognition import NINE, all_nine, behaviour_of

SHEET_COLUMNS = 8
CELL = 176  # pixels of one picture
LABEL = 76  # pixels beside a row
COLOURS = ((20, 20, 20), (40, 110, 220), (220, 60, 40), (150, 150, 150))


def small(frames: Tensor, side: int = CELL) -> Tensor:
    """uint8 `[T, 3, H, W]` -> `[T, 3, side, side]`."""
    return (
        F.interpolate(frames.float(), (side, side), mode="bilinear", antialias=True).round().to(torch.uint8)
    )


def sheet(path: Path, rows: Sequence[tuple[str, Tensor]]) -> None:
    """One row of small frames `[N, 3, side, side]` a label, under each other."""
    count = max(len(frames) for _, frames in rows)
    side = rows[0][1].shape[-1]
    page = Image.new("RGB", (LABEL + count * side, len(rows) * side), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for r, (label, frames) in enumerate(rows):
        draw.multiline_text((4, r * side + side // 2 - 12), label.replace(" ", "\n"), fill=(0, 0, 0))
        for c, frame in enumerate(frames):
            page.paste(
                Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()), (LABEL + c * side, r * side)
            )
    page.save(path)


def curves(path: Path, rows: Sequence[tuple[str, dict[str, np.ndarray]]], frames: int = 250) -> None:
    """Curves over time, one panel a row; the names of the curves in their colours in front."""
    width, height = 4 * frames, 110
    page = Image.new("RGB", (LABEL * 2 + width, len(rows) * height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for r, (label, lines) in enumerate(rows):
        bottom = (r + 1) * height - 8
        top = max(1e-6, max(float(values[:frames].max()) for values in lines.values()))
        draw.text((4, r * height + 4), label, fill=(0, 0, 0))
        draw.line([(LABEL * 2, bottom), (LABEL * 2 + width, bottom)], fill=(200, 200, 200))
        for i, (name, values) in enumerate(lines.items()):
            colour = COLOURS[i % len(COLOURS)]
            draw.text((4, r * height + 22 + 14 * i), name, fill=colour)
            points = [
                (LABEL * 2 + 4 * k, bottom - (height - 16) * float(v) / top)
                for k, v in enumerate(values[:frames])
            ]
            draw.line(points, fill=colour, width=2)
    page.save(path)


def behaviour_sheet(pipeline: Pipeline, character: str, path: Path, seed: int = 0) -> None:
    """A page of a named character: a row a behaviour, frames at equal distances from half a second after it began."""
    performance = all_nine(seed, "validation")
    picture = neutral_picture(NAMED[character], pipeline.height)
    frames, motion = generate(pipeline, picture, performance.pcm, performance.instruction, seed)
    ends = [start for start, _ in performance.kinds[1:]] + [len(motion)]
    wanted: dict[int, tuple[int, int]] = {}
    for (start, kind), end in zip(performance.kinds, ends, strict=True):
        for column, k in enumerate(
            np.linspace(start + 12, min(end, len(motion)) - 1, SHEET_COLUMNS).astype(int)
        ):
            wanted[int(k)] = (NINE.index(behaviour_of(kind)), column)
    rows = torch.zeros(len(NINE), SHEET_COLUMNS, 3, CELL, CELL, dtype=torch.uint8)
    for k, frame in enumerate(frames):
        if k in wanted:
            rows[wanted[k]] = small(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None])[0]
    sheet(path, [(kind.replace("_", " "), row) for kind, row in zip(NINE, rows, strict=True)])
