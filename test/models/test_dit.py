# SPDX-License-Identifier: Apache-2.0
"""The denoiser: shapes, what it predicts before it has learned, and which sound reaches which frame."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.models.config import ConfigError, avatar_cpu, debug, preset
from flowact_ros.models.dit import Condition, DiT, with_neighbours

CONFIG = debug()


def inputs(slots: int, rows: int = 2):  # type: ignore[no-untyped-def]
    g = torch.Generator().manual_seed(0)
    told = Condition(
        torch.randn(rows, slots, 4, 384, generator=g), torch.randn(rows, slots, 1, 384, generator=g)
    )
    return torch.randn(rows, slots, 4, 40, generator=g), torch.rand(rows, slots, generator=g), told


def test_tokens_in_tokens_out() -> None:
    model = DiT(CONFIG)
    noisy, sigma, told = inputs(3)
    clean, made = model(noisy, sigma, told, model.windows(torch.arange(3.0) * 4))
    assert clean.shape == noisy.shape and bool((clean == 0).all())  # neutral before it has learned
    joint, alone = (
        3 * (4 + 1 + 4),
        3 * 4,
    )  # with condition tokens in double-stream blocks, without in the others
    sizes = [k.shape[2] for k, _ in made]
    assert sizes == [joint] * CONFIG.dit.double_blocks + [alone] * CONFIG.dit.single_blocks


def test_the_embedded_denoiser_has_the_size_that_two_cores_carry() -> None:
    parameters = sum(p.numel() for p in DiT(avatar_cpu()).parameters())
    assert 5e6 < parameters < 12e6


def test_a_frame_hears_itself_and_its_neighbours() -> None:
    audio = torch.arange(8.0).view(1, 2, 4, 1)
    heard = with_neighbours(audio).flatten(0, 2)
    assert heard.tolist() == [[max(t - 1, 0), t, min(t + 1, 7)] for t in range(8)]


def test_tokens_of_a_latent_are_ordered_in_time() -> None:
    torch.manual_seed(0)
    model = DiT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        noisy, sigma, told = inputs(2)
        told = Condition(told.audio[:, :1, :1].expand(-1, 2, 4, -1), told.text)
        at = model.windows(torch.arange(2.0) * 4)
        forwards, _ = model(noisy, sigma, told, at)
        backwards, _ = model(noisy.flip(2), sigma, told, at)
    assert not torch.allclose(forwards, backwards.flip(2), atol=1e-4)


SPATIAL = preset("avatar_spatial_debug", {"dit": {"width": 96, "heads": 2}})


def test_spatial_latents_are_rows_and_columns_of_tokens() -> None:
    """A latent of pictures: its tokens attend to all, and are told apart by where they lie."""
    torch.manual_seed(0)
    model, g = DiT(SPATIAL), torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 3, *SPATIAL.dit.latent_shape, generator=g)
    told = Condition(torch.randn(2, 3, 4, 384, generator=g), torch.randn(2, 3, 1, 384, generator=g))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        at = model.windows(torch.arange(3.0) * 4)
        clean, made = model(noisy, torch.rand(2, 3, generator=g), told, at)
        assert clean.shape == noisy.shape and made[0][0].shape[2] == 3 * (1 + 4 + 16)
        sigma, same = torch.full((2, 3), 0.5), noisy[:, :, :1].expand_as(noisy)
        clean, _ = model(same, sigma, told, at)  # equal tokens, so only their places differ
        by_place = clean.unflatten(2, SPATIAL.dit.grid)
        later, _ = model(noisy, sigma, Condition(told.audio.roll(1, 1), told.text), at)
        sooner, _ = model(noisy, sigma, told, at)
    assert by_place.std(2).mean() > 1e-4 and by_place.std(3).mean() > 1e-4
    assert not torch.allclose(later, sooner, atol=1e-4)  # and it hears


def test_guidance_is_heard_and_is_one_unless_given() -> None:
    torch.manual_seed(0)
    model = DiT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        noisy, sigma, told = inputs(2)
        at = model.windows(torch.arange(2.0) * 4)
        base, _ = model(noisy, sigma, told, at)
        one, _ = model(noisy, sigma, told, at, guidance=torch.ones(2))
        three, _ = model(noisy, sigma, told, at, guidance=torch.full((2,), 3.0))
    assert torch.equal(base, one) and not torch.allclose(base, three, atol=1e-4)


def test_sizes_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(ConfigError, match="dit.width 256 is not a multiple of heads 7"):
        preset("avatar_cpu", {"dit": {"heads": 7}})
    with pytest.raises(ConfigError, match="must be even and sum to the head width 32"):
        preset("avatar_cpu", {"dit": {"rope_axes": [16, 8]}})
    with pytest.raises(ConfigError, match=r"dit.rope_axes \(48,\) must be 3, one for each axis"):
        preset("avatar_spatial_debug", {"dit": {"rope_axes": [48]}})
    with pytest.raises(ConfigError, match=r"\(8, 8\) of 32 channels does not fit the codec, whose .* \(4, 4\)"):
        preset("avatar_spatial_debug", {"dit": {"grid": [8, 8]}})
