# SPDX-License-Identifier: Apache-2.0
"""The VAE as a stream: the cut does not matter, latents and frames stay aligned, one image is a fixed point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flowact_ros.models.config import debug
from flowact_ros.models.vae import VAE, interleave, spread


def make_vae(**sizes: tuple[int, ...]) -> VAE:
    torch.manual_seed(0)
    vae = VAE(replace(debug().vae, **sizes)).eval().requires_grad_(False)
    for parameter in vae.parameters():  # the zero-initialised branches would hide a wrong cut
        parameter.add_(0.05 * torch.randn_like(parameter))
    vae.latent_mean.copy_(torch.randn(8))
    vae.latent_std.copy_(torch.rand(8) + 0.5)
    return vae


@pytest.mark.parametrize("cut", [(1, 1, 1, 1, 1), (3, 2), (2, 3), (1, 3, 1), (4, 1)])
@pytest.mark.parametrize("corrector", [(), (8, 8, 8, 8)])
def test_streamed_equals_whole(cut: tuple[int, ...], corrector: tuple[int, ...]) -> None:
    vae = make_vae(corrector_widths=corrector)
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


def test_the_corrector_sees_what_the_first_latents_lack() -> None:
    """Its answer changes with the error of the picture, not only with the picture."""
    vae, video = make_vae(corrector_widths=(8, 8, 8, 8)), torch.rand(1, 4, 3, 64, 64) * 2 - 1
    before = vae.encode(video)[0]
    vae.decoder.head.bias.add_(0.3)
    assert float((vae.encode(video)[0] - before).abs().max()) > 1e-3
    vae.corrector = None
    first = vae.encode(video)[0]
    vae.decoder.head.bias.sub_(0.3)
    assert torch.equal(vae.encode(video)[0], first)


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


@pytest.mark.parametrize(("factor", "frames", "kernel"), [(2, 1, 1), (2, 4, 1), (4, 1, 3)])
def test_spreading_is_a_pixel_shuffle(factor: int, frames: int, kernel: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, frames * 3 * factor**2, kernel, padding=kernel // 2)
    x = torch.randn(2, 5, 4, 6).contiguous(memory_format=torch.channels_last)
    wanted = F.pixel_shuffle(conv(x).unflatten(1, (frames, -1)).flatten(0, 1), factor)
    found = spread(F.conv2d(x, *interleave(conv, factor, frames), padding=kernel // 2), factor, frames)
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_frozen_decoder_keeps_its_weights() -> None:
    vae, latents = make_vae(), torch.randn(1, 2, 8, 3, 2)
    wanted = vae.decode(latents)[0]
    vae.decoder.freeze()
    assert torch.equal(vae.decode(latents)[0], wanted)
    for layer in (vae.decoder.unfold, vae.decoder.up, vae.decoder.head):
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(vae.decode(latents)[0], wanted)


def test_the_colour_of_a_latent_tints_its_own_place() -> None:
    vae = make_vae()
    vae.decoder.head.weight.zero_()
    vae.decoder.head.bias.zero_()
    latents = torch.randn(1, 2, 8, 3, 2)
    tint = vae.decoder.colour(vae.denormalise(latents)[0])
    wanted = F.interpolate(tint, (24, 16), mode="bilinear").repeat_interleave(4, 0)  # patches of 4 x 4 pixels
    wanted = F.interpolate(wanted, scale_factor=4.0, mode="nearest")
    torch.testing.assert_close(vae.decode(latents)[0][0], wanted)


def test_pictures_are_the_rounded_video() -> None:
    vae = make_vae()
    latents = 3 * torch.randn(2, 3, 8, 2, 3)
    video, state = vae.decode(latents[:, :2])
    pictures, same = vae.decode_rgb(latents[:, :2])
    assert video.abs().max() > 1.0  # some of it is out of range
    wanted = (127.5 * (video.clamp(-1, 1) + 1)).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    assert pictures.shape == (2, 8, 64, 96, 3) and pictures.dtype == torch.uint8
    wrong = (pictures.int() - wanted.int()).abs()
    assert wrong.max() <= 1 and wrong.float().mean() < 1e-3  # a value between two levels may fall either way
    assert all(torch.equal(state[name], same[name]) for name in state)
    following = vae.decode_rgb(latents[:, 2:], same)[0]
    whole = vae.decode_rgb(latents)[0][:, 8:]
    assert (following.int() - whole.int()).abs().max() <= 1
