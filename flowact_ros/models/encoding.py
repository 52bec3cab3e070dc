# SPDX-License-Identifier: Apache-2.0
"""Video to latents as well as the decoder allows: what the encoder gives, then a few gradient steps on it.

The encoder is one pass for all videos; what it misses of this one is made up by descending the decoder's own error
(semi-amortised inference, Kim et al. 2018, arXiv 1802.02550). Latent by latent, each behind the decoder's state after
the one before, so that the result does not depend on how the stream is cut. The decoder stays as it is, so the live
stream costs what it did; references and training material are encoded this way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.vae import VAE, State

RATE = 0.05  # of Adam, in deviations of a latent channel
MOMENTA = (0.8, 0.95)  # few steps: short memories


def encode(vae: VAE, video: Tensor, steps: int, state: State | None = None) -> tuple[Tensor, State]:
    """video `[B, 4N, 3, H, W]` in [-1, 1] -> latents `[B, N, C, h, w]`, state for the next piece.

    steps: gradient steps a latent; 0: `VAE.encode` alone. Raises ValueError as that does.
    """
    latents, state = vae.encode(video, state)
    if not steps:
        return latents, state
    time = vae.config.temporal_stride
    decoder = {key: state[f"shown.{key}"] for key in ("decoder.32", "decoder.16") if f"shown.{key}" in state}
    better = []
    for k in range(latents.shape[1]):
        latent = _descend(vae, video[:, time * k : time * (k + 1)], latents[:, k : k + 1], decoder, steps)
        with torch.no_grad():
            decoder = vae.decode(latent, decoder)[1]
        better.append(latent)
    return torch.cat(better, 1), {**state, **{f"shown.{key}": value for key, value in decoder.items()}}


def encode_image(vae: VAE, image: Tensor, steps: int) -> Tensor:
    """image `[B, 3, H, W]` -> the latent `[B, C, h, w]` of four equal frames."""
    return encode(vae, image.unsqueeze(1).expand(-1, vae.config.temporal_stride, -1, -1, -1), steps)[0][:, 0]


def _descend(vae: VAE, frames: Tensor, latent: Tensor, state: State, steps: int) -> Tensor:
    """latent `[B, 1, C, h, w]` -> one whose pictures after decoder state `state` are nearer to `frames`."""
    with torch.inference_mode(False), torch.enable_grad():
        # tensors made in inference mode cannot be differentiated: their copies can
        frames, state = frames.float().clone(), {name: past.clone() for name, past in state.items()}
        moved = latent.float().clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=RATE, betas=MOMENTA)
        for _ in range(steps):
            shown = vae.decode(moved.to(latent.dtype), state)[0].float()
            (moved.grad,) = torch.autograd.grad((shown - frames).square().mean(), moved)
            optimizer.step()
        return moved.detach().to(latent.dtype)
