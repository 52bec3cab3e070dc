# SPDX-License-Identifier: Apache-2.0
"""Evaluations of the denoiser where something moves.

In reference-relative latents most of a picture is nearly zero, and known after the first evaluation of a chunk; more
evaluations refine the face. So what the first one leaves in its place stays there, exactly, and is left out of the
others, as in region-adaptive sampling (Liu et al. 2025, arXiv 2502.10389), but without its cache: keeping keys and
values of the tokens that are left out did not bring the result nearer to that of evaluating all (docs/decisions.md).
Nor does the first one look at all tokens each time: those of a wall never move, and `MemoryBank.lively` knows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.mmdit import Context, MMDiT, moving, patchify, unpatchify
from flowact_ros.models.pair import Pair
from flowact_ros.models.sequence_parallel import evaluate


class Settling:
    """The `predict` of one chunk of one stream: the first call evaluates all tokens, later ones those that move.

    A token moves if the first call's clean latents are `settled` or more there in the mean of a channel, in any slot.
    The others are zero in what is returned: the reference. pair: threads for it, see `models.sequence_parallel`.
    lively: the only tokens `[P']` that may move; None: all may.
    """

    def __init__(
        self,
        model: MMDiT,
        context: Context,
        settled: float,
        pair: Pair | None = None,
        lively: Tensor | None = None,
    ) -> None:
        self._model, self._settled, self._pair = model, settled, pair
        self._whole = self._context = context
        self._moving, self._first = lively, True
        if lively is not None:
            self._context = context.only(lively)

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """noisy `[1, S, C, h, w]` at levels sigma `[1, S]` -> clean, of the same shape."""
        config = self._model.config
        tokens = patchify(noisy, config.mmdit.patch)
        clean = torch.zeros_like(tokens)
        if self._moving is None or len(self._moving):
            here = slice(None) if self._moving is None else self._moving
            made = self._evaluate(tokens[:, :, here], sigma)
            if self._first:
                moves = moving(made, self._settled)
                made = made[:, :, moves]
                self._moving = moves if self._moving is None else self._moving[moves]
                self._context, self._first = self._whole.only(self._moving), False
            clean[:, :, self._moving] = made
        return unpatchify(clean, config.mmdit.patch, config.grid)

    def _evaluate(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        return evaluate(self._model, self._context, tokens, sigma, self._pair)
