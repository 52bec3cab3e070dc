# SPDX-License-Identifier: Apache-2.0
"""A denoiser with random weights that is sensitive to all of its inputs, and conditions for it."""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.diffusion.sampler import noise_for
from flowact_ros.models.config import ModelConfig, debug
from flowact_ros.models.dit import Condition, DiT

CONFIG = debug()
SHAPE = CONFIG.dit.latent_shape


class Counted(DiT):
    """Counts forward passes over noisy slots."""

    evaluations = 0

    def forward(self, noisy: Tensor, sigma: Tensor, *rest, **more):  # type: ignore[no-untyped-def, override]
        if float(sigma.max()) > 0:
            self.evaluations += 1
        return super().forward(noisy, sigma, *rest, **more)


def make_model(config: ModelConfig = CONFIG, seed: int = 2) -> Counted:
    torch.manual_seed(seed)
    model = Counted(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # modulations start at zero, where blocks do nothing
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def condition(slots: int, seed: int, rows: int = 1) -> Condition:
    g = torch.Generator().manual_seed(seed)
    return Condition(
        torch.randn(rows, slots, 4, 384, generator=g), torch.randn(rows, slots, 1, 384, generator=g)
    )


def noise(first: int, count: int) -> Tensor:
    return torch.stack([noise_for(5, first + i, SHAPE) for i in range(count)], 1)
