# SPDX-License-Identifier: Apache-2.0
"""How a process that runs the networks on a CPU is set up. Figures: docs/decisions.md, benchmarks/backends.py."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc, malloc.h
LARGEST_KEPT = 32 << 20  # [bytes] the most that glibc lets a heap serve
ENOUGH_CORES = 4  # for two threads of a network, and something left for the rest
KEPT_FREE = 256 << 20  # [bytes] of free memory at the top of the heap


def keep_freed_memory() -> bool:
    """Has glibc's malloc keep what was freed. Before other threads run. False where there is no such malloc.

    As it comes, tensors of megabytes are mapped and given back to the system again and again: 27,000 page faults and 50
    to 90 ms of every step. One arena for all threads, else each would keep memory of its own.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, LARGEST_KEPT), (_M_TRIM_THRESHOLD, KEPT_FREE))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)


def give_memory_back() -> None:
    """Has glibc's malloc give the system what is free: after `keep_freed_memory` it would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def spare_the_collector() -> None:
    """Takes what exists now, all that was imported and loaded, out of Python's garbage collection.

    Its full collections look at 180,000 objects of libraries meanwhile, which stops all threads for 0.1 s, three
    pictures long. `gc.unfreeze()` puts everything back.
    """
    gc.collect(1)  # garbage of the last moments; all of it would be such a stop
    gc.freeze()


def best_threads() -> int:
    """Threads for the networks: two where the processor has cores to spare, else one.

    Threads of one network wait for each other a thousand times a step: on two cores, which the page, the other nodes
    and the loudspeaker share, they cost more than they bring.
    """
    return 1 if len(os.sched_getaffinity(0)) < ENOUGH_CORES else 2
