# SPDX-License-Identifier: Apache-2.0
"""The denoiser in two threads computes what it computes in one, and what fails in one of them is heard."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from flowact_ros.models.config import debug, with_overrides
from flowact_ros.models.mmdit import Context, MMDiT, patchify
from flowact_ros.models.pair import Pair
from flowact_ros.models.sequence_parallel import LEAST_TOKENS, evaluate

CONFIG = with_overrides(debug(), {"height": 384, "width": 384})  # 36 tokens a latent


class Watched(MMDiT):
    """Notes who evaluates how many condition and video tokens of a slot; fails where told to."""

    failing = -1

    def evaluate(self, context: Context, tokens: Tensor, sigma: Tensor):  # type: ignore[no-untyped-def]
        share = (threading.get_ident(), context.condition.shape[2], tokens.shape[2])
        self.__dict__.setdefault("shares", []).append(share)
        if tokens.shape[2] == self.failing:
            raise MemoryError("no memory")
        return super().evaluate(context, tokens, sigma)


def make() -> tuple[Watched, Context, Tensor, Tensor]:
    torch.manual_seed(5)
    model = Watched(CONFIG).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    shape = (CONFIG.vae.latent_channels, *CONFIG.latent_size)
    slots = torch.tensor([5.0, 6.0])
    audio, text = torch.randn(1, 2, 4, 384), torch.randn(1, 2, 1, 384)
    past = model(
        torch.randn(1, 1, *shape),
        torch.randn(1, *shape),
        torch.zeros(1, 1),
        audio[:, :1],
        text[:, :1],
        model.window(torch.zeros(1), None, None),
    )[1]
    window = model.window(slots, torch.zeros(1), None)
    context = model.context(torch.randn(1, *shape), audio, text, window, past)
    model.shares = []
    return model, context, patchify(torch.randn(1, 2, *shape), CONFIG.mmdit.patch), torch.full((1, 2), 0.7)


@pytest.mark.parametrize("tokens", [36, 21, LEAST_TOKENS // 2])
def test_halves_see_each_other(tokens: int) -> None:
    model, context, noisy, sigma = make()
    kept = torch.randperm(36)[:tokens].sort().values
    context, noisy = context.only(kept), noisy[:, :, kept]
    alone = evaluate(model, context, noisy, sigma, None)
    model.shares = []
    pair = Pair()
    together = evaluate(model, context, noisy, sigma, pair)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    (one, two) = sorted(model.shares, key=lambda share: -share[1])
    assert one[0] != two[0] and one[1:] == (5, (tokens - 5) // 2) and two[1:] == (0, tokens - (tokens - 5) // 2)
    assert torch.equal(together, evaluate(model, context, noisy, sigma, pair))
    halves = [model.evaluate(context.only(h), noisy[:, :, h], sigma)[0] for h in torch.arange(tokens).tensor_split(2)]
    assert not torch.allclose(torch.cat(halves, 2), alone, rtol=1e-2, atol=1e-3)  # the control: they do not


def test_few_tokens_are_not_divided() -> None:
    model, context, noisy, sigma = make()
    kept = torch.arange(LEAST_TOKENS // 2 - 1)
    evaluate(model, context.only(kept), noisy[:, :, kept], sigma, Pair())
    assert [share[1:] for share in model.shares] == [(5, LEAST_TOKENS // 2 - 1)]


@pytest.mark.parametrize("failing", [15, 21])
def test_an_error_in_either_half_is_raised_and_none_waits_for_ever(failing: int) -> None:
    model, context, noisy, sigma = make()
    pair = Pair()
    model.failing = failing
    with pytest.raises((MemoryError, RuntimeError), match="no memory|could not be evaluated"):
        evaluate(model, context, noisy, sigma, pair)
    model.failing = -1
    assert evaluate(model, context, noisy, sigma, pair).isfinite().all()  # and the next one works
