# SPDX-License-Identifier: Apache-2.0
"""Operations of the denoiser's blocks as Triton kernels, for inference on a GPU.

Each file holds one kernel and its reference in torch. Sums are in float32, so that results differ from those of torch
in the last bits of the activations' type. Each is an operation of its own to torch, whose compiler leaves it as it is:
what it would have fused with its neighbours is the price. Which of them pay has not been measured: no card has run them
yet.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from flowact_ros.models.operations import TORCH, Operations, set_operations


def available(device: torch.device) -> bool:
    """Does `device` run them? Triton comes with torch's builds for CUDA."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def operations() -> Operations:
    """All kernels. Raises ImportError without Triton."""
    from flowact_ros.engine.kernels.gate import gate
    from flowact_ros.engine.kernels.modulate import modulate, modulate_rows
    from flowact_ros.engine.kernels.rope import rotate

    return Operations(modulate, modulate_rows, rotate, gate)


def use_kernels(model: nn.Module, wanted: bool = True) -> bool:
    """Has a model's blocks use them, where its device runs them, or torch's own; returns whether they do.

    For inference: gradients do not flow through them.
    """
    used = wanted and available(next(model.parameters()).device)
    set_operations(model, operations() if used else TORCH)
    return used
