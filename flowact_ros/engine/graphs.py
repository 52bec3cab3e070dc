# SPDX-License-Identifier: Apache-2.0
"""Runtimes for the renderer's static graphs behind one seam: OpenVINO where it is installed, else torch itself."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.engine.runtime import best_threads
from flowact_ros.models.codec.live import Compile, Graph, eager

RUNTIMES = ("auto", "openvino", "eager")


def compiler(runtime: str) -> Compile:
    """Of one of `RUNTIMES`. Raises ValueError for "openvino" where it is not installed."""
    there = importlib.util.find_spec("openvino") is not None
    if runtime == "openvino" and not there:
        raise ValueError("runtime 'openvino' needs the package openvino; `pip install openvino`, or use auto")
    return openvino if there and runtime != "eager" else eager


def openvino(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """`module` compiled for inputs of exactly these shapes, in float32: what moves pixels must not be rounded."""
    import openvino as ov

    with torch.inference_mode():
        graph = ov.convert_model(module.eval(), example_input=example, input=[tuple(x.shape) for x in example])
    threads = best_threads()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
    outputs = range(len(graph.outputs))
    busy = threading.Lock()  # a request takes one call at a time, and a new reference is tried beside the stream

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with busy:
            request.infer([np.ascontiguousarray(x.numpy()) for x in inputs])
            return tuple(torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in outputs)

    return run
