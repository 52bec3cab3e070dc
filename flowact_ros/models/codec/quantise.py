# SPDX-License-Identifier: Apache-2.0
"""int8 for the convolutions of the live renderer (static quantisation).

A convolution's input is rounded to 8 bits between limits that were measured when the weights were exported, its weights
to 7 bits with a scale an output: AVX2 adds products of 8 and 8 bits in 16, which would overflow. The module computes
the rounded values in float32; a runtime with int8 kernels (OpenVINO) finds the rounding in the graph and uses them.
What computes a flow stays in float32: rounded places would make the picture tremble.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Ranges = dict[str, tuple[float, float]]  # of a convolution's input, by its name in the renderer

LEVELS = 255  # of an activation
WEIGHT_LEVELS = 63  # of a weight on either side of 0
TAIL = 1e-4  # share of the activations beyond either limit, which is cut off
_SAMPLE = 7  # every so manieth activation is looked at


class RoundedConv(nn.Module):
    """`conv` with rounded weights and inputs in `low` .. `high`."""

    def __init__(self, conv: nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 1e-6)
        self.scale = (high - low) / LEVELS
        self.zero = round(-low / self.scale)
        self.padding = conv.padding
        step = (conv.weight.detach().abs().flatten(1).amax(1) / WEIGHT_LEVELS).clamp_min(1e-12)
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", conv.bias.detach())
        self.register_buffer("step", step)
        self.register_buffer("middle", torch.zeros(len(step), dtype=torch.int32))

    def extra_repr(self) -> str:
        return f"scale={self.scale}, zero={self.zero}"

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, LEVELS)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.step, self.middle, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )
        return F.conv2d(x, weight, self.bias, padding=self.padding)


def measure_ranges(module: nn.Module, run: Callable[[], object]) -> Ranges:
    """Limits of the inputs of all convolutions of `module` while `run` uses it."""
    ranges: Ranges = {}

    def look(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].flatten()[::_SAMPLE].sort().values
            cut = int(TAIL * len(seen))
            low, high = float(seen[cut]), float(seen[-1 - cut])
            before = ranges.get(name, (low, high))
            ranges[name] = (min(low, before[0]), max(high, before[1]))

        return hook

    hooks = [
        m.register_forward_pre_hook(look(n)) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)
    ]
    try:
        with torch.inference_mode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def rounded(module: nn.Module, ranges: Ranges) -> nn.Module:
    """A copy of `module` with `RoundedConv` for each convolution that has a range and computes no flow."""
    module = copy.deepcopy(module)
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.Conv2d) and name in ranges and not name.endswith("flow"):
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, RoundedConv(child, *ranges[name]))
    return module
