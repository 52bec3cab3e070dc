# SPDX-License-Identifier: Apache-2.0
"""OpenVINO, for static graphs on the CPU."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.engine.runtime.base import Runtime
from flowact_ros.engine.runtime.openvino_cache import KeptGraph
from flowact_ros.models import codec
from flowact_ros.models.codec.live import Graph
from flowact_ros.models.precision import has_int8

_CONVERTING = threading.Lock()  # OpenVINO's converter takes one module at a time


class OpenVino(Runtime):
    """The renderer's graphs in OpenVINO, on the CPU whatever the device is; the denoiser in torch, on the device."""

    name = "openvino"

    def __init__(self, device: str | torch.device = "cpu", *, kernels: bool = True) -> None:
        super().__init__(device, kernels=kernels)
        self._workers = Workers(lambda: self.beside)

    @property
    def version(self) -> str:
        import openvino as ov

        return "openvino " + "-".join(ov.__version__.split("-")[:2])  # without commit and branch

    @property
    def rounds(self) -> bool:
        return has_int8()

    def compile(self, module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        return convert(module, example, self._workers)


class Workers:
    """Who computes a graph: a thread beside its caller, as long as there is no more than one for each; else the caller
    himself, when he waits for it. Three graphs at a time would share two cores, and the longest of them would be late.
    """

    def __init__(self, callers: Callable[[], int]) -> None:
        self.callers, self._busy, self._lock = callers, 0, threading.Lock()

    def take(self) -> bool:
        """Is there one? `give_back` it."""
        with self._lock:
            free = self._busy < self.callers()
            self._busy += free
        return free

    def give_back(self) -> None:
        with self._lock:
            self._busy -= 1


def convert(module: nn.Module, example: tuple[Tensor, ...], workers: Workers | None = None) -> Graph:
    """`module` compiled for inputs of these shapes, as it is written (a flow must not be rounded), for one thread:
    graphs of the same latent run beside each other. As many calls are computed beside each other as there are callers;
    another one waits. workers: of all graphs that are called in turn; without, this one has its own

    What was converted and compiled is kept in the user's cache folder by a hash of weights, sources and versions.
    """
    import openvino as ov

    workers = workers or Workers(lambda: 1)

    def converted() -> Any:
        with _CONVERTING, torch.inference_mode():
            traced = torch.jit.trace(module.eval(), example, check_trace=False)
            graph = ov.convert_model(traced, example_input=example)
        graph.reshape({i: tuple(x.shape) for i, x in enumerate(example)})  # without, twice as slow
        return graph

    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # else all graphs would share the first core
    }
    name = f"{type(module).__name__.lower()}-{_fingerprint(module, example, ov.__version__)}"
    kept = KeptGraph(ov.Core(), name, options, converted)
    free: SimpleQueue[Any] = SimpleQueue()  # a request serves one call at a time; references are checked beside streams
    own = kept.compiled()
    free.put(own.create_infer_request())
    outputs = range(len(own.outputs))
    made, making = [1], threading.Lock()

    def taken() -> Any:
        with making:
            if free.empty() and made[0] < workers.callers():
                made[0] += 1
                return kept.compiled().create_infer_request()
        return free.get()

    def given_back(request: Any, beside: bool) -> None:
        free.put(request)
        if beside:
            workers.give_back()

    def begin(*inputs: Tensor) -> Callable[[], tuple[np.ndarray, ...]]:
        own, beside = taken(), workers.take()
        try:
            arrays = [np.ascontiguousarray(x.numpy()) for x in inputs]
            if beside:
                own.start_async(arrays)
        except BaseException:
            given_back(own, beside)
            raise

        def wait() -> tuple[np.ndarray, ...]:
            try:
                if beside:
                    own.wait()
                else:
                    own.infer(arrays)
                return tuple(own.get_output_tensor(i).data.copy() for i in outputs)
            finally:
                given_back(own, beside)

        return wait

    return begin


def _fingerprint(module: nn.Module, example: tuple[Tensor, ...], version: str) -> str:
    digest = hashlib.sha256(f"{version} {torch.__version__} {[tuple(x.shape) for x in example]} {module}".encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    for source in sorted(Path(codec.__file__).parent.glob("*.py")):  # what the weights are used for
        digest.update(source.read_bytes())
    return digest.hexdigest()[:20]
