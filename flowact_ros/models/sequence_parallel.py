# SPDX-License-Identifier: Apache-2.0
"""One evaluation of the denoiser by two threads: each has half of the tokens of every slot, and in each layer they
exchange keys and values, as sequence parallelism does between GPUs (Li et al. 2021, arXiv 2105.13120).

Threads inside each product and sum, as torch offers them, wait for each other some thousand times a step, and on two
cores make it 1.27 times as fast; here there is one meeting a layer (figures: docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from flowact_ros.models.layers import KeyValue
from flowact_ros.models.mmdit import Context, MMDiT, in_slot
from flowact_ros.models.pair import Pair

LEAST_TOKENS = 40  # of video in all slots: halves of fewer are not worth the meetings


class Exchange:
    """Two ends, in the order of their tokens: each is called with keys and values and returns those of both."""

    def __init__(self) -> None:
        self._boxes: tuple[SimpleQueue[Any], SimpleQueue[Any]] = (SimpleQueue(), SimpleQueue())

    def end(self, place: int) -> Callable[[Tensor, Tensor], KeyValue]:
        """place: 0 or 1."""

        def share(key: Tensor, value: Tensor) -> KeyValue:
            self._boxes[place].put((key, value))
            other = self._boxes[1 - place].get()
            if other is None:
                raise RuntimeError("the other half of the tokens could not be evaluated")
            pairs = ((key, value), other) if place == 0 else (other, (key, value))
            return torch.cat([k for k, _ in pairs], 2), torch.cat([v for _, v in pairs], 2)

        return share

    def leave(self, place: int) -> None:
        """Nothing more comes from this end: the other one does not wait for it."""
        self._boxes[place].put(None)


def evaluate(model: MMDiT, context: Context, tokens: Tensor, sigma: Tensor, pair: Pair | None) -> Tensor:
    """`model.evaluate` without its keys and values, by both threads of `pair` (None: by this one alone).

    Which of them is quicker makes no difference to the result.
    """
    slots, count = tokens.shape[1:3]
    if pair is None or slots * count < LEAST_TOKENS or count < 2 * context.condition.shape[2]:
        return model.evaluate(context, tokens, sigma)[0]
    conditions, exchange = context.condition.shape[2], Exchange()
    middle = (count - conditions) // 2  # the first half has the condition tokens, too
    parts = (conditions, slice(0, middle)), (0, slice(middle, count))

    def half(place: int) -> Tensor:
        conditions, video = parts[place]
        window = replace(context.window, share=exchange.end(place))
        own = _part(replace(context, window=window), slots, conditions, video)
        try:
            return model.evaluate(own, tokens[:, :, video], sigma)[0]
        finally:
            exchange.leave(place)

    return torch.cat(pair(lambda: half(0), lambda: half(1)), 2)


def _part(context: Context, slots: int, conditions: int, video: slice) -> Context:
    """With these video tokens only, and the first `conditions` condition tokens: all of them or none."""
    every = context.condition.shape[2]
    kept = in_slot(torch.arange(video.start, video.stop, device=context.vec.device), every)[every - conditions :]
    cos, sin = (table.unflatten(0, (slots, -1))[:, kept].flatten(0, 1) for table in context.window.rotary)
    return replace(
        context,
        still=context.still[:, :, video],
        place=context.place[video],
        condition=context.condition[:, :, :conditions],
        window=replace(context.window, rotary=(cos, sin)),
    )
