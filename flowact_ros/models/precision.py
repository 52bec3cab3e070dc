# SPDX-License-Identifier: Apache-2.0
"""What networks are computed in, and on what."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from flowact_ros.models.fp8 import check_fp8, use_fp8

PRECISIONS = ("auto", "float32", "bfloat16", "int8", "fp8")  # of a denoiser
BFLOAT16_CAPABILITY = (8, 0)  # of a GPU that multiplies it; older ones emulate it
LEAST_WIDTH = 256  # inputs and outputs; below, rounding the activations costs more than it saves


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX-512 BF16, AMX, a CUDA GPU of compute capability 8.0 or
    later), else float32.
    """
    kind = torch.device(device).type
    if kind == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < BFLOAT16_CAPABILITY:
        return torch.float32
    if kind != "cpu":
        return torch.bfloat16
    native = (
        torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    )
    return torch.bfloat16 if native else torch.float32


def check_device(device: str) -> None:
    """Raises ValueError, one line, where torch cannot compute on `device`."""
    try:
        torch.ones(1, device=device).add(1).item()  # a card that is too old for this build fails at the first kernel
    except (RuntimeError, AssertionError) as error:  # or: no such name; a build without CUDA; no such card
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); cpu always can") from None


class Int8Linear(nn.Module):
    """`linear` for inference on a CPU, float32 `[..., inputs]` to float32 `[..., outputs]`.

    Weights are int8 with a scale a row; activations are rounded when they come, with one scale for all of them (dynamic
    quantisation, torch's FBGEMM kernels). With 12 rows, reading the weights is the work, and int8 has a quarter of it.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12).double()
        with warnings.catch_warnings():  # quantised tensors go in some release after the one that is pinned
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel")
            rounded = torch.quantize_per_channel(
                weight, scale, torch.zeros_like(scale, dtype=torch.long), 0, torch.qint8
            )
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        # 7 bits of activation: a pair of products of 8 bits each would overflow the 16 bits that AVX2 adds them in
        return torch.ops.quantized.linear_dynamic(x, self._packed, True)


def has_int8() -> bool:
    """Does this torch have kernels for this processor? They are FBGEMM's, for x86 with AVX2."""
    kernels = hasattr(torch, "quantize_per_channel") and torch.backends.quantized.engine in ("x86", "fbgemm")
    return kernels and torch.cpu._is_avx2_supported()


def use_int8(module: nn.Module) -> int:
    """Puts them in place of all large linear layers below `module`. Returns how many."""
    count = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and min(child.in_features, child.out_features) >= LEAST_WIDTH:
            setattr(module, name, Int8Linear(child))
            count += 1
        else:
            count += use_int8(child)
    return count


def automatic(device: str) -> str:
    """What a denoiser is computed in on `device` unless somebody chooses: as exact as real time lets it be.

    Rounded activations make the motion tremble a little: only a processor that needs the time takes them.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return "int8" if has_int8() and best_dtype(device) == torch.float32 else "float32"
    return "bfloat16" if best_dtype(device) == torch.bfloat16 else "float32"


def check_precision(precision: str, device: str) -> None:
    """Raises ValueError, one line, for what is none of PRECISIONS or cannot be on `device`."""
    if precision not in PRECISIONS:
        known = f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        raise ValueError(f"precision {precision!r} does not exist; use {known}")
    if precision == "int8" and not (torch.device(device).type == "cpu" and has_int8()):
        raise ValueError("precision int8 needs an x86 processor with AVX2; use auto")
    if precision == "fp8":
        check_fp8(device)


def set_precision(denoiser: nn.Module, precision: str, device: str) -> str:
    """Has a network with `double_blocks` and `single_blocks` computed in one of PRECISIONS; returns which it became.

    Raises ValueError as `check_precision`.
    """
    check_precision(precision, device)
    chosen = automatic(device) if precision == "auto" else precision
    blocks = (denoiser.double_blocks, denoiser.single_blocks)
    if chosen == "int8":
        for part in blocks:
            use_int8(part)
    if chosen in ("bfloat16", "fp8"):
        for parameter in denoiser.parameters():  # buffers stay: places of tokens are not to be rounded
            parameter.data = parameter.data.to(torch.bfloat16)
    if chosen == "fp8":
        for part in blocks:
            use_fp8(part)
    return chosen
