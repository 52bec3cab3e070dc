# SPDX-License-Identifier: Apache-2.0
"""The one attention call of the project: a facade over PyTorch's kernels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """query `[B, H, N, D]`, key and value `[B, H, M, D]`, mask bool `[N, M]` (True = may look) -> `[B, H, N, D]`."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
