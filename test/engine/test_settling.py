# SPDX-License-Identifier: Apache-2.0
"""Later evaluations of a chunk are made where the first one moved something."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.sampler import denoise_chunk
from flowact_ros.models.config import debug
from flowact_ros.models.mmdit import Context, MMDiT, patchify, unpatchify

CONFIG = debug()
SIGMAS = (1.0, 0.8, 0.5, 0.0)


class Watched(MMDiT):
    """Notes how many video tokens of a slot each evaluation has."""

    def evaluate(self, context: Context, tokens: Tensor, sigma: Tensor):  # type: ignore[no-untyped-def]
        self.__dict__.setdefault("seen", []).append(tokens.shape[2])
        return super().evaluate(context, tokens, sigma)


def make() -> tuple[Watched, MemoryBank, Condition, Tensor]:
    torch.manual_seed(3)
    model = Watched(CONFIG).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    shape = (CONFIG.vae.latent_channels, *CONFIG.latent_size)
    condition = Condition(torch.randn(1, 2, 4, 384), torch.randn(1, 2, 1, 384))
    bank = MemoryBank.start(model, torch.randn(1, *shape)).commit(model, torch.randn(1, 2, *shape), condition)
    model.seen = []
    return model, bank, condition, torch.randn(1, 2, *shape)


def test_where_all_moves_nothing_changes() -> None:
    model, bank, condition, noise = make()
    whole = denoise_chunk(bank.predictor(model, condition), noise, SIGMAS)
    same = denoise_chunk(bank.predictor(model, condition, settled=1e-6), noise, SIGMAS)
    torch.testing.assert_close(same, whole)
    assert model.seen == 6 * [CONFIG.tokens_per_latent]


def test_what_the_first_evaluation_does_not_move_is_the_reference() -> None:
    model, bank, condition, noise = make()
    patch = CONFIG.mmdit.patch
    first = patchify(denoise_chunk(bank.predictor(model, condition), noise, SIGMAS, exit_at=0), patch)
    moves = first.abs().mean(-1).amax((0, 1))
    settled = float(moves.sort().values[len(moves) // 2 - 1 : len(moves) // 2 + 1].mean())
    model.seen = []
    some = patchify(denoise_chunk(bank.predictor(model, condition, settled=settled), noise, SIGMAS), patch)
    half = CONFIG.tokens_per_latent // 2
    assert model.seen == [2 * half, half, half]  # three evaluations, whatever they are made of
    still = moves < settled
    assert not some[:, :, still].any() and some[:, :, ~still].all()
    assert not torch.allclose(some[:, :, ~still], first[:, :, ~still])


def test_where_nothing_moves_the_reference_stays() -> None:
    model, bank, condition, noise = make()
    assert not denoise_chunk(bank.predictor(model, condition, settled=1e6), noise, SIGMAS).any()
    assert model.seen == [CONFIG.tokens_per_latent]


def test_between_surveys_only_what_has_moved_is_looked_at() -> None:
    model, bank, condition, noise = make()
    patch = CONFIG.mmdit.patch
    condition = Condition(condition.audio, condition.text[:, :1].expand(-1, 2, -1, -1))
    tokens = torch.zeros_like(patchify(noise, patch))
    tokens[:, 0, 0], tokens[:, 1, 2] = 0.3, 0.2
    chunk = unpatchify(tokens, patch, CONFIG.grid)
    bank = MemoryBank.start(model, bank.reference)
    looked = []
    for _ in range(9):
        denoise_chunk(bank.predictor(model, condition, settled=1e-6, survey=4), noise, SIGMAS)
        looked.append(model.seen[-3])
        bank = bank.commit(model, chunk, condition)
    everything = CONFIG.tokens_per_latent
    assert looked == 5 * [everything] + 3 * [2] + [everything]
    bank = bank.commit(model, chunk.roll(1, -1), condition)  # another token, seen by a survey
    assert bank.moved is not None and bank.moved.sum() == 4
    lively = bank.lively(condition, 4)
    assert lively is not None and torch.equal(lively, bank.moved.nonzero().flatten())
    some = patchify(denoise_chunk(bank.predictor(model, condition, settled=1e-6, survey=4), noise, SIGMAS), patch)
    assert torch.equal(some.any(-1).any(1)[0], bank.moved)  # the rest is the reference
    assert bank.lively(condition, 0) is None
    assert bank.lively(Condition(condition.audio, condition.text + 1), 4) is None  # a new text may move anything
    model.seen = []
    still = replace(bank, moved=torch.zeros(everything, dtype=torch.bool))
    assert not denoise_chunk(still.predictor(model, condition, settled=1e-6, survey=4), noise, SIGMAS).any()
    assert model.seen == []


def test_some_tokens_alone_are_a_smaller_picture() -> None:
    """A permutation of tokens changes nothing but their order: places and rotations go with them."""
    model, bank, condition, noise = make()
    context, sigma = bank.context(model, condition), torch.full((1, 2), 0.7)
    tokens = patchify(noise, CONFIG.mmdit.patch)
    order = torch.randperm(CONFIG.tokens_per_latent)
    whole = model.evaluate(context, tokens, sigma)[0]
    moved = model.evaluate(context.only(order), tokens[:, :, order], sigma)[0]
    torch.testing.assert_close(moved, whole[:, :, order], rtol=1e-4, atol=1e-5)


def test_announced_levels_are_modulated_at_once() -> None:
    model, bank, condition, noise = make()
    calls: list[tuple[int, ...]] = []
    model.last.modulation.register_forward_hook(lambda module, given, made: calls.append(tuple(given[0].shape)))
    alone = denoise_chunk(bank.predictor(model, condition, settled=1e-6), noise, SIGMAS)
    width = CONFIG.mmdit.width
    assert calls == 3 * [(1, 2, width)]
    calls.clear()
    predict = bank.predictor(model, condition, settled=1e-6, sigmas=SIGMAS[:-1])
    torch.testing.assert_close(denoise_chunk(predict, noise, SIGMAS), alone, rtol=1e-4, atol=1e-5)
    assert calls == [(3, 1, 2, width)]
    other = torch.full((1, 2), 0.7)  # a level that was not
    torch.testing.assert_close(
        predict(noise, other), bank.predictor(model, condition, settled=1e-6)(noise, other), rtol=1e-4, atol=1e-5
    )
    mixed = torch.tensor([[SIGMAS[0], SIGMAS[1]]])
    wanted = bank.predictor(model, condition, settled=1e-6)(noise, mixed)
    calls.clear()
    torch.testing.assert_close(predict(noise, mixed), wanted, rtol=1e-4, atol=1e-5)
    assert calls == [(1, 2, width)]
