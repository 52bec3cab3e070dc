# SPDX-License-Identifier: Apache-2.0
"""Work that yields the processor to the face: a helper that is started again loads while frames are made."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from flowact_ros.launcher.supervisor import SUPERVISED_VARIABLE

LOWER = 5  # in steps of nice: a quarter of a processor that another thread wants as well, in place of half of it
LOWEST = 19
AUTOGROUP = Path("/proc/self/autogroup")
TRIES, TRY_S = 30, 0.1  # the kernel takes one change of an autogroup in 0.1 s

Result = TypeVar("Result")


def yielding(work: Callable[[], Result]) -> Result:
    """Does the work in a thread of low priority, and waits for it. Raises what it raises.

    Priorities are of threads on Linux, and only a privileged process may raise one: so this thread ends with the work.
    Threads that the work starts, and that outlive it, would keep its priority.
    """
    with _session_lowered(), ThreadPoolExecutor(1, thread_name_prefix="yielding") as thread:
        return thread.submit(_lowered, work).result()


def _lowered(work: Callable[[], Result]) -> Result:
    with contextlib.suppress(OSError, AttributeError):  # not every system has priorities of threads
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(LOWEST, os.getpriority(os.PRIO_PROCESS, me) + LOWER))
    return work()


@contextlib.contextmanager
def _session_lowered() -> Iterator[None]:
    """Where the kernel groups processes by their session (`kernel.sched_autogroup_enabled`), a thread's priority counts
    among those of its session alone. That of the session may be set back by anybody. Only a process that the supervisor
    started has one of its own: with launch, the generator may be in the same.
    """
    if not os.environ.get(SUPERVISED_VARIABLE):
        yield
        return
    _set_session(LOWER)
    try:
        yield
    finally:
        _set_session(0)


def _set_session(nice: int) -> None:
    for _ in range(TRIES):
        try:
            AUTOGROUP.write_text(str(nice), encoding="ascii")
            return
        except BlockingIOError:
            time.sleep(TRY_S)
        except OSError:
            return  # a kernel without autogroups
