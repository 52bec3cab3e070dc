# SPDX-License-Identifier: Apache-2.0
"""A network as an ONNX file, for tensors of fixed shapes, and how far ONNX Runtime is from torch with it.

A network in float32 is traced, as for OpenVINO: it is a function of tensors without branches that depend on them. That
takes a fraction of the time of the exporter on `torch.export`, for the same numbers. In bfloat16 tracing puts sums into
float32 and leaves norms whose inputs have two types, which no runtime takes; there the other exporter writes the file.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Layer norms are one operator since 17, sampling at places since 16; TensorRT 10 and ONNX Runtime 1.18 know them all.
OPSET = 18
NARROW_OPSET = 22  # of networks in bfloat16 or float16: the first in which convolutions take bfloat16
TOLERANCE = 1e-4  # of the largest value of an output: what another order of additions in float32 may cost
LEVELS = 1.0  # of an output of whole numbers: what was near the middle between two is rounded to either
_EXPORTING = threading.Lock()  # the exporter keeps what it works on in globals


class ExportError(RuntimeError):
    """A network that cannot be written as ONNX, or computes something else there: one line."""


@dataclass(frozen=True)
class Deviation:
    """The largest difference of an output between ONNX Runtime and torch, and the largest value that torch gave."""

    error: float
    largest: float
    shape: tuple[int, ...]
    dtype: str

    @property
    def allowed(self) -> float:
        return TOLERANCE * max(self.largest, 1e-3) if self.dtype.startswith("float") else LEVELS


def export(
    module: nn.Module, example: Sequence[Tensor], path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write `module`, a function of tensors that returns a tuple of them, for the shapes of `example`, to `path`.

    Weights of more than 2 GB, which the format cannot hold, go to a second file beside it, `path` with `.data` behind.
    `path` is written whole or not at all. Raises ExportError where a package is missing or an operation has no
    equivalent.
    """
    narrow = any(x.dtype in (torch.bfloat16, torch.float16) for x in module.state_dict().values())
    for package in ("onnx", "onnxscript") if narrow else ("onnx",):
        if not _there(package):
            remedy = f"`scripts/setup --extras onnx` or `pip install {package}`"
            raise ExportError(f"ONNX needs the package {package}: {remedy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        with _EXPORTING, _quietly(), torch.inference_mode(False), torch.no_grad():
            tensors = tuple(x.clone() for x in example)  # tensors of inference mode cannot be traced
            try:
                torch.onnx.export(
                    module.eval(), tensors, str(partial), input_names=list(inputs), output_names=list(outputs),
                    opset_version=NARROW_OPSET if narrow else OPSET, dynamo=narrow, verbose=False,
                )  # fmt: skip
            except (RuntimeError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ExportError(f"{type(module).__name__} cannot be written as ONNX: {reason}") from error
        for file in _in_two(partial):
            os.replace(file, path.parent / file.name)


def _in_two(path: Path) -> list[Path]:
    """The files of the model at `path`, itself last; a file a tensor, as large traced models have, become one."""
    import onnx

    data = path.with_name(f"{path.name}.data")
    beside = [file for file in path.parent.iterdir() if file not in (path, data)]
    if beside:
        model = onnx.load(str(path))
        for file in beside:
            file.unlink()
        onnx.save_model(model, str(path), save_as_external_data=True, location=data.name)
    return [file for file in (data, path) if file.exists()]


def _there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say of fixed shapes, which are wanted, and of packages that they do without."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def run(path: Path, tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Outputs of ONNX Runtime, on the CPU, for inputs in the order of the file. Raises ExportError."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        NotImplemented,
    )

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [x.name for x in session.get_inputs()]
        return session.run(None, {name: x.numpy() for name, x in zip(names, tensors, strict=True)})
    except (Fail, InvalidArgument, InvalidGraph, NotImplemented) as error:
        raise ExportError(f"ONNX Runtime does not take {path.name}: {' '.join(str(error).split())}") from error


def deviations(
    path: Path, module: nn.Module, tensors: Sequence[Tensor], outputs: Sequence[str]
) -> dict[str, Deviation]:
    """How far the file at `path` is from `module` with these inputs, by the names of its outputs."""
    with torch.inference_mode():
        wanted = [x.numpy() for x in module(*tensors)]
    found = {}
    for name, got, exact in zip(outputs, run(path, tensors), wanted, strict=True):
        error = np.abs(got.astype(np.float64) - exact.astype(np.float64)).max()
        found[name] = Deviation(float(error), float(np.abs(exact).max()), exact.shape, str(exact.dtype))
    return found


def check(path: Path, found: dict[str, Deviation]) -> None:
    """Raises ExportError, one line, for the first output that is further from torch than `Deviation.allowed`."""
    for name, deviation in found.items():
        if not deviation.error <= deviation.allowed:  # a NaN is further, too
            raise ExportError(
                f"{path.name}: {name} is off by {deviation.error:.2g} of {deviation.largest:.2g} in ONNX Runtime; "
                f"{deviation.allowed:.2g} is allowed"
            )


def operators(path: Path) -> list[str]:
    """Names of the operators that the file at `path` uses: what whoever runs it must know."""
    import onnx

    model: Any = onnx.load(str(path), load_external_data=False)
    return sorted({node.op_type for node in model.graph.node})
