# SPDX-License-Identifier: Apache-2.0
"""What both distillations share: a short training loop that ends by steps or by the clock."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WARM_UP = 100  # steps
LOG_EVERY = 50  # steps
KEEP_EVERY = 500  # steps
RUN_OPTIONS = ("minutes", "steps", "batch", "lr", "seed")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the training itself, for the loop and for the card."""
    return {name: getattr(args, name) for name in RUN_OPTIONS}


def averaged(module: nn.Module) -> AveragedModel:
    """Running mean of the weights over about 200 updates; over fewer at the start, to forget the random ones."""
    return AveragedModel(
        module, avg_fn=lambda mean, new, count: mean + (new - mean) * (9 / (count + 10)).clamp(min=0.005)
    )


def adam(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)


def descend(
    module: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], tuple[Tensor, list[Tensor]]],
    log: Path,
    *,
    minutes: float,
    steps: int,
    lr: float,
    step: int = 0,
    annealing: float = 1.0,
    keep: Callable[[int], None] = lambda step: None,
) -> int:
    """Trains from `step` to `steps`, or until `minutes` are over; returns the step reached.

    loss() draws a batch and returns its loss, and what is logged of it. annealing: power with which the rate falls.
    keep(step), now and then and at the end, writes what is needed to go on.
    """
    start, began = time.monotonic(), step
    with log.open("a", encoding="utf-8") as out:
        while step < steps and (spent := time.monotonic() - start) < 60 * minutes:
            # The schedule follows the slower of the two budgets, so that a slice cut by time still anneals to zero.
            done = max(step / steps, spent / (60 * minutes))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step - began + 1) / WARM_UP) * (1 - done) ** annealing
            value, told = loss()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(module)
            step += 1
            if step % LOG_EVERY == 0:
                out.write(f"{step},{spent:.1f},{','.join(f'{v.item():.4f}' for v in told)}\n")
                out.flush()
            if step % KEEP_EVERY == 0:
                keep(step)
    keep(step)
    return step


def as_on_disk(module: nn.Module) -> None:
    """Rounds the weights to bf16, as a file of them does: what is measured is what is shipped."""
    module.load_state_dict({name: value.bfloat16().float() for name, value in module.state_dict().items()})
