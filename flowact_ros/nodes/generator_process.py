# SPDX-License-Identifier: Apache-2.0
"""A process that computes networks: how it takes memory, gives it back, and ends."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from flowact_ros.engine.runtime import give_memory_back, keep_freed_memory
from flowact_ros.engine.runtime.lost import lost_gpu
from flowact_ros.launcher.resources import use_image_profile


def give_freed_memory_back() -> None:
    """To the system and the GPU, after networks were forgotten."""
    gc.unfreeze()
    gc.collect()
    give_memory_back()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            if not lost_gpu(error):
                raise  # of a lost GPU nothing can be given back


def run_to_the_end(start: Callable[[], int]) -> int:
    """A generator's process: prepared for its memory and images, and ended without waiting for libraries."""
    keep_freed_memory()
    use_image_profile()
    status = start()
    # Everything is closed and destroyed by now. What the interpreter would still do is take down the networks'
    # libraries, for seconds on a slow board: longer than launch waits before it kills.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
