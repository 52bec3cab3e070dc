# SPDX-License-Identifier: Apache-2.0
"""Wider painters of hands and forearms that begin with what narrower ones have learned.

Nothing changes at first: what the new channels say is multiplied by zero wherever an old one hears it. Their own
weights begin as those of a new network do, so they are free to learn (Net2Net, arXiv 1511.05641, section 2).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.models.checkpoint import CheckpointError, load_weights, read_card
from flowact_ros.models.codec.painters import SpritePainter
from flowact_ros.models.codec.renderer import Renderer

WIDTHS = ("hand_widths", "arm_widths")  # of the configuration: what may have grown


def load_wider(path: Path, renderer: Renderer) -> dict[str, Any]:
    """Load shipped weights into `renderer`, whose painters of hands may be wider; returns the card.

    Raises CheckpointError for weights that differ from it in anything else, or that are wider than it.
    """
    config = renderer.config
    had = {name: tuple(read_card(path).get("config", {}).get(name, getattr(config, name))) for name in WIDTHS}
    for name, widths in had.items():
        wanted = getattr(config, name)
        if len(widths) != len(wanted) or any(a > b for a, b in zip(widths, wanted)):
            raise CheckpointError(f"{path.name} was made for {name} = {widths}; {wanted} is not wider")
    narrow = Renderer(replace(config, **had))
    card = load_weights(path, narrow, kind="renderer", config=narrow.config)
    same = {k: v for k, v in narrow.state_dict().items() if not k.startswith(("hands.hand.", "hands.arm."))}
    renderer.load_state_dict(same, strict=False)
    widen(renderer.hands.hand, narrow.hands.hand)
    widen(renderer.hands.arm, narrow.hands.arm)
    return card


@torch.no_grad()
def widen(painter: SpritePainter, narrow: SpritePainter) -> None:
    """Let `painter`, as it was made new, paint what `narrow` does, whose widths are not larger."""
    old = dict(narrow.named_modules())
    painter.place[:, : narrow.place.shape[1]] = narrow.place
    for name, module in painter.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            halves = 2 if name.endswith(".modulation") else 1  # its outputs are all scales, then all shifts
            _put(module.weight, old[name].weight, halves)
            _put(module.bias, old[name].bias, halves)


def _put(wide: Tensor, narrow: Tensor, halves: int) -> None:
    """`narrow` where the old channels are; from new inputs to old outputs go zeros."""
    for whole, part in zip(wide.chunk(halves), narrow.chunk(halves)):
        rows = len(part)
        if part.dim() > 1:
            whole[:rows] = 0
            whole[:rows, : part.shape[1]] = part
        else:
            whole[:rows] = part
