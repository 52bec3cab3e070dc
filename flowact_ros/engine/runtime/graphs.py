# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs, and blocks of the denoiser by `torch.compile`.

A block is compiled, not the network: the blocks are alike, so that there are two to compile and not thirty. What the
compiler makes is captured together with the rest of a forward pass, so that a pass is one launch.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.engine.kernels import use_kernels
from flowact_ros.engine.runtime.base import Progress, Runtime, silent
from flowact_ros.engine.runtime.denoiser import StaticDenoiser, levels
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.engine.runtime.static import Capture, Replay, Slot, StaticCall
from flowact_ros.models.codec.live import Graph
from flowact_ros.models.dit import DiT

WARM_UP = 3  # calls before a capture: libraries choose kernels and make workspaces, which a capture may not


class CudaGraphs(Runtime):
    """See the module docstring.

    capture: of one device's graphs; lanes: where drawing and copying run; compile_block: what is done to a block
    """

    name = "graphs"

    def __init__(
        self,
        device: str | torch.device = "cuda",
        *,
        kernels: bool = True,
        capture: Capture | None = None,
        lanes: Lanes | None = None,
        compile_block: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__(device, kernels=kernels)
        self._capture = capture or graph_capture(self.device)
        self.lanes = lanes or Lanes(self.device)
        self._compile_block = compile_block or compile_in_place

    @property
    def version(self) -> str:
        return f"torch {torch.__version__} graphs"

    def compile(self, module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        there = copy.deepcopy(module).to(self.device)
        call = StaticCall(type(module).__name__, there, [Slot(x, self.device) for x in example], self._capture)
        return lambda *inputs: self.lanes.begin(call, *inputs)

    def denoiser(self, model: DiT, batches: Sequence[int] = (1,)) -> DiT:
        use_kernels(model, self.kernels)
        for block in (*model.double_blocks, *model.single_blocks):
            self._compile_block(block)
        shapes = 2 * len(levels(model.config, batches))  # blocks of two kinds

        def capture(module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
            with roomy_compiler(shapes):
                return self._capture(module, buffers)

        return StaticDenoiser(model, capture, batches)

    def prepare(self, denoiser: DiT, tell: Progress = silent) -> None:
        if isinstance(denoiser, StaticDenoiser):
            denoiser.prepare(tell)

    @property
    def overlaps(self) -> bool:
        return True

    @property
    def waits_ms(self) -> dict[str, float]:
        return self.lanes.waits_ms


def graph_capture(device: torch.device) -> Capture:
    """Captures modules as CUDA graphs. Those of one module share a pool of memory.

    They may: they run behind each other on one stream, and what one gave is copied away before the next one runs. Those
    of two modules may run beside each other. Other threads may allocate meanwhile, which a capture would else forbid.
    """
    pools: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()
    lock = threading.Lock()  # one capture at a time on a device

    def capture(module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
        with lock, torch.cuda.device(device), torch.inference_mode():
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    module(*buffers)
            torch.cuda.current_stream(device).wait_stream(aside)
            pool = pools[module] if module in pools else torch.cuda.graph_pool_handle()
            pools[module] = pool
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                outputs = module(*buffers)

        def replay() -> tuple[Tensor, ...]:
            graph.replay()
            return outputs

        return replay

    return capture


def compile_in_place(block: nn.Module) -> None:
    """By inductor, without graphs of its own: whole passes are captured. A part that it cannot compile is an error, not
    a slow path. It specialises for the first shape that it sees, and then makes one of any length.
    """
    block.compile(fullgraph=True, mode="max-autotune-no-cudagraphs")


def roomy_compiler(shapes: int) -> Any:
    """A context in which one piece of code may be compiled for so many shapes before the compiler gives up."""
    import torch._dynamo as dynamo

    return dynamo.config.patch(
        recompile_limit=max(dynamo.config.recompile_limit, shapes),
        accumulated_recompile_limit=max(dynamo.config.accumulated_recompile_limit, 4 * shapes),
    )
