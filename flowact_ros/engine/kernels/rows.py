# SPDX-License-Identifier: Apache-2.0
"""How tensors lie, as kernels over rows see them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor

BLOCK = 1024  # columns that a program takes at once


def vectors_of(x: Tensor, vectors: Tensor) -> tuple[Tensor, int, int]:
    """Vectors `[B, S, T or 1, d]` beside tokens x `[B, S, T, d]` -> the vectors, elements from one to the next, and how
    many tokens one is for. They may be a part of wider rows, as modulations are; else they are copied.
    """
    tokens = x.shape[2]
    if vectors.shape not in (x.shape, (*x.shape[:2], 1, x.shape[3])):
        raise ValueError(f"vectors of {list(vectors.shape)} do not fit tokens of {list(x.shape)}")
    step = vectors.stride(2)
    strides = (vectors.shape[1] * vectors.shape[2] * step, vectors.shape[2] * step, step, 1)
    if vectors.stride() != strides:
        vectors = vectors.contiguous()
        step = vectors.shape[3]
    return vectors, step, tokens // vectors.shape[2]


def width_of(columns: int) -> int:
    """Of the block that holds a whole row."""
    return triton.next_power_of_2(columns)


def warps_of(width: int) -> int:
    """Threads by 32 for a row of `width`."""
    return min(16, max(1, width // 512))


def same_device(x: Tensor) -> AbstractContextManager[None]:
    """Kernels start on the current device: that of `x`. Nothing for a CPU, where Triton's interpreter runs."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
