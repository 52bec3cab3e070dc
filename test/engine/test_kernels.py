# SPDX-License-Identifier: Apache-2.0
"""Triton kernels equal torch: in Triton's interpreter on any machine, and compiled on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has no wheel for this machine; torch's builds for CUDA bring it")
GPU = pytest.mark.cuda


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["interpreted", pytest.param("compiled", marks=GPU)])
def test_kernels_compute_what_torch_does(how: str, which: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if how == "interpreted":
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-m", which, str(Path(__file__).with_name("kernel_cases.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0 and "passed" in done.stdout and "skipped" not in done.stdout, done.stdout
