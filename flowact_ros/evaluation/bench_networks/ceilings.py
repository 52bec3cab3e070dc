# SPDX-License-Identifier: Apache-2.0
"""What the device reaches on its best day: large matrix products and large copies, measured in the same run.

A data sheet's rates hold for clocks and data that no program sees. Numbers are random: zeros draw less power, and some
cards multiply them faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowact_ros.evaluation.bench_networks.clock import Clock
from flowact_ros.models.fp8 import Fp8Error, check_fp8, round_rows

SIDES = {"cuda": (4096, 8192, 16384), "cpu": (512,)}  # of square matrices; the best side counts
COPIED = {"cuda": 4 << 30, "cpu": 64 << 20}  # [bytes] of a copy: many times any cache


def ceilings(clock: Clock) -> dict[str, Any]:
    """Operations a second of float32, bfloat16 and fp8 products, and bytes a second (read and written) of copies.

    `fp8` is what the denoiser's layers use, a scale a row; None, with a reason, where the device has none.
    """
    device = clock.device
    out: dict[str, Any] = {}
    for name, make in (("float32", _plain(torch.float32)), ("bfloat16", _plain(torch.bfloat16)), ("fp8", _fp8)):
        if name == "fp8":
            try:
                check_fp8(device)
            except Fp8Error as error:
                out[name], out["why_no_fp8"] = None, str(error)
                continue
        out[name] = max(_rate(clock, side, make) for side in SIDES[device.type])
    out["copy_bytes"] = _copy(clock)
    return out


def _plain(dtype: torch.dtype) -> Callable[[int, torch.device], Callable[[], Tensor]]:
    def make(side: int, device: torch.device) -> Callable[[], Tensor]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return make


def _fp8(side: int, device: torch.device) -> Callable[[], Tensor]:
    a, of_a = round_rows(torch.randn(side, side, device=device))
    b, of_b = round_rows(torch.randn(side, side, device=device))
    of_b = of_b.T.contiguous()
    return lambda: torch._scaled_mm(
        a, b.T, scale_a=of_a, scale_b=of_b, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _rate(clock: Clock, side: int, make: Callable[[int, torch.device], Callable[[], Tensor]]) -> float:
    """Operations a second; 0 where the matrices do not fit into the device's memory."""
    try:
        return 2 * side**3 / clock.times(make(side, clock.device)).median
    except torch.OutOfMemoryError:
        return 0.0


def _copy(clock: Clock) -> float:
    size = COPIED[clock.device.type]
    if clock.device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(clock.device)[0] // 4)
    source = torch.randint(256, (size,), dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    return 2 * size / clock.times(lambda: target.copy_(source)).median
