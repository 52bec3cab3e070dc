# SPDX-License-Identifier: Apache-2.0
"""As much of the package tensorrt as is called, for a machine without a GPU.

Its engines are the ONNX file itself, run by ONNX Runtime on the buffers whose addresses they were given. Like the real
ones they say which version and card they are of, and are refused elsewhere.
"""

from __future__ import annotations

import ctypes
import enum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

OF_ONNX = {"tensor(float)": ("FLOAT", np.float32), "tensor(uint8)": ("UINT8", np.uint8)}


class Plan(bytes):
    """What a builder gives can be turned into bytes, as the real one's memory can."""


class TensorRtDouble:
    """The module: `sys.modules["tensorrt"]` of a test. builds: files that engines were built from."""

    def __init__(self, version: str = "11.4.0", card: str = "9.0") -> None:
        double = self
        self.__version__ = version
        self.tag = f"{version} {card}\n".encode()
        self.builds: list[str] = []
        self.messages: list[str] = []  # that the parser gives up with
        self.starts: list[int] = []  # streams that engines were started on

        class ILogger:
            Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

            def __init__(self) -> None: ...

        class Builder:
            def __init__(self, logger: ILogger) -> None:
                self.logger = logger

            def create_network(self, flags: int) -> dict[str, Any]:
                assert flags == 1 << double.NetworkDefinitionCreationFlag.STRONGLY_TYPED
                return {}

            def create_builder_config(self) -> Config:
                return Config()

            def build_serialized_network(self, network: dict[str, Any], config: Config) -> Plan | None:
                assert config.cleared == [double.BuilderFlag.TF32]
                path = network["path"]
                double.builds.append(path.name)
                self.logger.log(ILogger.Severity.WARNING, f"building {path.name}")
                return Plan(double.tag + path.read_bytes())

        class Config:
            def __init__(self) -> None:
                self.cleared: list[Any] = []

            def clear_flag(self, flag: Any) -> None:
                self.cleared.append(flag)

        class OnnxParser:
            def __init__(self, network: dict[str, Any], logger: ILogger) -> None:
                self.network = network

            def parse_from_file(self, path: str) -> bool:
                self.network["path"] = Path(path)
                return not double.messages

            num_errors = property(lambda self: len(double.messages))

            def get_error(self, i: int) -> str:
                return double.messages[i]

        class Runtime:
            def __init__(self, logger: ILogger) -> None: ...

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                return Engine(double, plan[len(double.tag) :]) if plan.startswith(double.tag) else None

        self.ILogger, self.Builder, self.OnnxParser, self.Runtime = ILogger, Builder, OnnxParser, Runtime
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Flags", {"STRONGLY_TYPED": 1})
        self.BuilderFlag = enum.Enum("BuilderFlag", "TF32")
        self.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
        self.DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 BF16 INT64")


class Engine:
    """Of one ONNX file, and the only context that is made of it."""

    def __init__(self, double: TensorRtDouble, model: bytes) -> None:
        self.double = double
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.tensors = {x.name: x for x in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [x.name for x in self.session.get_inputs()]
        self.places: dict[str, int] = {}

    num_io_tensors = property(lambda self: len(self.tensors))

    def get_tensor_name(self, i: int) -> str:
        return list(self.tensors)[i]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.double.TensorIOMode
        return modes.INPUT if name in self.inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.double.DataType, OF_ONNX[self.tensors[name].type][0])

    def create_execution_context(self) -> Engine:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.places[name] = address
        return name in self.tensors

    def execute_async_v3(self, stream: int) -> bool:
        self.double.starts.append(stream)
        made = self.session.run(None, {name: self._at(name) for name in self.inputs})
        for output, array in zip(self.session.get_outputs(), made):
            self._at(output.name)[...] = array
        return True

    def _at(self, name: str) -> np.ndarray:
        """The tensor's buffer."""
        shape, dtype = self.get_tensor_shape(name), OF_ONNX[self.tensors[name].type][1]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_char * size).from_address(self.places[name])
        return np.frombuffer(memory, dtype).reshape(shape)
