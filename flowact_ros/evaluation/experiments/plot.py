# SPDX-License-Identifier: Apache-2.0
"""Plots of experiments: panels of dots with their intervals, curves, and matrices of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowact_ros.evaluation.sheets import COLOURS

ACROSS = 3  # panels side by side
WIDTH, LINE, HEAD, FOOT = 250, 17, 24, 24  # pixels of a panel: width, height of a row, of its title, of its axis
NAMES = 190  # pixels for the rows' names, left of each line of panels
MARGIN = 12
INK, PALE = (20, 20, 20), (190, 190, 190)


@dataclass(frozen=True)
class Dot:
    """A row of a panel; low, high may be NaN. reference: the row that others are compared with."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    reference: bool = False


@dataclass(frozen=True)
class Panel:
    """One figure. truth: where a grey line is drawn."""

    title: str
    dots: Sequence[Dot]
    truth: float | None = None
    digits: int = 2


@dataclass(frozen=True)
class Curve:
    """values: at 1, 2, 3 …; NaN leaves a gap."""

    name: str
    values: Sequence[float]


def panels(path: Path, title: str, made: Sequence[Panel]) -> None:
    """All panels as a PNG, rows with the same names below each other."""
    names = list(dict.fromkeys(dot.name for panel in made for dot in panel.dots))
    font = ImageFont.load_default(12)
    height = HEAD + LINE * len(names) + FOOT
    lines = math.ceil(len(made) / ACROSS)
    page = Image.new("RGB", (NAMES + ACROSS * WIDTH + MARGIN, 30 + lines * height), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 8), title, fill=INK, font=font)
    for i, panel in enumerate(made):
        left, top = NAMES + (i % ACROSS) * WIDTH, 30 + (i // ACROSS) * height
        if i % ACROSS == 0:
            for k, name in enumerate(names):
                draw.text((MARGIN, top + HEAD + k * LINE), name, fill=INK, font=font)
        _panel(draw, font, panel, names, left, top)
    page.quantize(32).save(path, optimize=True)


def _panel(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, panel: Panel, names: Sequence[str], left: int, top: int
) -> None:
    draw.text((left + 4, top + 6), panel.title, fill=INK, font=font)
    ends = [v for d in panel.dots for v in (d.value, d.low, d.high) if math.isfinite(v)]
    if panel.truth is not None:
        ends.append(panel.truth)
    if not ends:
        draw.text((left + 4, top + HEAD), "not measured", fill=PALE, font=font)
        return
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    low, high = low - room, high + room
    inner, bottom = WIDTH - 24, top + HEAD + LINE * len(names)

    def across(value: float) -> float:
        return left + 8 + inner * (value - low) / (high - low)

    draw.rectangle([left + 8, top + HEAD, left + 8 + inner, bottom], outline=PALE)
    if panel.truth is not None:
        draw.line([(across(panel.truth), top + HEAD), (across(panel.truth), bottom)], fill=PALE, width=3)
    for value in (low + room, high - room):
        text = f"{value:.{panel.digits}f}"
        x = min(max(across(value) - 3 * len(text), left + 8), left + 8 + inner - 7 * len(text))
        draw.text((x, bottom + 4), text, fill=INK, font=font)
    for dot in panel.dots:
        if not math.isfinite(dot.value):
            continue
        y = top + HEAD + LINE * names.index(dot.name) + LINE // 2
        colour = COLOURS[2] if dot.reference else COLOURS[1]
        if math.isfinite(dot.low):
            draw.line([(across(dot.low), y), (across(dot.high), y)], fill=colour, width=2)
        x = across(dot.value)
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)


def matrices(path: Path, title: str, names: Sequence[str], shares: Sequence[tuple[str, np.ndarray]]) -> None:
    """Square matrices `[N, N]` of shares of a row (0 … 1) side by side: row: what is, column: what it is taken for."""
    font, cell, label = ImageFont.load_default(12), 58, 80
    side = label + cell * len(names) + MARGIN
    page = Image.new("RGB", (side * len(shares), side), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 8), title, fill=INK, font=font)
    for m, (name, share) in enumerate(shares):
        left, top = m * side + label, 60
        draw.text((left, 28), name, fill=INK, font=font)
        for i, row in enumerate(names):
            draw.text((left - label + MARGIN, top + i * cell + cell // 2 - 8), row, fill=INK, font=font)
            draw.text((left + i * cell + 2, top - 15), row, fill=INK, font=font)
            for j in range(len(names)):
                value = float(share[i, j])
                shade = 255 if math.isnan(value) else round(255 * (1 - 0.8 * value))
                box = [left + j * cell, top + i * cell, left + (j + 1) * cell - 1, top + (i + 1) * cell - 1]
                draw.rectangle(box, fill=(shade, shade, 255))
                if value >= 0.005:
                    text = f"{100 * value:.0f}"
                    draw.text((box[0] + cell // 2 - 3 * len(text), box[1] + cell // 2 - 8), text, fill=INK, font=font)
    page.quantize(64).save(path, optimize=True)


def curves(path: Path, title: str, made: Sequence[Curve]) -> None:
    """Curves over 1, 2, 3 … as a PNG, in a range that holds them all."""
    font, left, top, right, bottom = ImageFont.load_default(12), 60, 30, 560, 320
    values = [v for curve in made for v in curve.values if math.isfinite(v)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.1
    low, high, last = low - room, high + room, max(len(curve.values) for curve in made)

    def at(place: int, value: float) -> tuple[float, float]:
        return left + (right - left) * place / max(1, last - 1), bottom - (bottom - top) * (value - low) / (high - low)

    page = Image.new("RGB", (right + 200, bottom + 40), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 8), title, fill=INK, font=font)
    draw.rectangle([left, top, right, bottom], outline=PALE)
    for place in range(0, last, max(1, last // 10)):
        draw.text((at(place, low)[0] - 4, bottom + 6), str(place + 1), fill=INK, font=font)
    for value in (low + room, (low + high) / 2, high - room):
        draw.text((8, at(0, value)[1] - 7), f"{value:.3g}", fill=INK, font=font)
    for k, curve in enumerate(made):
        colour = COLOURS[k % len(COLOURS)]
        points = [at(i, v) for i, v in enumerate(curve.values) if math.isfinite(v)]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
        draw.text((right + 12, top + 18 * k), curve.name, fill=colour, font=font)
    page.save(path)
