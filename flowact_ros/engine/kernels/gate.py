# SPDX-License-Identifier: Apache-2.0
"""The gated residual: x + gate * (a + b) in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flowact_ros.engine.kernels.rows import BLOCK, same_device, vectors_of


def reference(x: Tensor, gate: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    """x, a, b `[B, S, T, d]`, gate `[B, S, T or 1, d]`."""
    return x + gate * (a if b is None else a + b)


@triton.jit
def _gate(x, gate, a, b, out, gate_step, tokens, columns, BLOCK: tl.constexpr, BOTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    place = row * columns + at
    added = tl.load(a + place, mask=inside).to(tl.float32)
    if BOTH:
        added += tl.load(b + place, mask=inside).to(tl.float32)
    by = tl.load(gate + (row // tokens) * gate_step + at, mask=inside).to(tl.float32)
    value = tl.load(x + place, mask=inside).to(tl.float32) + by * added
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op(
    "flowact::gate", mutates_args=(), schema="(Tensor x, Tensor gate, Tensor a, Tensor? b=None) -> Tensor"
)
def gate(x: Tensor, gate: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    """As `reference`."""
    x, a, columns = x.contiguous(), a.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    vectors, step, tokens = vectors_of(x, gate)
    with same_device(x):
        _gate[(x.numel() // columns, triton.cdiv(columns, BLOCK))](
            x, vectors, a, a if b is None else b.contiguous(), out, step, tokens, columns, BLOCK=BLOCK,
            BOTH=b is not None,
        )  # fmt: skip
    return out


@gate.register_fake
def _like(x: Tensor, gate: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape)
