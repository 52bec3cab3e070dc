# SPDX-License-Identifier: Apache-2.0
"""A module for tensors of fixed shapes at fixed places, which is what CUDA graphs and TensorRT can hold.

What makes the fixed form of a module is a parameter, `Capture`. The bookkeeping around it is the same for all of them,
and runs on a CPU with `in_place`, which captures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: Computes what was captured from its input buffers. Its outputs are overwritten by the next call of it.
Replay = Callable[[], tuple[Tensor, ...]]
#: Makes a `Replay` of a module and its input buffers, whose contents, not places, change from call to call.
Capture = Callable[[nn.Module, tuple[Tensor, ...]], Replay]


class ShapeError(ValueError):
    """Tensors of a shape that nothing was made for: one line that names both."""


def in_place(module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
    """The `Capture` that captures nothing: the module is called on the buffers, time after time."""
    return lambda: module(*buffers)


class Slot:
    """A buffer at a fixed place, and the tensor that was copied into it last. Graphs may share one."""

    def __init__(self, example: Tensor, device: torch.device) -> None:
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be written elsewhere
            self.buffer = torch.empty(example.shape, dtype=example.dtype, device=device)
            self.buffer.copy_(example)
        self._held: Tensor | None = None

    def fill(self, tensor: Tensor) -> None:
        """What is given is never written in place, so that the same tensor, like the sound of all evaluations of a
        chunk, is copied once.
        """
        if tensor is not self._held:
            self.buffer.copy_(tensor, non_blocking=True)
            self._held = tensor


class StaticCall:
    """`module` captured for one set of shapes. Not for two threads at a time: there is one set of buffers.

    name: of what is computed, for errors; slots: of the inputs of a call; fixed: buffers behind them that the caller
    fills itself
    """

    def __init__(
        self, name: str, module: nn.Module, slots: Sequence[Slot], capture: Capture, fixed: tuple[Tensor, ...] = ()
    ) -> None:
        self.name, self._slots = name, slots
        self._replay = capture(module, (*(slot.buffer for slot in slots), *fixed))

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The replay's own outputs: what is to outlive the next call must be copied. Raises ShapeError."""
        shapes, wanted = [tuple(x.shape) for x in given], [tuple(slot.buffer.shape) for slot in self._slots]
        if shapes != wanted:
            raise ShapeError(f"{self.name} was prepared for tensors of {wanted}, not of {shapes}")
        for slot, tensor in zip(self._slots, given):
            slot.fill(tensor)
        return self._replay()
