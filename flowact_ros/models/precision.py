# SPDX-License-Identifier: Apache-2.0
"""What networks are computed in, and on what."""

from __future__ import annotations

import torch


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX-512 BF16, AMX, any CUDA GPU), else float32."""
    if device != "cpu":
        return torch.bfloat16
    native = (
        torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    )
    return torch.bfloat16 if native else torch.float32


def check_device(device: str) -> None:
    """Raises ValueError, one line, where torch cannot compute on `device`."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such name; a build without CUDA; no such card
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); cpu always can") from None
