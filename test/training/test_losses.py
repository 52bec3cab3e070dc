# SPDX-License-Identifier: Apache-2.0
"""Losses as functions: where their gradients vanish and point, and which convention of guidance they keep."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.training.losses import changes, flow_loss, guided, matching_loss, motion_cost
from flowact_ros.training.motion_figures import SPREADS, spread_error

SHAPE = (3, 2, 4, 5)


def some(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_changes_are_counted_across_slots_and_from_what_is_known() -> None:
    off = torch.tensor([[[1.0, 1.0], [3.0, 0.0]]]).unsqueeze(-1)  # two slots of two frames
    assert changes(off).flatten().tolist() == [1.0, 0.0, 2.0, -3.0]


def test_cost_weighs_controls_their_changes_and_levels() -> None:
    off, one = torch.ones(1, 1, 4, 2), torch.ones(2)
    half = torch.full((1, 1), 0.5)
    assert float(motion_cost(off, half, one, 0 * one)) == 8 * 4  # eight numbers, 1 / sigma^2
    assert float(motion_cost(off, half, torch.tensor([3.0, 0.0]), 0 * one)) == 4 * 3 * 4
    assert float(motion_cost(off, half, one, one)) == (8 + 2) * 4  # only the first frame's change is wrong


def test_guidance_is_one_where_nothing_is_guided() -> None:
    told, untold = some(0), some(1)
    scale = torch.tensor([0.0, 1.0, 3.0])
    out = guided(told, untold, scale)
    torch.testing.assert_close(out[0], untold[0])
    torch.testing.assert_close(out[1], told[1])
    torch.testing.assert_close(out[2], told[2] + 2.0 * (told[2] - untold[2]))


def test_guided_velocities_are_those_of_guided_predictions() -> None:
    told, untold, noise, sigma = some(0), some(1), some(2), 0.4
    noisy = 0.6 * some(3) + sigma * noise
    scale = torch.full((3,), 2.5)
    by_clean = (noisy - guided(told, untold, scale)) / sigma
    by_velocity = guided((noisy - told) / sigma, (noisy - untold) / sigma, scale)
    torch.testing.assert_close(by_clean, by_velocity)


def test_matching_gives_no_gradient_where_real_equals_fake() -> None:
    made, real = some(0).requires_grad_(), some(1)
    matching_loss(made, real, real).backward()
    assert made.grad is not None and torch.equal(made.grad, torch.zeros(SHAPE))


def test_matching_moves_from_fake_to_real_in_units_of_the_teachers_move() -> None:
    made, real, fake = some(0).requires_grad_(), some(1), some(2)
    matching_loss(made, real, fake).backward()
    size = (made.detach() - real).abs().mean((1, 2, 3), keepdim=True)
    assert made.grad is not None
    torch.testing.assert_close(made.grad * made.numel(), (fake - real) / size)
    exact = some(3).requires_grad_()
    matching_loss(exact, exact.detach(), exact.detach() + 1e-9).backward()  # no division by nothing
    assert bool(torch.isfinite(exact.grad).all())


def test_the_critics_loss_is_the_velocitys_error() -> None:
    clean, noise, sigma = some(0), some(1), torch.full(SHAPE[:2], 0.5)
    predicted = some(2)
    noisy = 0.5 * clean + 0.5 * noise
    velocity = (noisy - predicted) / 0.5
    expected = (velocity - (noise - clean)).square().mean()
    torch.testing.assert_close(flow_loss(predicted, clean, sigma), expected)


def test_spread_is_judged_alike_above_and_below_the_truth() -> None:
    row = {f"std_{name}": 1.0 for name in SPREADS} | {"blinks": 20.0, "blinks_truth": 20.0}
    row |= {"speed": 1.0, "acceleration": 1.0}
    assert spread_error(row) == 0.0
    calm, wild = spread_error(row | {"std_yaw": 0.5}), spread_error(row | {"std_yaw": 2.0})
    assert calm == pytest.approx(wild) and calm > 0.05
    assert 0.05 < spread_error(row | {"blinks": 0.0}) < 1.0
