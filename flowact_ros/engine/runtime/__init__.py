# SPDX-License-Identifier: Apache-2.0
"""What computes the networks, and how their process is set up.

`base` is the seam: `choose` gives a `Runtime`, which compiles static graphs of renderer and decoder and prepares the
denoiser. Set-up is done before torch is imported, so nothing here imports it.
"""

from flowact_ros.engine.runtime.process import (
    best_threads,
    give_memory_back,
    keep_freed_memory,
    spare_the_collector,
)

__all__ = ["best_threads", "give_memory_back", "keep_freed_memory", "spare_the_collector"]
