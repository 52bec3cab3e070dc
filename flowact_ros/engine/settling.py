# SPDX-License-Identifier: Apache-2.0
"""Evaluations of the denoiser where something moves.

In reference-relative latents most of a picture is zero and known after the first evaluation of a chunk; more
evaluations refine the face. So what the first one leaves in its place is left out of the others, as in region-adaptive
sampling (Liu et al. 2025, arXiv 2502.10389), but without its cache: keeping keys and values of the tokens that are
left out did not bring the result nearer to that of evaluating all (docs/decisions.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.mmdit import Context, MMDiT, moving, patchify, unpatchify


class Settling:
    """The `predict` of one chunk of one stream: the first call evaluates all tokens, later ones those that move.

    A token moves if the first call's clean latents are `settled` or more there in the mean of a channel, in any slot.
    """

    def __init__(self, model: MMDiT, context: Context, settled: float) -> None:
        self._model, self._context, self._settled = model, context, settled
        self._clean: Tensor | None = None  # tokens [1, S, P, C p p] of the first call
        self._moving = torch.empty(0)  # indices [P']

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """noisy `[1, S, C, h, w]` at levels sigma `[1, S]` -> clean, of the same shape."""
        config = self._model.config
        tokens = patchify(noisy, config.mmdit.patch)
        if self._clean is None:
            clean = self._model.evaluate(self._context, tokens, sigma)[0]
            self._clean, self._moving = clean, moving(clean, self._settled)
            self._context = self._context.only(self._moving)
        elif len(self._moving):
            clean = self._clean.clone()
            clean[:, :, self._moving] = self._model.evaluate(self._context, tokens[:, :, self._moving], sigma)[0]
        else:
            clean = self._clean
        return unpatchify(clean, config.mmdit.patch, config.grid)
