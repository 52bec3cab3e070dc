# SPDX-License-Identifier: Apache-2.0
"""Evaluations of the denoiser where something moves.

In reference-relative latents most of a picture is nearly zero, and known after the first evaluation of a chunk; more
evaluations refine the face. So what the first one leaves in its place stays there, exactly, and is left out of the
others, as in region-adaptive sampling (Liu et al. 2025, arXiv 2502.10389), but without its cache: keeping keys and
values of the tokens that are left out did not bring the result nearer to that of evaluating all (docs/decisions.md).
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
    """

    def __init__(self, model: MMDiT, context: Context, settled: float, pair: Pair | None = None) -> None:
        self._model, self._context, self._settled, self._pair = model, context, settled, pair
        self._moving: Tensor | None = None  # indices [P']

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """noisy `[1, S, C, h, w]` at levels sigma `[1, S]` -> clean, of the same shape."""
        config = self._model.config
        tokens = patchify(noisy, config.mmdit.patch)
        clean = torch.zeros_like(tokens)
        if self._moving is None:
            made = self._evaluate(tokens, sigma)
            self._moving = moving(made, self._settled)
            self._context = self._context.only(self._moving)
            clean[:, :, self._moving] = made[:, :, self._moving]
        elif len(self._moving):
            clean[:, :, self._moving] = self._evaluate(tokens[:, :, self._moving], sigma)
        return unpatchify(clean, config.mmdit.patch, config.grid)

    def _evaluate(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        return evaluate(self._model, self._context, tokens, sigma, self._pair)
