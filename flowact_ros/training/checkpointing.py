# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing: what a block computed is computed again on the way back instead of being kept.

A step then holds the inputs of its blocks and the inside of one of them, and costs a third more arithmetic. A block is
what lies in a list of blocks, as for `World.shard`: its weights keep their names, so that runs with and without go on
with each other's states. Keys and values that a block gives out are read by later windows, and are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network, in its own lists."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else ()


def checkpoint_blocks(module: nn.Module) -> None:
    """Compute the activations of each block again when they are needed. Raises ValueError for a network without."""
    found = list(blocks(module))
    if not found:
        raise ValueError(f"--checkpoint-activations: a {type(module).__name__} has no blocks to compute again")
    for block in found:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
