# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import VAEConfig

SIZES = VAEConfig(
    latent_channels=8,
    encoder_widths=(8, 8, 16, 16),
    decoder_widths=(8, 8, 16, 16),
    encoder_depths=(1, 1, 1, 1),
    decoder_depths=(1, 1, 1, 1),
)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    vae = VideoVAE(SIZES)
    for parameter in vae.parameters():  # layers that start at zero would hide what goes through them
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.eval().requires_grad_(False)


def test_four_frames_of_32_pixels_are_one_latent(vae: VideoVAE) -> None:
    latents, _ = vae.encode(torch.randn(2, 8, 3, 64, 96))
    assert latents.shape == (2, 2, 8, 2, 3)
    assert vae.decode(latents)[0].shape == (2, 8, 3, 64, 96)


def test_a_stream_may_be_cut_anywhere(vae: VideoVAE) -> None:
    video = torch.randn(1, 12, 3, 32, 32)
    whole, _ = vae.encode(video)
    first, state = vae.encode(video[:, :4])
    rest, _ = vae.encode(video[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    drawn, _ = vae.decode(whole)
    one, state = vae.decode(whole[:, :1])
    two, _ = vae.decode(whole[:, 1:], state)
    torch.testing.assert_close(torch.cat([one, two], 1), drawn)


def test_the_past_is_seen_and_the_future_is_not(vae: VideoVAE) -> None:
    video = torch.randn(1, 12, 3, 32, 32)
    changed = video.clone()
    changed[:, 4:8] += 1
    before, after = vae.encode(video)[0], vae.encode(changed)[0]
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert (before[:, 1:] - after[:, 1:]).abs().amax((0, 2, 3, 4)).min() > 1e-4


def test_statistics_normalise_and_are_undone(vae: VideoVAE) -> None:
    other = VideoVAE(SIZES)
    other.load_state_dict(vae.state_dict())
    other.eval().requires_grad_(False)
    other.latent_mean += 2.0
    other.latent_std *= 4.0
    video = torch.randn(1, 4, 3, 32, 32)
    torch.testing.assert_close(other.encode(video)[0], (vae.encode(video)[0] - 2.0) / 4.0)
    torch.testing.assert_close(other.decode(other.encode(video)[0])[0], vae.decode(vae.encode(video)[0])[0])


def test_wrong_sizes_are_named(vae: VideoVAE) -> None:
    with pytest.raises(ValueError, match="video is 5 frames of 32 x 48"):
        vae.encode(torch.zeros(1, 5, 3, 32, 48))
    with pytest.raises(ValueError, match="latents have 4 channels; this VAE has 8"):
        vae.decode(torch.zeros(1, 1, 4, 1, 1))
