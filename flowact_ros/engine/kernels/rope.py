# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding in one pass: a channel and its partner, half a head away, are read together."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flowact_ros.engine.kernels.rows import same_device, width_of
from flowact_ros.models.rope import Rotary

TOKENS = 16  # that a program rotates


def reference(x: Tensor, rotary: Rotary) -> Tensor:
    """x `[B, H, N, D]`, tables `[N, D]`, or `[B, 1, N, D]` of streams each; see `models.rope.rotation`."""
    cos, sin = (part.to(x.dtype) for part in rotary)
    half = x.shape[-1] // 2
    return x * cos + torch.cat([x[..., half:], x[..., :half]], -1) * sin


@triton.jit
def _rotate(x, cos, sin, out, tokens, channels, heads, table_step, TOKENS: tl.constexpr, WIDTH: tl.constexpr):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, WIDTH)
    inside = (token < tokens)[:, None] & (channel < channels)[None, :]
    partner = tl.where(channel < channels // 2, channel + channels // 2, channel - channels // 2)
    base = tl.program_id(1).to(tl.int64) * tokens * channels + token[:, None] * channels
    table = (tl.program_id(1) // heads) * table_step + token[:, None] * channels + channel[None, :]
    own = tl.load(x + base + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    other = tl.load(x + base + partner[None, :], mask=inside, other=0.0).to(tl.float32)
    turned = own * tl.load(cos + table, mask=inside, other=0.0).to(tl.float32)
    turned += other * tl.load(sin + table, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + base + channel[None, :], turned.to(out.dtype.element_ty), mask=inside)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """As `reference`; the tables are read in the type that they have. Raises ValueError for tables of another shape."""
    return _rotated(x, *rotary)


@torch.library.custom_op("flowact::rotate", mutates_args=(), schema="(Tensor x, Tensor cos, Tensor sin) -> Tensor")
def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    batch, heads, tokens, channels = x.shape
    if cos.shape not in ((tokens, channels), (batch, 1, tokens, channels)):
        raise ValueError(f"tables of {list(cos.shape)} do not fit {list(x.shape)}")
    out = torch.empty_like(x)
    with same_device(x):
        _rotate[(triton.cdiv(tokens, TOKENS), batch * heads)](
            x, cos, sin, out, tokens, channels, heads, tokens * channels if cos.dim() == 4 else 0, TOKENS=TOKENS,
            WIDTH=width_of(channels),
        )  # fmt: skip
    return out


@_rotated.register_fake
def _like(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x.new_empty(x.shape)
