# SPDX-License-Identifier: Apache-2.0
"""Rectangles of a picture in half cells of the VAE, which its decoder can draw alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

HALF_CELL = 16  # [px] a side
HALO = 2  # [half cells] drawn around a window and thrown away: what its borders cannot see is not shown


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

    def grown(self, by: int, within: Window) -> Window:
        """With a border, as far as `within` has room for it."""
        return Window(
            max(within.top, self.top - by),
            min(within.bottom, self.bottom + by),
            max(within.left, self.left - by),
            min(within.right, self.right + by),
        )

    def wide(self, within: Window) -> Window:
        """What has to be known at stride 16, in whole cells, to draw it."""
        grown = self.grown(HALO, within)
        return Window(
            grown.top // 2 * 2, -(-grown.bottom // 2) * 2, grown.left // 2 * 2, -(-grown.right // 2) * 2
        )

    def of(self, x: Tensor, scale: float = 1.0, inside: Window | None = None) -> Tensor:
        """The part `[..., rows, columns]` of `x`, which has `scale` values a half cell and covers `inside` (or all)."""
        top, left = (inside.top, inside.left) if inside is not None else (0, 0)
        rows = slice(round((self.top - top) * scale), round((self.bottom - top) * scale))
        return x[..., rows, round((self.left - left) * scale) : round((self.right - left) * scale)]
