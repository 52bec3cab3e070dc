# SPDX-License-Identifier: Apache-2.0
"""Samplers: exactness, the number of evaluations, determinism, gradients, and what is committed."""

from __future__ import annotations

import pytest
import torch
from tiny import CONFIG, SHAPE, condition, make_model, noise
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import (
    DiagonalWindow,
    Stopped,
    denoise_chunk,
    flow_step,
    implied_clean,
    initial_noise,
    noise_for,
    rollout,
    stoppable,
)
from flowact_ros.diffusion.schedule import add_noise, step_sigmas
from flowact_ros.models.codec.motion import LIPS, control_index
from flowact_ros.models.config import SchedulerConfig, preset

REFERENCE = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))


def test_an_oracle_is_recovered_exactly_in_any_number_of_steps() -> None:
    clean = torch.randn(1, 3, *SHAPE)
    for steps in (1, 2, 3, 7):
        sigmas = step_sigmas(SchedulerConfig(steps=steps))
        for solver in ("euler", "adams_bashforth"):
            made = denoise_chunk(lambda x, s: clean, torch.randn_like(clean), sigmas, solver)
            torch.testing.assert_close(made, clean)


def test_a_step_follows_the_straight_path() -> None:
    clean, pure = torch.randn(1, 1, *SHAPE), torch.randn(1, 1, *SHAPE)
    here = add_noise(clean, pure, torch.tensor([[0.8]]))
    expected = add_noise(clean, pure, torch.tensor([[0.3]]))
    once, slope = flow_step(here, clean, 0.8, 0.3, None)
    torch.testing.assert_close(once, expected)
    torch.testing.assert_close(flow_step(once, clean, 0.3, 0.0, slope)[0], clean)


def test_steps_are_of_second_order() -> None:
    """Gaussian data of deviation `deviation`: the flow is known, and twice the steps leave a quarter of its error."""
    deviation, noise = 0.5, torch.full((1, 1, *SHAPE), 1.0)

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[..., None, None]
        return x * (1 - level) * deviation**2 / ((1 - level) ** 2 * deviation**2 + level**2)

    def error(steps: int, solver: str = "adams_bashforth") -> float:
        made = denoise_chunk(predict, noise, step_sigmas(SchedulerConfig(steps=steps)), solver)
        return float((made - deviation).abs().max())

    assert error(24) < 0.3 * error(12) < 0.09 * error(6)
    assert error(6) < 0.5 * error(6, "euler")
    assert error(24, "euler") == pytest.approx(0.5 * error(12, "euler"), rel=0.1)  # of first order


def test_rollout_gives_what_it_commits_and_the_same_each_time() -> None:
    model, sigmas = make_model(), step_sigmas(CONFIG.schedule)
    conditions = [condition(n, i) for i, n in enumerate((1, 2, 3, 3))]

    def roll() -> list[tuple[Tensor, MemoryBank]]:
        return list(rollout(model, MemoryBank.start(model, REFERENCE), conditions, noise, sigmas))

    made = roll()
    for (latents, bank), slots in zip(made, (1, 2, 3, 3)):
        assert latents.shape == (1, slots, *SHAPE)
        assert torch.equal(bank.entries[-1].latent, latents[:, -1:])
    assert made[-1][1].latents == 9 and made[-1][1].commits == 4
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(made, roll()))


@pytest.mark.parametrize("steps", [3, 4, 5, 8])
def test_diagonal_spends_exactly_its_steps_on_every_chunk(steps: int) -> None:
    model, sigmas, chunks = make_model(), step_sigmas(SchedulerConfig(steps=steps)), 6
    window = DiagonalWindow(MemoryBank.start(model, REFERENCE), sigmas, 3)
    out, seen, most = [], [0] * chunks, 0
    advance = DiagonalWindow._forward

    def counted(self: DiagonalWindow, model):  # type: ignore[no-untyped-def]
        nonlocal most
        most = max(most, len(self.flight))
        levels = [chunk.level for chunk in self.flight]
        assert levels == sorted(levels, reverse=True)  # noise rises
        for chunk in self.flight:
            seen[int(chunk.condition.audio[0, 0, 0, 0])] += 1
        return advance(self, model)

    DiagonalWindow._forward = counted  # type: ignore[method-assign]
    try:
        for i in range(chunks):
            c = condition(3, i)
            c.audio[0, 0, 0, 0] = i
            window, done = window.push(model, noise(3 * i, 3), c)
            out.append(done)
        window, rest = window.flush(model)
    finally:
        DiagonalWindow._forward = advance  # type: ignore[method-assign]
    finished = [done for done in [*out, *rest] if done is not None]
    assert seen == [steps] * chunks and len(finished) == chunks and most <= 3
    assert window.bank.commits == chunks and torch.equal(window.bank.entries[-1].latent, finished[-1][:, -1:])
    if steps == 3:
        assert [done is None for done in out] == [True, True, False, False, False, False]  # one a forward


