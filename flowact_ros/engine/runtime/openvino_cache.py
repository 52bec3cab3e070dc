# SPDX-License-Identifier: Apache-2.0
"""What OpenVINO made of a module, kept in the user's cache folder between starts.

Converting a module takes seconds, so the graph is kept, for any processor (`.xml`, `.bin`). Compiling it takes tenths
of a second, so what was compiled is kept as well, for the processor that it was compiled on (`.blob`). A file that is
damaged, since the power failed while it was written, is made anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowact_ros.engine.runtime.cache import cache_folder

_LOG = logging.getLogger(__name__)
_DIGEST = 16  # [bytes] of a hash in front of what was compiled
DEVICE = "CPU"


class KeptGraph:
    """One graph, by a name that stands for all that it was made of.

    options: of compiling; convert: gives the graph as a model of OpenVINO, called only where none is kept
    """

    def __init__(self, core: Any, name: str, options: dict[str, Any], convert: Callable[[], Any]) -> None:
        self._core, self._options, self._convert = core, options, convert
        self._graph_at = cache_folder() / f"{name}.xml"
        self._blob_at = cache_folder() / f"{name}-{_compiler(str(options))}.blob"
        self._graph: Any = None  # where it cannot be kept in a file

    def compiled(self) -> Any:
        """A compiled model, another one at each call."""
        imported = self._imported()
        return self._compile() if imported is None else imported

    def _imported(self) -> Any:
        try:
            kept = self._blob_at.read_bytes()
        except OSError:
            return None
        blob = kept[_DIGEST:]
        if _digest(blob) == kept[:_DIGEST]:
            try:
                return self._core.import_model(blob, DEVICE, self._options)
            except RuntimeError as error:
                _LOG.debug("%s: %s", self._blob_at, error)
        _LOG.warning("%s is damaged: it is compiled anew", self._blob_at)
        return None

    def _compile(self) -> Any:
        graph = self._read() if self._graph is None else self._graph
        compiled = self._core.compile_model(self._make() if graph is None else graph, DEVICE, self._options)
        if self._graph is None:
            blob = compiled.export_model().getvalue()
            self._write(self._blob_at, lambda partial: partial.write_bytes(_digest(blob) + blob))
        return compiled

    def _read(self) -> Any:
        if not self._graph_at.exists():
            return None
        try:
            return self._core.read_model(self._graph_at)
        except RuntimeError as error:
            _LOG.debug("%s: %s", self._graph_at, error)
            _LOG.warning("%s is damaged: it is converted anew", self._graph_at)
            return None

    def _make(self) -> Any:
        import openvino as ov

        graph = self._convert()

        def save(partial: Path) -> None:
            ov.save_model(graph, partial, compress_to_fp16=False)
            partial.with_suffix(".bin").replace(self._graph_at.with_suffix(".bin"))

        if not self._write(self._graph_at, save):
            self._graph = graph
        return graph

    def _write(self, path: Path, write: Callable[[Path], object]) -> bool:
        """Whole or not at all. False, and a warning, where it cannot be written."""
        partial = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            _LOG.warning("the converted renderer is not kept (%s): each start converts it anew", error)
            return False
        return True


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


@lru_cache
def _compiler(options: str) -> str:
    """What is compiled depends on it: OpenVINO's version and options, the processor with its instructions."""
    import openvino as ov

    told = {line for line in _processor_lines() if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return hashlib.sha256(f"{ov.__version__} {options} {platform.machine()} {sorted(told)}".encode()).hexdigest()[:12]


def _processor_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return [f"model name: {platform.processor()}"]
