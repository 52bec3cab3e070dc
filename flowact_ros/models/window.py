# SPDX-License-Identifier: Apache-2.0
"""Rectangles of a picture in half cells of the VAE, which its decoder can draw alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

HALF_CELL = 16  # [px] a side


@dataclass(frozen=True)
class Window:
    """Part of a picture in half cells, positions at stride 16: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, cells: Tensor) -> Window:
        """The smallest one with all true cells of bool `[h, w]`; where there is none, the cell in the middle."""
        height, width = cells.shape
        rows, columns = cells.any(1).nonzero().flatten().tolist(), cells.any(0).nonzero().flatten().tolist()
        if not rows:
            rows, columns = [height // 2], [width // 2]
        return cls(2 * rows[0], 2 * rows[-1] + 2, 2 * columns[0], 2 * columns[-1] + 2)

    @classmethod
    def whole(cls, cells: Tensor) -> Window:
        """All of a picture with cells `[..., h, w]`."""
        return cls(0, 2 * cells.shape[-2], 0, 2 * cells.shape[-1])

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        """In half cells."""
        return self.rows * self.columns

    @property
    def cells(self) -> Window:
        """The smallest one of whole cells that holds it."""
        return Window(self.top // 2 * 2, -(-self.bottom // 2) * 2, self.left // 2 * 2, -(-self.right // 2) * 2)

    def grown(self, by: int, within: Window) -> Window:
        """With a border, as far as `within` has room for it."""
        return Window(
            max(within.top, self.top - by),
            min(within.bottom, self.bottom + by),
            max(within.left, self.left - by),
            min(within.right, self.right + by),
        )

    def joined(self, other: Window) -> Window:
        """The smallest one that holds both."""
        return Window(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def of(self, x: Tensor, scale: float = 1.0, inside: Window | None = None, border: int = 0) -> Tensor:
        """The part `[..., rows, columns]` of `x`, which has `scale` values a half cell and covers `inside` (or all).

        border: values on each side that `x` has beyond `inside`; the part has them, too.
        """
        top, left = (inside.top, inside.left) if inside is not None else (0, 0)
        rows = slice(round((self.top - top) * scale), round((self.bottom - top) * scale) + 2 * border)
        return x[..., rows, round((self.left - left) * scale) : round((self.right - left) * scale) + 2 * border]
