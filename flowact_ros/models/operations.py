# SPDX-License-Identifier: Apache-2.0
"""What blocks compute between their matrices: norm and modulation, rotation, gated sums.

Plain torch here. On a GPU each is a pass or more over memory for little arithmetic, and `engine.kernels` has the same
in fewer passes. A block takes them from its attribute `operations`, so that one model may use the one and another the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.fp8 import Fp8Linear, Rows, rounded
from flowact_ros.models.rope import Rotary, rotate


@dataclass(frozen=True)
class Operations:
    """One set of them.

    modulate(x, shift, scale): layer norm without weights of its own, then scale and shift; x `[B, S, T, d]`, shift and
    scale `[B, S, T or 1, d]`. modulate_rows: the same, rounded to FP8. rotate(x, rotary): see `models.rope`.
    gate(x, gate, a, b): x + gate * (a + b), of one or two summands.
    """

    modulate: Callable[[Tensor, Tensor, Tensor], Tensor]
    modulate_rows: Callable[[Tensor, Tensor, Tensor], Rows]
    rotate: Callable[[Tensor, Rotary], Tensor]
    gate: Callable[..., Tensor]

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor, *readers: nn.Module) -> Tensor | Rows:
        """As `readers`, the layers that read it, take it best: rounded once, where all of them compute in FP8."""
        if all(isinstance(reader, Fp8Linear) for reader in readers):
            return self.modulate_rows(x, shift, scale)
        return self.modulate(x, shift, scale)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def modulate_rows(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    return rounded(modulate(x, shift, scale))


def gate(x: Tensor, gate: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    return torch.addcmul(x, gate, a if b is None else a + b)


TORCH = Operations(modulate, modulate_rows, rotate, gate)


def set_operations(model: nn.Module, operations: Operations) -> None:
    """Has all blocks below `model` use them."""
    for module in model.modules():
        if isinstance(getattr(module, "operations", None), Operations):
            module.operations = operations
