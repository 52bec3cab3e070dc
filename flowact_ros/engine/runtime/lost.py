# SPDX-License-Identifier: Apache-2.0
"""Telling a GPU that is gone from a step that failed.

After an error of the CUDA runtime (a card that fell off the bus, memory that cannot be corrected, an illegal access)
every later call in the process fails as well: networks on that GPU are lost, those on the CPU are not. Running out of
memory is no such error.
"""

from __future__ import annotations

from collections.abc import Iterator

SAID_BY = ("CUDA error", "CUDA driver error", "cuBLAS error", "cuDNN error")
HARMLESS = ("alloc", "out of memory", "not_supported", "not supported", "no kernel image")  # the GPU stays as it was


def lost_gpu(error: BaseException | None) -> str:
    """What CUDA said, in a line, if `error` or what caused it means that the GPU is lost; else nothing."""
    for one in _causes(error):
        text = str(one)
        line = text.splitlines()[0] if text else type(one).__name__
        told = isinstance(one, RuntimeError) and line.startswith(SAID_BY)
        of_cuda = told or type(one).__name__ == "AcceleratorError"  # of torch, which is not imported here
        if of_cuda and not any(word in line.lower() for word in HARMLESS):
            return line
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The innermost last. An engine's error is raised from that of the step which failed."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
