# SPDX-License-Identifier: Apache-2.0
"""Layer norm and modulation in one pass, and with it the rounding to FP8 for the matrices behind it.

The blocks have layer norms, as their weights were trained with, where other transformers take the root mean square.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.engine.kernels.rows import same_device, vectors_of, warps_of, width_of
from flowact_ros.models.fp8 import E4M3, LARGEST, Rows, rounded

EPSILON = 1e-6


def reference(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x `[B, S, T, d]`, shift and scale `[B, S, T or 1, d]`."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


def reference_rows(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    return rounded(reference(x, shift, scale))


@triton.jit
def _row(x, shift, scale, row, shift_step, scale_step, tokens, columns, epsilon, WIDTH: tl.constexpr):
    """One row in float32, zero behind its end, and where its columns are."""
    at = tl.arange(0, WIDTH)
    inside = at < columns
    value = tl.load(x + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / columns, 0.0)
    normed = centred / tl.sqrt(tl.sum(centred * centred, 0) / columns + epsilon)
    vector = row // tokens
    by = tl.load(scale + vector * scale_step + at, mask=inside, other=0.0).to(tl.float32)
    to = tl.load(shift + vector * shift_step + at, mask=inside, other=0.0).to(tl.float32)
    return normed * (1.0 + by) + to, at, inside


@triton.jit
def _modulate(
    x, shift, scale, out, shift_step, scale_step, tokens, columns, epsilon, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    value, at, inside = _row(x, shift, scale, row, shift_step, scale_step, tokens, columns, epsilon, WIDTH)
    tl.store(out + row * columns + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _modulate_rows(
    x, shift, scale, out, scales, shift_step, scale_step, tokens, columns, epsilon, largest, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    value, at, inside = _row(x, shift, scale, row, shift_step, scale_step, tokens, columns, epsilon, WIDTH)
    factor = tl.maximum(tl.max(tl.abs(value), 0) / largest, 1e-12)
    value = tl.minimum(tl.maximum(value / factor, -largest), largest)  # the cast does not saturate
    tl.store(out + row * columns + at, value.to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, factor)


@torch.library.custom_op(
    "flowact::modulate", mutates_args=(), schema="(Tensor x, Tensor shift, Tensor scale) -> Tensor"
)
def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """As `reference`."""
    x = x.contiguous()
    out, columns = torch.empty_like(x), x.shape[-1]
    shift, shift_step, tokens = vectors_of(x, shift)
    scale, scale_step, _ = vectors_of(x, scale)
    width = width_of(columns)
    with same_device(x):
        _modulate[(x.numel() // columns,)](
            x, shift, scale, out, shift_step, scale_step, tokens, columns, EPSILON, WIDTH=width,
            num_warps=warps_of(width),
        )  # fmt: skip
    return out


@modulate.register_fake
def _like(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def modulate_rows(x: Tensor, shift: Tensor, scale: Tensor) -> Rows:
    """As `reference_rows`: what `Fp8Linear` takes."""
    return Rows(*_rounded(x, shift, scale), tuple(x.shape[:-1]), x.dtype)


@torch.library.custom_op(
    "flowact::modulate_rows", mutates_args=(), schema="(Tensor x, Tensor shift, Tensor scale) -> (Tensor, Tensor)"
)
def _rounded(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    columns = x.shape[-1]
    rows = x.numel() // columns
    out = torch.empty(rows, columns, dtype=E4M3, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    shift, shift_step, tokens = vectors_of(x, shift)
    scale, scale_step, _ = vectors_of(x, scale)
    width = width_of(columns)
    with same_device(x):
        _modulate_rows[(rows,)](
            x, shift, scale, out, scales, shift_step, scale_step, tokens, columns, EPSILON, LARGEST, WIDTH=width,
            num_warps=warps_of(width),
        )  # fmt: skip
    return out, scales


@_rounded.register_fake
def _rows_like(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    return x.new_empty((rows, x.shape[-1]), dtype=E4M3), x.new_empty((rows, 1), dtype=torch.float32)
