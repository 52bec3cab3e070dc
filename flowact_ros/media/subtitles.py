# SPDX-License-Identifier: Apache-2.0
"""Words burnt into a picture: one or two lines in a dark box at its lower edge."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LINES = 2  # of a caption; of a longer one its end is shown, which is what is being said
SIZE = 22  # of a picture of 480 lines, the font's height
INK = {"avatar": (255, 255, 255), "user": (255, 214, 140)}


def burn(rgb: np.ndarray, text: str, side: str) -> np.ndarray:
    """uint8 [H, W, 3] with the words of "avatar" or "user"; the same array if there are none."""
    if not text:
        return rgb
    height, width = rgb.shape[:2]
    box, alpha = _box(text, side, width, height)
    top = height - box.shape[0] - height // 40
    out = rgb.copy()
    part = out[top : top + box.shape[0]].astype(np.uint16)
    out[top : top + box.shape[0]] = (part * (255 - alpha) + box.astype(np.uint16) * alpha) // 255
    return out


@lru_cache(maxsize=32)
def _box(text: str, side: str, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [h, W, 3] and how much of it covers the picture, uint16 [h, W, 1]."""
    font = ImageFont.load_default(size=max(8, SIZE * height // 480))
    lines = wrapped(text, lambda line: font.getlength(line) <= width * 0.9)[-LINES:]
    ascent, descent = font.getmetrics()
    step, margin = ascent + descent, max(2, height // 80)
    drawn = Image.new("RGBA", (width, step * len(lines) + 2 * margin))
    draw = ImageDraw.Draw(drawn)
    widest = max(font.getlength(line) for line in lines)
    left, right = (width - widest) / 2 - 2 * margin, (width + widest) / 2 + 2 * margin
    draw.rounded_rectangle((left, 0, right, drawn.height - 1), radius=2 * margin, fill=(12, 14, 18, 175))
    for at, line in enumerate(lines):
        x = (width - font.getlength(line)) / 2
        draw.text((x, margin + at * step), line, font=font, fill=(*INK[side], 255))
    pixels = np.asarray(drawn)
    return pixels[..., :3], pixels[..., 3:].astype(np.uint16)


def wrapped(text: str, fits) -> list[str]:
    """The text in lines, each of which `fits(line)` if one word does."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and fits(longer):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
