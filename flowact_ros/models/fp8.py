# SPDX-License-Identifier: Apache-2.0
"""Linear layers in FP8 (e4m3): weights rounded once, activations as they come, both with a scale a row.

The product is torch's own `_scaled_mm`, one kernel on a GPU of compute capability 8.9 or later. The same call runs on a
CPU, slowly, so what is tested without a GPU is the code that a GPU runs. Only the large layers inside the blocks are
rounded: embedders, modulations and the last layer are small or steer all tokens, and stay as they are (LongLive rounds
300 of 306 of its linear layers; codebases of 2025 agree on the rest).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448
ALIGNED = 16  # inputs and outputs of `_scaled_mm` are multiples of this
LEAST_CAPABILITY = (8, 9)  # of a GPU with FP8 units: Ada, Hopper and later
KEPT = ("modulation",)  # names of layers, inside a block, that are not rounded


class Fp8Error(ValueError):
    """FP8 where it cannot be: one line."""


def check_fp8(device: str | torch.device) -> None:
    """Raises Fp8Error for a GPU without FP8 units, and for a device other than a CPU or a CUDA GPU."""
    kind = torch.device(device).type
    if kind == "cpu":
        return
    if kind != "cuda":
        raise Fp8Error(f"precision fp8 needs a CUDA GPU (or a CPU, to test it), not {kind}; use bfloat16")
    found = torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise Fp8Error(
            f"precision fp8 needs compute capability {'.'.join(map(str, LEAST_CAPABILITY))} or later; {name} has "
            f"{'.'.join(map(str, found))}: use bfloat16"
        )


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[N, D]` -> e4m3 `[N, D]`, and float32 scales `[N, 1]` by which its rows are to be multiplied.

    Clamped before the cast, which does not saturate: what is rounded past the largest number would become NaN.
    """
    scale = (x.abs().amax(1, keepdim=True).float() / LARGEST).clamp_min(1e-12)
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3), scale


@dataclass(frozen=True)
class Rows:
    """Activations `[..., D]`, rounded: e4m3 `[N, D]`, their scales `[N, 1]`, the other axes, and what type they had."""

    values: Tensor
    scale: Tensor
    axes: tuple[int, ...]
    dtype: torch.dtype


def rounded(x: Tensor) -> Rows:
    """Activations `[..., D]` as `Fp8Linear` takes them, for those that several layers read."""
    return Rows(*round_rows(x.reshape(-1, x.shape[-1])), tuple(x.shape[:-1]), x.dtype)


class Fp8Linear(nn.Module):
    """`linear` for inference, `[..., inputs]` or its `Rows` to `[..., outputs]` of the activations' own type.

    Raises Fp8Error for a layer whose sizes are no multiples of 16.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if not fits(linear):
            raise Fp8Error(
                f"a linear layer of {linear.in_features} to {linear.out_features} does not fit FP8; both must be "
                f"multiples of {ALIGNED}"
            )
        weight, scale = round_rows(linear.weight.detach())
        self.register_buffer("weight", weight)  # [outputs, inputs]; transposed it lies in columns, as is needed
        self.register_buffer("scale", scale.T.contiguous())  # [1, outputs]
        bias = linear.bias
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16))

    def forward(self, x: Tensor | Rows) -> Tensor:
        rows = x if isinstance(x, Rows) else rounded(x)
        out = torch._scaled_mm(
            rows.values, self.weight.T, scale_a=rows.scale, scale_b=self.scale, bias=self.bias,
            out_dtype=torch.bfloat16, use_fast_accum=True,
        )  # fmt: skip
        return out.to(rows.dtype).unflatten(0, rows.axes)


def fits(linear: nn.Linear) -> bool:
    return linear.in_features % ALIGNED == 0 and linear.out_features % ALIGNED == 0


def use_fp8(blocks: nn.Module) -> tuple[list[str], list[str]]:
    """Puts them in place of linear layers below `blocks`. Returns the names of those, and of those that stay."""
    replaced: list[str] = []
    kept: list[str] = []
    names = [name for name, layer in blocks.named_modules() if isinstance(layer, nn.Linear)]
    for name in names:  # not the layers themselves: each one's memory is free before the next is rounded
        layer = blocks.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        parts = name.split(".")
        if not fits(layer) or any(part in KEPT for part in parts):
            kept.append(name)
            continue
        parent = blocks.get_submodule(".".join(parts[:-1]))
        setattr(parent, parts[-1], Fp8Linear(layer))
        replaced.append(name)
    return replaced, kept
