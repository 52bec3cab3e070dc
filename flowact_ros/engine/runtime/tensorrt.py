# SPDX-License-Identifier: Apache-2.0
"""Engines of TensorRT, built on this machine's card from ONNX files and kept in the user's cache folder.

An engine holds the weights once more. So of the denoiser only the pass that a stream makes again and again is one, a
chunk under a full memory; all others, of a stream's first seconds and of memory, are CUDA graphs of the same network.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from flowact_ros import models
from flowact_ros.engine.provenance import weights_hash
from flowact_ros.engine.runtime.cache import cache_folder
from flowact_ros.engine.runtime.denoiser import StaticDenoiser, example, levels, past_shapes
from flowact_ros.engine.runtime.engine_file import EngineKey, keep_engine, read_engine
from flowact_ros.engine.runtime.graphs import CudaGraphs, graph_capture
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.engine.runtime.static import Capture, Replay
from flowact_ros.engine.runtime.tensorrt_api import LoadedEngine, TensorRtApi, TensorRtError
from flowact_ros.models.dit import DiT
from flowact_ros.models.fp8 import Fp8Linear
from flowact_ros.models.onnx_export import export

_LOG = logging.getLogger(__name__)


class Engines:
    """The `Capture` of one device that makes an engine of each module, or takes it from the cache.

    api: what is called of TensorRT; stream: the handle of the CUDA stream that is current when an engine is started;
    card: name and compute capability of the device
    """

    def __init__(
        self, device: torch.device, api: TensorRtApi | None = None, stream: Callable[[], int] | None = None,
        card: str | None = None,
    ) -> None:  # fmt: skip
        self.device = device
        self.api = api or TensorRtApi()
        self._stream = stream or (lambda: torch.cuda.current_stream(device).cuda_stream)
        self._card = card or card_of(device)
        self._weights: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # one build at a time: it measures which kernels are fast

    def __call__(self, module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
        """Raises TensorRtError or ExportError, one line, for what TensorRT or ONNX cannot hold."""
        with self._lock, self._current(), torch.inference_mode(False):
            engine = self._engine(module, buffers)
            outputs = {
                name: torch.empty(shape, dtype=dtype, device=self.device)
                for name, (shape, dtype) in engine.outputs.items()
            }
        given = dict(zip(_names("input", len(buffers)), buffers))
        for name, found in engine.inputs.items():  # one that the network does not need may be missing there
            if name not in given or (tuple(given[name].shape), given[name].dtype) != found:
                raise TensorRtError(f"the engine of {type(module).__name__} has an input {name} of {found}")
        engine.place({**{name: given[name] for name in engine.inputs}, **outputs})
        ordered = tuple(outputs[name] for name in _names("output", len(outputs)))

        def replay() -> tuple[Tensor, ...]:
            with self._current():
                engine.start(self._stream())
            return ordered

        return replay

    def _current(self) -> AbstractContextManager[None]:
        """TensorRT works on the device that is current."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _engine(self, module: nn.Module, buffers: tuple[Tensor, ...]) -> LoadedEngine:
        key, folder = self._key(module, buffers), cache_folder() / "tensorrt"
        kept = read_engine(key, folder)
        if kept is not None:
            try:
                return self.api.load(kept)
            except TensorRtError as error:
                _LOG.warning("the engine %s cannot be used (%s): it is built anew", key.file(folder), error)
        plan = self._build(module, buffers)
        keep_engine(key, folder, plan)
        return self.api.load(plan)

    def _build(self, module: nn.Module, buffers: tuple[Tensor, ...]) -> bytes:
        name, began = type(module).__name__, time.monotonic()
        with torch.no_grad():
            count = len(module(*buffers))
        with tempfile.TemporaryDirectory(prefix="flowact-onnx-") as folder:
            path = Path(folder) / f"{name.lower()}.onnx"
            export(module, buffers, path, _names("input", len(buffers)), _names("output", count))
            _LOG.info("building an engine of %s for %s: this may take minutes, once", name, self._card)
            plan = self.api.build(path)
        _LOG.info("the engine of %s: %.1f MB in %.1f s", name, len(plan) / 1e6, time.monotonic() - began)
        return plan

    def _key(self, module: nn.Module, buffers: tuple[Tensor, ...]) -> EngineKey:
        if module not in self._weights:  # of a large denoiser it takes a while, and there are several shapes
            self._weights[module] = weights_hash([module])
        return EngineKey(
            network=type(module).__name__,
            tensorrt=self.api.version,
            card=self._card,
            weights=self._weights[module],
            code=code_hash(module),
            shapes=", ".join(f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" for x in buffers),
        )


class TensorRt(CudaGraphs):
    """See the module docstring. engines: makes engines; others: captures what is to be none"""

    name = "tensorrt"

    def __init__(
        self,
        device: str | torch.device = "cuda",
        *,
        engines: Engines | None = None,
        lanes: Lanes | None = None,
        others: Capture | None = None,
    ) -> None:
        self._engines = engines or Engines(torch.device(device))
        super().__init__(device, kernels=False, capture=self._engines, lanes=lanes)
        self._others = others or graph_capture(self.device)

    @property
    def version(self) -> str:
        return f"tensorrt {self._engines.api.version}"

    def denoiser(self, model: DiT, batches: Sequence[int] = (1,)) -> DiT:
        """Raises ValueError for a denoiser in FP8 or int8, which an ONNX file of ours cannot hold."""
        if any(isinstance(layer, Fp8Linear) for layer in model.modules()):
            raise ValueError("runtime tensorrt computes no fp8; use precision bfloat16, or runtime graphs for fp8")
        steady = set()
        for level in (levels(model.config, (batch,))[0] for batch in batches):
            shapes = [tuple(x.shape) for x in example(model, level, torch.device("cpu"))]
            steady.add((*shapes, *past_shapes(model, level)))

        def capture(module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
            chosen = self._engines if tuple(tuple(x.shape) for x in buffers) in steady else self._others
            return chosen(module, buffers)

        return StaticDenoiser(model, capture, batches)


def card_of(device: torch.device) -> str:
    """Name and compute capability of a CUDA device. An engine is tuned for the one, and runs on the other alone."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"


def code_hash(module: nn.Module) -> str:
    """Of the sources of all networks and of what writes their files, and of this one's sizes: the same weights in other
    code are another engine.
    """
    digest = hashlib.sha256(f"{torch.__version__} {module}".encode())
    for source in sorted(Path(models.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}_{i}" for i in range(count)]