def test_diagonal_of_one_chunk_equals_sequential() -> None:
    model, sigmas = make_model(), step_sigmas(CONFIG.schedule)
    bank = MemoryBank.start(model, REFERENCE)
    window, done = DiagonalWindow(bank, sigmas, 3).push(model, noise(0, 3), condition(3, 0))
    assert done is None
    _, (alone,) = window.flush(model)
    ((sequential, _),) = rollout(model, bank, [condition(3, 0)], noise, sigmas)
    torch.testing.assert_close(alone, sequential)


def test_a_diagonal_window_is_never_changed() -> None:
    model, sigmas = make_model(), step_sigmas(CONFIG.schedule)
    start = DiagonalWindow(MemoryBank.start(model, REFERENCE), sigmas, 3)
    first, _ = start.push(model, noise(0, 3), condition(3, 0))
    once = first.push(model, noise(3, 3), condition(3, 1))[0].flush(model)[1]
    again = first.push(model, noise(3, 3), condition(3, 1))[0].flush(model)[1]
    assert not start.flight and all(torch.equal(a, b) for a, b in zip(once, again))


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

    out = denoise_chunk(predict, torch.ones(1, 1, *SHAPE), step_sigmas(SchedulerConfig()), "euler", exit_at=1)
    out.sum().backward()
    assert seen == [False, True] and weight.grad is not None and float(weight.grad) != 0


def test_the_exit_of_the_last_step_is_the_chunk_itself() -> None:
    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(2 * x)

    pure, sigmas = torch.randn(1, 1, *SHAPE), step_sigmas(SchedulerConfig(steps=3))
    whole = denoise_chunk(predict, pure, sigmas, "adams_bashforth")
    assert torch.equal(denoise_chunk(predict, pure, sigmas, "adams_bashforth", exit_at=2), whole)
    assert not torch.allclose(denoise_chunk(predict, pure, sigmas, "adams_bashforth", exit_at=1), whole)


def test_a_steps_ends_imply_its_prediction() -> None:
    start, clean = (torch.randn(1, 2, *SHAPE) for _ in range(2))
    for following in (0.4, 0.0):
        end, _ = flow_step(start, clean, 0.7, following, None)
        torch.testing.assert_close(implied_clean(start, end, 0.7, following), clean, atol=1e-5, rtol=1e-5)


def test_a_chunk_can_be_given_up_between_evaluations() -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped):
        denoise_chunk(stoppable(lambda x, s: x, stop), torch.ones(1, 1, *SHAPE), (1.0, 0.8, 0.5, 0.2, 0.0), "euler")
    assert len(asked) == 3


def test_noise_of_streams_is_each_ones_own_and_wider_where_the_preset_says_so() -> None:
    config = preset("debug", {"schedule": {"gaze_temperature": 1.5, "lips_temperature": 0.5}})
    made, gaze = initial_noise(config, [5, 9], 3, 2), control_index("gaze_x")
    plain = torch.cat([noise_for(9, 3, config.dit.latent_shape), noise_for(9, 4, config.dit.latent_shape)])
    assert torch.equal(made[1, ..., 0], plain[..., 0]) and not torch.equal(made[0], made[1])
    assert torch.allclose(made[1, ..., gaze], 1.5 * plain[..., gaze])
    assert torch.allclose(made[1, ..., LIPS], 0.5 * plain[..., LIPS])
    smile = control_index("smile")
    assert torch.equal(made[1, ..., smile], plain[..., smile])
    assert preset("avatar_spatial_debug").temperatures == (1.0,) * 32  # a picture has no gaze
