# SPDX-License-Identifier: Apache-2.0
"""Runtimes for the renderer's static graphs behind one seam: OpenVINO where it is installed, else torch itself."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.models import codec
from flowact_ros.models.codec.live import Compile, Graph, eager

RUNTIMES = ("auto", "openvino", "eager")
_LOG = logging.getLogger(__name__)
_CONVERTING = threading.Lock()  # OpenVINO's converter takes one module at a time


def compiler(runtime: str) -> Compile:
    """Of one of `RUNTIMES`. Raises ValueError for "openvino" where it is not installed."""
    there = importlib.util.find_spec("openvino") is not None
    if runtime == "openvino" and not there:
        raise ValueError("runtime 'openvino' needs the package openvino; `pip install openvino`, or use auto")
    return openvino if there and runtime != "eager" else eager


def openvino(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """`module` compiled for inputs of these shapes, as it is written (a flow must not be rounded), for one thread:
    graphs of the same latent run beside each other.

    Converting takes seconds, so the graph is kept in the user's cache folder by a hash of weights, sources, versions.
    """
    import openvino as ov

    core = ov.Core()
    path = cache_folder() / f"{type(module).__name__.lower()}-{_fingerprint(module, example, ov.__version__)}.xml"
    if path.exists():
        graph = core.read_model(path)
    else:
        with _CONVERTING, torch.inference_mode():
            traced = torch.jit.trace(module.eval(), example, check_trace=False)
            graph = ov.convert_model(traced, example_input=example)
        graph.reshape({i: tuple(x.shape) for i, x in enumerate(example)})  # without, twice as slow
        _keep(graph, path)
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # else all graphs would share the first core
    }
    request = core.compile_model(graph, "CPU", options).create_infer_request()
    outputs = range(len(graph.outputs))
    lock = threading.Lock()  # a request serves one call at a time; references are checked beside the stream

    def begin(*inputs: Tensor) -> Callable[[], tuple[np.ndarray, ...]]:
        lock.acquire()
        request.start_async([np.ascontiguousarray(x.numpy()) for x in inputs])

        def wait() -> tuple[np.ndarray, ...]:
            try:
                request.wait()
                return tuple(request.get_output_tensor(i).data.copy() for i in outputs)
            finally:
                lock.release()

        return wait

    return begin


def cache_folder() -> Path:
    """Where converted graphs are kept: `$XDG_CACHE_HOME/flowact_ros`, by default `~/.cache/flowact_ros`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowact_ros"


def _fingerprint(module: nn.Module, example: tuple[Tensor, ...], version: str) -> str:
    digest = hashlib.sha256(f"{version} {torch.__version__} {[tuple(x.shape) for x in example]} {module}".encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    for source in sorted(Path(codec.__file__).parent.glob("*.py")):  # what the weights are used for
        digest.update(source.read_bytes())
    return digest.hexdigest()[:20]


def _keep(graph: Any, path: Path) -> None:
    import openvino as ov

    partial = path.with_name(f"{path.stem}.{os.getpid()}.xml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(graph, partial, compress_to_fp16=False)
        partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        _LOG.warning("the converted renderer is not kept (%s): each start converts it anew", error)
