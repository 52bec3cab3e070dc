# SPDX-License-Identifier: Apache-2.0
"""What the stages of the denoiser minimise, as functions of predictions alone: no network, no data, no schedule.

Predictions are clean latents `[B, S, P, C]`. At one noise level a clean prediction and a velocity differ by a linear
map, so that guidance and its convention are the same in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.diffusion.schedule import velocity_weight


def changes(off: Tensor) -> Tensor:
    """Errors `[B, S, P, C]` -> those of the change to each frame from the one before, of which the first is known."""
    frames = off.flatten(1, 2)
    return (frames - torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)).view_as(off)


def motion_cost(off: Tensor, sigma: Tensor, weight: Tensor, change_weight: Tensor) -> Tensor:
    """The sum over all frames of the squared errors `off` `[B, S, P, C]` of predictions made at sigma `[B, S]`.

    weight `[C]`: of each control; change_weight `[C]`: how much the error of its changes from frame to frame counts
    beside its own
    """
    costs = off.square() + change_weight * changes(off).square()
    return (costs * weight * velocity_weight(sigma)[..., None, None]).sum()


def latent_cost(off: Tensor, sigma: Tensor) -> Tensor:
    """The same of latents of pictures, whose channels all count alike and change by whole latents."""
    return (off.square() * velocity_weight(sigma)[..., None, None]).sum()


def guided(conditional: Tensor, unconditional: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance: u + scale (c - u), with scale `[B]`; 1 is the conditional prediction, 0 the other.

    Ho and Salimans 2022 write 1 + w for this scale; some codebases add w (c - u) to c, whose 3 is a 4 here.
    """
    return unconditional + scale[:, None, None, None] * (conditional - unconditional)


def matching_loss(made: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Distribution matching (Yin et al. 2024, "DMD2"; paper, section 2.2): its gradient moves `made` from fake to real.

    made: the student's samples, which carry the gradient; real, fake: what the teacher and the critic take for clean
    when they see `made` under noise. The difference is divided by how far the teacher would move each sample, so that
    all noise levels count alike; where both networks agree, the gradient is zero.
    """
    with torch.no_grad():
        size = (made - real).abs().mean((1, 2, 3), keepdim=True)
        direction = (fake - real) / size.clamp_min(1e-6)
        target = (made - direction).detach()
    return 0.5 * (made - target).square().mean()


def flow_loss(predicted: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """The mean squared error of the velocity at sigma `[B, S]`, capped where there is little noise: the critic's."""
    return ((predicted - clean).square() * velocity_weight(sigma)[..., None, None]).mean()
