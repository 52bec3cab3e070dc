# SPDX-License-Identifier: Apache-2.0
"""Convolutions over a part of a picture, with what is known of the rest around it.

At the borders of a window a convolution of 3 x 3 sees one position more. What is there is taken from a picture that
was drawn before and is the same where nothing moves, as sparse convolutions over changes between pictures do
(DeltaCNN, Parger et al. 2022, arXiv 2203.03996), here for one rectangle, which dense kernels can do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.models.window import Window

Conv = Callable[[Tensor, int], Tensor]  # features and padding (1: same size out; 0: two less) -> features
See = Callable[[Conv, Tensor], Tensor]  # `conv` of what a layer sees: the activation of features `[n, C, h, w]`


def plainly(conv: Conv, x: Tensor) -> Tensor:
    """A `See` for whole pictures: zeros around them."""
    return conv(F.silu(x), 1)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the convolutions of a network saw of `box`, in their order: `[1, C, rows + 2, columns + 2]` each."""

    box: Window
    seen: Sequence[Tensor]


class Arriving(Sequence[Tensor]):
    """What a network sees while it runs, for another thread: an item that has not come yet is waited for."""

    def __init__(self) -> None:
        self._items: list[Tensor] = []
        self._changed = threading.Condition()
        self._ended = False

    def add(self, item: Tensor) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more comes: nobody waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        with self._changed:
            self._changed.wait_for(lambda: self._ended or index < len(self._items))
            return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


class Inside:
    """A `See` for features of `window`.

    around: what lies around the window; None: zeros, as around a whole picture
    keep:   the part of the window whose surroundings are wanted
    seen:   those, of the first picture; may be read while the network runs, and then must be ended with it
    """

    def __init__(self, window: Window, around: Surroundings | None = None, keep: Window | None = None) -> None:
        self._window, self._around, self._keep, self._calls = window, around, keep, 0
        self._seen = Arriving()

    def __call__(self, conv: Conv, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        scale = height / self._window.rows
        shape = (n, channels, height + 2, width + 2)
        canvas = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        ground = None
        if self._around is not None:
            ground = self._window.of(self._around.seen[self._calls], scale, self._around.box, border=1)
        for edge in (0, -1):
            canvas[..., edge, :] = 0.0 if ground is None else ground[..., edge, :]
            canvas[..., edge] = 0.0 if ground is None else ground[..., edge]
        torch.ops.aten.silu.out(x, out=canvas[..., 1:-1, 1:-1])
        self._calls += 1
        if self._keep is not None:
            self._seen.add(self._keep.of(canvas[:1], scale, self._window, border=1))
        return conv(canvas, 0)

    def end(self) -> None:
        """The network is through, or will never be: nobody waits for more of `seen`."""
        self._seen.end()

    @property
    def seen(self) -> Surroundings:
        return Surroundings(self._keep or self._window, self._seen)
