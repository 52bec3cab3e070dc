# SPDX-License-Identifier: Apache-2.0
"""Which errors mean that the GPU is gone."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.runtime.lost import lost_gpu


@pytest.mark.parametrize(
    "error, lost",
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nasynchronously"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), False),
        (torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"), False),
        (RuntimeError("shapes differ"), False),
        (ValueError("CUDA error: said by somebody else"), False),
    ],
)
def test_a_lost_gpu_is_told_from_a_failed_step(error: BaseException, lost: bool) -> None:
    assert lost_gpu(error) == (str(error).splitlines()[0] if lost else "")
    engine = EngineError("the engine failed")
    engine.__cause__ = error
    assert bool(lost_gpu(engine)) == lost
    assert lost_gpu(None) == ""
