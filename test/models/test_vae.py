# SPDX-License-Identifier: Apache-2.0
"""The VAE as a stream: the cut does not matter, latents and frames stay aligned, one image is a fixed point."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.models.config import debug
from flowact_ros.models.vae import VAE


def make_vae() -> VAE:
    torch.manual_seed(0)
    vae = VAE(debug().vae).eval().requires_grad_(False)
    for parameter in vae.parameters():  # the zero-initialised branches would hide a wrong cut
        parameter.add_(0.05 * torch.randn_like(parameter))
    vae.latent_mean.copy_(torch.randn(8))
    vae.latent_std.copy_(torch.rand(8) + 0.5)
    return vae


@pytest.mark.parametrize("cut", [(1, 1, 1, 1, 1), (3, 2), (2, 3), (1, 3, 1), (4, 1)])
def test_streamed_equals_whole(cut: tuple[int, ...]) -> None:
    vae = make_vae()
    video = torch.randn(2, 20, 3, 64, 96)
    whole, _ = vae.encode(video)
    back, _ = vae.decode(whole)
    latents, pictures, encoder, decoder, start = [], [], None, None, 0
    for count in cut:
        z, encoder = vae.encode(video[:, 4 * start : 4 * (start + count)], encoder)
        x, decoder = vae.decode(z, decoder)
        latents.append(z)
        pictures.append(x)
        start += count
    torch.testing.assert_close(torch.cat(latents, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(pictures, 1), back, rtol=1e-4, atol=1e-5)


def test_latent_k_holds_frames_4k_to_4k_plus_3() -> None:
    vae = make_vae()
    still = torch.zeros(1, 16, 3, 64, 64)
    flash = still.clone()
    flash[:, 9] = 1.0
    changed = (vae.encode(flash)[0] - vae.encode(still)[0]).abs().amax((0, 2, 3, 4)) > 1e-6
    assert changed.tolist() == [False, False, True, True]  # causal: the past of latent 2 is untouched
    z = vae.encode(still)[0]
    other = z.clone()
    other[:, 2] += 1.0
    frames = (vae.decode(other)[0] - vae.decode(z)[0]).abs().amax((0, 2, 3, 4)) > 1e-6
    assert frames[:8].any().item() is False and frames[8:12].all().item() is True


def test_a_still_picture_gives_one_latent_again_and_again() -> None:
    vae = make_vae()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    one = vae.encode_image(image)
    many, _ = vae.encode(image.unsqueeze(1).expand(-1, 12, -1, -1, -1))
    torch.testing.assert_close(many, one.unsqueeze(1).expand(-1, 3, -1, -1, -1), rtol=1e-4, atol=1e-5)


def test_state_is_never_written_in_place() -> None:
    vae = make_vae()
    _, state = vae.decode(torch.randn(1, 1, 8, 2, 2))
    kept = {name: tensor.clone() for name, tensor in state.items()}
    vae.decode(torch.randn(1, 2, 8, 2, 2), state)
    assert all(torch.equal(kept[name], state[name]) for name in kept)


@pytest.mark.parametrize("shape", [(1, 6, 3, 64, 64), (1, 4, 3, 60, 64), (1, 4, 3, 64, 40)])
def test_wrong_sizes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{shape[1]} frames of {shape[3]} x {shape[4]}"):
        make_vae().encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="5 channels; this VAE has 8"):
        make_vae().decode(torch.zeros(1, 1, 5, 2, 2))
