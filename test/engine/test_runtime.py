# SPDX-License-Identifier: Apache-2.0
"""How a process is set up that runs the networks."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import weakref

import pytest

from flowact_ros.engine.runtime import best_threads, keep_freed_memory, spare_the_collector

PROGRAM = """
import resource, sys, threading
from flowact_ros.engine.runtime import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("refused")
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for turn in range(60):
        tensors = [torch.ones(1_000_000) for _ in range(3)]  # 4 MB each, as the decoder's
        if turn == 20:
            before = faults()
        del tensors
    print(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")
def test_freed_memory_is_used_again() -> None:
    def faults(how: str) -> int:
        command, alone = [sys.executable, "-c", PROGRAM, how], {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=alone, capture_output=True, text=True, check=True, timeout=120)
        return int(done.stdout)

    assert faults("kept") < 2_000 < 20_000 < faults("as it comes")  # 117,000 pages of 4 kB are written


KEPT = """
import sys
from flowact_ros.engine.runtime import give_memory_back, keep_freed_memory
from flowact_ros.evaluation.load import resident_mb

assert keep_freed_memory()
taken = [bytearray(1 << 20) for _ in range(200)]
last = bytearray(1 << 20)  # what lies behind keeps malloc from giving back what is before
del taken
before = resident_mb()
give_memory_back()
print(before - resident_mb(), len(last))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")
def test_kept_memory_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout.split()[0]) > 150  # [MB] of 200


def test_a_system_without_such_a_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 2)])
def test_threads_follow_the_processor(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert best_threads() == threads


def test_full_collections_leave_out_what_was_loaded() -> None:
    class Kept:
        pass

    kept, cycle = Kept(), Kept()
    cycle.self = cycle
    alive = weakref.ref(cycle)
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 10_000
        assert not any(o is kept for o in gc.get_objects())
        del cycle
        gc.collect()
        assert alive() is not None  # so what is unloaded must be put back before
    finally:
        gc.unfreeze()
    gc.collect()
    assert alive() is None and any(o is kept for o in gc.get_objects())
