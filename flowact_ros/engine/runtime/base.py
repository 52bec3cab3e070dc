# SPDX-License-Identifier: Apache-2.0
"""The one seam for what computes the networks.

| name | renderer, decoder | denoiser | where |
|---|---|---|---|
| `eager` | torch | torch | anywhere |
| `openvino` | OpenVINO, on the CPU | torch | where the package is installed |
| `graphs` | CUDA graphs | `torch.compile` a block, a CUDA graph a level of memory | CUDA |
| `tensorrt` | engines of TensorRT | an engine for a full memory, else graphs | CUDA, where it is installed |

`auto` is `graphs` on a GPU; on a CPU it is `openvino` where it is installed, else `eager`.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowact_ros.engine.kernels import use_kernels
from flowact_ros.models.codec.live import Graph
from flowact_ros.models.dit import DiT

RUNTIMES = ("auto", "eager", "openvino", "graphs", "tensorrt")

Progress = Callable[[str], None]  # is told one line after each part of a long preparation


def silent(line: str) -> None:
    """The `Progress` of a caller that wants none."""


class Runtime(ABC):
    """What computes the networks of one process on one device. Made by `choose`.

    kernels: may blocks of the denoiser use `engine.kernels`, where the device runs them? What they bring is measured by
    a run without.
    """

    name: ClassVar[str]
    beside = 1  # streams whose graphs are computed beside each other, where a graph takes one call at a time

    def __init__(self, device: str | torch.device = "cpu", *, kernels: bool = True) -> None:
        self.device = torch.device(device)
        self.kernels = kernels

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of what computes the static graphs, for records: other ones may give other bits."""

    @abstractmethod
    def compile(self, module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        """`module`, a function of tensors that returns a tuple of them, for inputs of the shapes of `example`.

        Inputs may lie on the CPU or on the runtime's device; outputs come to the host. Calls may come from several
        threads. `module` is not changed; its weights must not change afterwards.
        """

    def denoiser(self, model: DiT, batches: tuple[int, ...] = (1,)) -> DiT:
        """`model`, which is on the device in its precision, as this runtime computes it.

        What is returned is called as a `DiT` is, and has its `config`, `windows` and `parameters`. batches: how many
        streams are computed together. A runtime whose shapes are fixed makes no keys and values in calls of several
        slots (`engine.runtime.denoiser`).
        """
        use_kernels(model, self.kernels)
        return model

    def prepare(self, denoiser: DiT, tell: Progress = silent) -> None:  # noqa: B027
        """Does the slow part of what `denoiser` gave: compiling and capturing, before the first frame is due."""

    @property
    def rounds(self) -> bool:
        """Does it compute convolutions in int8 where the ranges of their inputs are known?"""
        return False

    @property
    def overlaps(self) -> bool:
        """Does it compute `compile`'s graphs beside the denoiser, once they are begun?"""
        return False

    @property
    def waits_ms(self) -> dict[str, float]:
        """Medians of what calls of `compile`'s graphs waited for, see `Lanes`; empty where nothing is measured."""
        return {}


def choose(name: str, device: str | torch.device = "cpu", *, kernels: bool = True) -> Runtime:
    """The runtime of one of RUNTIMES for `device`; kernels: see `Runtime`.

    Raises ValueError, one line, for one that cannot be.
    """
    kind = torch.device(device).type
    if name not in RUNTIMES:
        raise ValueError(f"runtime {name!r} does not exist; use {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]}")
    if name == "auto":
        name = "graphs" if kind == "cuda" else "openvino" if installed("openvino") else "eager"
    if name in ("graphs", "tensorrt") and kind != "cuda":
        raise ValueError(f"runtime {name!r} needs a CUDA GPU, and the device is {kind}; use auto")
    if name in ("openvino", "tensorrt") and not installed(name):
        raise ValueError(f"runtime {name!r} needs the package {name}; `pip install {name}`, or use auto")
    return _make(name, device, kernels)


def _make(name: str, device: str | torch.device, kernels: bool) -> Runtime:
    """Imported here, not above: each needs libraries of its own."""
    if name == "openvino":
        from flowact_ros.engine.runtime.openvino import OpenVino

        return OpenVino(device, kernels=kernels)
    if name == "graphs":
        from flowact_ros.engine.runtime.graphs import CudaGraphs

        return CudaGraphs(device, kernels=kernels)
    if name == "tensorrt":
        from flowact_ros.engine.runtime.tensorrt import TensorRt

        return TensorRt(device)  # what is exported is torch's own operations
    from flowact_ros.engine.runtime.eager import Eager

    return Eager(device, kernels=kernels)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
