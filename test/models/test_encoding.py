# SPDX-License-Identifier: Apache-2.0
"""A few gradient steps on latents: nearer to the video, independent of the cut, possible where nothing is trained."""

from __future__ import annotations

import pytest
import torch
from test_vae import make_vae

from flowact_ros.models.encoding import encode, encode_image
from flowact_ros.models.vae import VAE


def error(vae: VAE, video: torch.Tensor, latents: torch.Tensor) -> float:
    return float((vae.decode(latents)[0] - video).square().mean())


def test_every_step_brings_the_pictures_nearer() -> None:
    vae, video = make_vae(), torch.randn(2, 12, 3, 64, 64)
    errors = [error(vae, video, encode(vae, video, steps)[0]) for steps in (0, 2, 6)]
    assert errors[0] > errors[1] > errors[2]
    assert torch.equal(encode(vae, video, 0)[0], vae.encode(video)[0])


@pytest.mark.parametrize("cut", [(1, 1, 1, 1), (3, 1), (1, 3)])
def test_streamed_equals_whole(cut: tuple[int, ...]) -> None:
    vae, video = make_vae(), torch.randn(1, 16, 3, 64, 96)
    whole = encode(vae, video, 3)[0]
    parts, state = [], None
    for frames in video.split([4 * n for n in cut], 1):
        latents, state = encode(vae, frames, 3, state)
        parts.append(latents)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-3, atol=1e-4)


def test_nothing_is_trained_and_inference_mode_is_no_obstacle() -> None:
    vae, image = make_vae(), torch.randn(1, 3, 64, 64)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with torch.inference_mode():
        inside = encode_image(vae, image.clone(), 2)
    torch.testing.assert_close(inside, encode_image(vae, image, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())
    assert not inside.requires_grad and all(p.grad is None for p in vae.parameters())
