# SPDX-License-Identifier: Apache-2.0
"""Schedules and samplers: levels, exactness, the number of evaluations, determinism, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.sampler import (
    DiagonalWindow,
    chunk_noise,
    code_for,
    denoise_chunk,
    euler_step,
    noise_for,
    rollout,
)
from flowact_ros.engine.schedule import add_noise, step_sigmas, training_sigmas
from flowact_ros.models.config import SchedulerConfig, debug, preset
from flowact_ros.models.mmdit import Context, MMDiT

CONFIG = debug()
SHAPE = (CONFIG.vae.latent_channels, *CONFIG.latent_size)


class Counted(MMDiT):
    """Counts forward passes over noisy slots, and how often each chunk of noise is advanced."""

    evaluations = 0

    def predict(self, context: Context, noisy: Tensor, sigma: Tensor):  # type: ignore[no-untyped-def]
        if float(sigma.max()) > 0:
            self.evaluations += 1
        return super().predict(context, noisy, sigma)


def make_model() -> Counted:
    torch.manual_seed(2)
    model = Counted(CONFIG).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def condition(slots: int, seed: int) -> Condition:
    g = torch.Generator().manual_seed(seed)
    return Condition(torch.randn(1, slots, 4, 384, generator=g), torch.randn(1, slots, 1, 384, generator=g))


def noise(first: int, count: int) -> Tensor:
    return torch.stack([noise_for(5, first + i, SHAPE) for i in range(count)], 1)


def test_levels_fall_from_one_to_zero() -> None:
    sigmas = step_sigmas(SchedulerConfig(steps=3, shift=3.0))
    assert sigmas == pytest.approx((1.0, 6 / 7, 0.6, 0.0))
    assert step_sigmas(SchedulerConfig(steps=3, shift=1.0)) == pytest.approx((1.0, 2 / 3, 1 / 3, 0.0))


def test_training_levels_cover_the_path_and_visit_the_steps() -> None:
    config = SchedulerConfig()
    sigmas = training_sigmas(4000, config, torch.Generator().manual_seed(0))
    assert 0 < float(sigmas.min()) < 0.1 and float(sigmas.max()) == 1.0
    for level in step_sigmas(config)[:-1]:
        share = float((sigmas - level).abs().lt(1e-6).float().mean())
        assert 0.22 < share < 0.32  # a third of four fifths


def test_an_oracle_is_recovered_exactly_in_any_number_of_steps() -> None:
    clean = torch.randn(1, 3, *SHAPE)
    for steps in (1, 2, 3, 7):
        sigmas = step_sigmas(SchedulerConfig(steps=steps))
        assert torch.equal(denoise_chunk(lambda x, s: clean, torch.randn_like(clean), sigmas), clean)


def test_euler_step_follows_the_straight_path() -> None:
    clean, pure = torch.randn(1, 1, *SHAPE), torch.randn(1, 1, *SHAPE)
    here = add_noise(clean, pure, torch.tensor([[0.8]]))
    expected = add_noise(clean, pure, torch.tensor([[0.3]]))
    torch.testing.assert_close(euler_step(here, clean, 0.8, 0.3), expected)


def test_both_schedules_spend_three_evaluations_a_chunk() -> None:
    model, sigmas, chunks = make_model(), step_sigmas(CONFIG.schedule), 5
    bank = MemoryBank.start(model, torch.randn(1, *SHAPE))
    conditions = [condition(3, i) for i in range(chunks)]
    model.evaluations = 0
    assert len(list(rollout(model, bank, conditions, noise, sigmas))) == chunks
    assert model.evaluations == 3 * chunks

    model.evaluations = 0
    window = DiagonalWindow(model, bank, sigmas)
    out = [window.push(noise(3 * i, 3), c) for i, c in enumerate(conditions)]
    assert [o is None for o in out] == [True, True, False, False, False]  # partial window at the start
    out += list(window.flush())
    finished = [o for o in out if o is not None]
    assert len(finished) == chunks and all(o.shape == (1, 3, *SHAPE) for o in finished)
    # chunks + 2 forwards in all, in which every chunk takes part in exactly three
    assert model.evaluations == window.evaluations == chunks + 2


def test_diagonal_of_one_chunk_equals_sequential() -> None:
    model, sigmas = make_model(), step_sigmas(CONFIG.schedule)
    bank = MemoryBank.start(model, torch.randn(1, *SHAPE))
    window = DiagonalWindow(model, bank, sigmas)
    assert window.push(noise(0, 3), condition(3, 0)) is None
    (alone,) = window.flush()
    ((sequential, _),) = rollout(model, bank, [condition(3, 0)], noise, sigmas)
    torch.testing.assert_close(alone, sequential)


def test_noise_is_a_function_of_seed_and_place() -> None:
    assert torch.equal(noise_for(1, 9, SHAPE), noise_for(1, 9, SHAPE))
    assert not torch.equal(noise_for(1, 9, SHAPE), noise_for(1, 10, SHAPE))
    assert not torch.equal(noise_for(1, 9, SHAPE), noise_for(2, 9, SHAPE))
    assert float(noise_for(3, 4, (64, 16, 16)).std()) == pytest.approx(1.0, abs=0.03)


def test_gradient_reaches_only_the_exit_step() -> None:
    weight = torch.ones((), requires_grad=True)
    seen: list[bool] = []

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return weight * x

    out = denoise_chunk(predict, torch.ones(1, 1, *SHAPE), step_sigmas(SchedulerConfig()), exit_at=1)
    out.sum().backward()
    assert seen == [False, True] and weight.grad is not None and float(weight.grad) != 0


def test_refinement_renews_only_the_short_term_latent() -> None:
    config = preset("debug", {"memory": {"refine_interval": 2}})
    torch.manual_seed(3)
    model = MMDiT(config).eval().requires_grad_(False)
    bank = MemoryBank.start(model, torch.randn(1, *SHAPE))
    latents = torch.randn(1, 2, *SHAPE)
    one = bank.commit(model, latents[:, :1], condition(1, 0))
    two = one.commit(model, latents[:, 1:], condition(1, 1))
    again = one.commit(model, latents[:, 1:], condition(1, 1))
    assert torch.equal(one.short_term.latents, latents[:, :1])
    assert not torch.equal(two.short_term.latents, latents[:, 1:])  # the second commit refines
    assert torch.equal(two.short_term.latents, again.short_term.latents)  # deterministically
    assert torch.equal(two.long_term[0].latents, latents[:, :1])
    assert two.reference is bank.reference and two.anchor is bank.anchor


def test_memory_keeps_the_last_latent_of_a_chunk() -> None:
    model = make_model()
    bank = MemoryBank.start(model, torch.randn(1, *SHAPE))
    chunk = torch.randn(1, 3, *SHAPE)
    after = bank.commit(model, chunk, condition(3, 0))
    assert torch.equal(after.short_term.latents, chunk[:, 2:]) and bank.short_term is None


def test_noise_of_a_chunk_may_be_a_code() -> None:
    full = SchedulerConfig(temperature=0.5)
    for config in (full, replace(full, code_decay=(0.9, 0.0) * 12)):
        noise = chunk_noise(config, 7, 3, 3, (64, 16, 16))
        assert noise.shape == (1, 3, 64, 16, 16)
        assert torch.equal(noise[:, 1:], chunk_noise(config, 7, 4, 2, (64, 16, 16)))  # by position, not by chunk
        assert bool((noise == noise[..., :1, :1]).all()) == bool(config.code_decay)
        assert bool((noise[:, :, 24:] == 0).all()) == bool(config.code_decay)


def test_a_code_glides_as_its_decay_says() -> None:
    code = code_for(3, 0, 2000, (0.9, 0.5, 0.0))
    assert code.mean(0).abs().max() < 0.4 and torch.allclose(code.std(0), torch.ones(3), atol=0.2)
    steps = code.diff(dim=0).square().mean(0)
    assert steps[0] < 0.1 * steps[1] < 0.1 * steps[2]
    assert torch.equal(code[100:103], code_for(3, 100, 3, (0.9, 0.5, 0.0)))
