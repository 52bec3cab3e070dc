# SPDX-License-Identifier: Apache-2.0
"""Noise levels: of the sampler, of training, and what they weigh."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.diffusion.schedule import (
    CAP,
    MATCHED,
    PURE,
    add_noise,
    matching_sigmas,
    step_sigmas,
    training_sigmas,
    velocity_weight,
)
from flowact_ros.models.config import SchedulerConfig


def test_levels_fall_from_one_to_zero() -> None:
    assert step_sigmas(SchedulerConfig(steps=3, shift=3.0)) == pytest.approx((1.0, 6 / 7, 0.6, 0.0))
    assert step_sigmas(SchedulerConfig(steps=3, shift=1.0)) == pytest.approx((1.0, 2 / 3, 1 / 3, 0.0))


def test_a_chunk_may_begin_with_less_noise() -> None:
    for shift in (1.0, 3.0):
        part = step_sigmas(SchedulerConfig(steps=2, shift=shift), start=0.6)
        assert part[0] == pytest.approx(0.6) and part[-1] == 0.0
    whole = step_sigmas(SchedulerConfig(steps=3, shift=3.0))
    assert step_sigmas(SchedulerConfig(steps=1, shift=3.0), start=whole[2]) == pytest.approx(whole[2:])


def test_distributions_are_compared_where_noise_is_neither_all_nor_nothing() -> None:
    sigmas = matching_sigmas((2000, 2), 3.0, torch.Generator().manual_seed(0))
    assert (float(sigmas.min()), float(sigmas.max())) == pytest.approx(MATCHED)
    assert bool((sigmas[:, 0] <= sigmas[:, 1]).all()) and float(sigmas.mean()) > 0.55  # shifted towards noise


def test_training_covers_the_path_and_pure_noise() -> None:
    sigmas = training_sigmas((4000, 1), torch.Generator().manual_seed(0))
    assert 0 < float(sigmas.min()) < 0.1 and float(sigmas.max()) == 1.0
    assert float((sigmas == 1).float().mean()) == pytest.approx(PURE, abs=0.03)


def test_chunks_in_flight_have_rising_noise() -> None:
    sigmas = training_sigmas((500, 3), torch.Generator().manual_seed(0))
    assert (
        bool((sigmas.diff(dim=1) >= 0).all())
        and float(sigmas[:, 0].mean()) < float(sigmas[:, 2].mean()) - 0.2
    )


def test_weight_is_that_of_the_velocity_up_to_its_cap() -> None:
    weights = velocity_weight(torch.tensor([1.0, 0.5, CAP, 0.01]))
    torch.testing.assert_close(weights, torch.tensor([1.0, 4.0, CAP**-2, CAP**-2]))


def test_noise_is_mixed_in_by_slot() -> None:
    clean, pure = torch.ones(1, 2, 4, 3), torch.zeros(1, 2, 4, 3)
    mixed = add_noise(clean, pure, torch.tensor([[0.25, 1.0]]))
    assert torch.equal(mixed[0, 0], torch.full((4, 3), 0.75)) and torch.equal(mixed[0, 1], torch.zeros(4, 3))
