# SPDX-License-Identifier: Apache-2.0
"""Muon: momentum whose matrix updates are orthogonalised, AdamW for everything that is no matrix.

Deep, nearly linear paths (our VAE, the first layers of the denoiser) learn their data's directions one after another,
largest variance first; with AdamW a whole colour axis was still missing after 1,000 steps. Orthogonalised updates move
all directions at the same speed (Jordan et al. 2024, "Muon"; the scale 0.2 sqrt(max(m, n)) that makes AdamW's learning
rates fit is from Liu et al. 2025, "Muon is scalable for LLM training"). torch.optim.Muon takes 2-D tensors only;
convolutions are matrices [out, in * k * k] here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from flowact_ros.models.precision import best_dtype

SMALLEST_SIDE = 8  # narrower matrices are left to AdamW
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of `[m, n]`, approximately (singular values about 0.7 to 1.2).

    In bf16, which is enough for it, where that is fast: a processor without bf16 units takes 40 times as long for it.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(best_dtype(matrix.device.type))
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(Optimizer):
    """Orthogonalised momentum for matrices, AdamW for the rest; one learning rate for both."""

    def __init__(
        self,
        parameters: Iterable[Tensor | dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
    ) -> None:
        """parameters: tensors, or groups of them as other optimisers take them, each of which is split in two"""
        given = list(parameters)
        alike = [group for group in given if isinstance(group, dict)] or [{"params": given}]
        groups = []
        for group in alike:
            every = [p for p in group["params"] if p.requires_grad]
            matrices = [p for p in every if p.ndim >= 2 and min(p.shape[0], p.numel() // p.shape[0]) >= SMALLEST_SIDE]
            known = {id(p) for p in matrices}
            rest = [p for p in every if id(p) not in known]
            groups.append({**group, "params": matrices, "weight_decay": weight_decay, "matrix": True})
            groups.append({**group, "params": rest, "weight_decay": 0.0, "matrix": False})
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                (self._matrix if group["matrix"] else self._adam)(parameter, group)

    def _matrix(self, parameter: Tensor, group: dict) -> None:
        state, grad = self.state[parameter], parameter.grad
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
        velocity = state["momentum"].lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(velocity, group["momentum"]).flatten(1)  # Nesterov
        scale = 0.2 * max(update.shape) ** 0.5
        parameter.add_(orthogonalise(update).view_as(parameter), alpha=-group["lr"] * scale)

    def _adam(self, parameter: Tensor, group: dict) -> None:
        state, grad = self.state[parameter], parameter.grad
        if "step" not in state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
        first, second = group["betas"]
        state["step"] += 1
        count = float(state["step"])
        mean = state["mean"].lerp_(grad, 1 - first)
        square = state["square"].mul_(second).addcmul_(grad, grad, value=1 - second)
        denominator = (square / (1 - second**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, denominator, value=-group["lr"] / (1 - first**count))
