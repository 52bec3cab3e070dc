# SPDX-License-Identifier: Apache-2.0
"""All that is called of the package tensorrt (10 or later): an engine is built from an ONNX file, loaded, and run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)
#: By their names in `tensorrt.DataType`.
_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorRtError(RuntimeError):
    """What TensorRT cannot build, load or run: one line."""


class TensorRtApi:
    """The package, with its log in ours."""

    def __init__(self) -> None:
        import tensorrt

        self._trt: Any = tensorrt
        self._logger = _logger(tensorrt)
        self._runtime: Any = tensorrt.Runtime(self._logger)

    @property
    def version(self) -> str:
        return self._trt.__version__

    def build(self, model: Path) -> bytes:
        """The engine of an ONNX file for the current CUDA device, serialised. Takes seconds to many minutes.

        Types are those of the file, and float32 is not rounded to TF32. Raises TensorRtError.
        """
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(model)):
            reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
            raise TensorRtError(f"TensorRT {self.version} cannot read {model.name}: {_one_line(reasons)}")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise TensorRtError(f"TensorRT {self.version} cannot build an engine of {model.name}; its log says why")
        return bytes(plan)

    def load(self, plan: bytes) -> LoadedEngine:
        """A serialised engine, on the current CUDA device. Raises TensorRtError for one that does not fit it."""
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise TensorRtError(f"TensorRT {self.version} does not take this engine; its log says why")
        context = engine.create_execution_context()
        if context is None:
            raise TensorRtError("there is no room on the GPU for what this engine works in; use runtime graphs")
        return LoadedEngine(self._trt, engine, context)


class LoadedEngine:
    """An engine and the one context that it is run in. Not for two threads at a time.

    inputs, outputs: shape and type of each tensor, by name
    """

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._engine, self._context = engine, context  # the engine must live as long as the context
        dtypes = {getattr(trt.DataType, name): dtype for name, dtype in _DTYPES.items() if hasattr(trt.DataType, name)}
        self.inputs: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self.outputs: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            into = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found = tuple(engine.get_tensor_shape(name)), dtypes[engine.get_tensor_dtype(name)]
            (self.inputs if into else self.outputs)[name] = found

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Where inputs are read and outputs written from now on; they are held. Raises TensorRtError."""
        for name, tensor in tensors.items():
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise TensorRtError(f"TensorRT does not take the buffer of {name}")
        self._placed = dict(tensors)  # it knows addresses only

    def start(self, stream: int) -> None:
        """Queue one run on a CUDA stream. Raises TensorRtError."""
        if not self._context.execute_async_v3(stream):
            raise TensorRtError("TensorRT could not run an engine; its log says why")


def _logger(trt: Any) -> Any:
    """TensorRT's messages as those of this module."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            _LOG.log(levels.get(severity, logging.DEBUG), "TensorRT: %s", message)

    return Logger()


def _one_line(reasons: list[str]) -> str:
    return " ".join("; ".join(reasons).split())[:300] or "it does not say why"
