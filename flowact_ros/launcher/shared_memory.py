# SPDX-License-Identifier: Apache-2.0
"""Shared memory that processes left behind which did not end cleanly: three of them fill a plain container's 64 MB.

Fast DDS keeps `fastrtps_<16 digits>` in /dev/shm, 17 MB where images are sent, and holds a lock on the `…_el` beside it
as long as the process lives. Whoever can take that lock knows that nobody uses the memory any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")
YOUNG_S = 10.0  # a lock that was just made is perhaps not yet taken
_LOCK = re.compile(r"fastrtps_[0-9a-f]{16}_el")


def leftovers(folder: Path = FOLDER) -> int:
    """[bytes] of ours that nobody uses any more."""
    return sum(size for size, _ in _abandoned(folder))


def sweep(folder: Path = FOLDER) -> int:
    """Removes what dead processes of this user left; the bytes that are free now."""
    freed = 0
    for size, paths in _abandoned(folder):
        with contextlib.suppress(OSError):  # another process sweeps as well
            for path in paths:
                path.unlink(missing_ok=True)
            freed += size
    return freed


def _abandoned(folder: Path) -> Iterator[tuple[int, list[Path]]]:
    """(size, the files), while their lock is held."""
    try:
        names = [name for name in os.listdir(folder) if _LOCK.fullmatch(name)]
    except OSError:
        return  # no such folder on this system
    for name in names:
        lock, memory = folder / name, folder / name.removesuffix("_el")
        with contextlib.suppress(OSError), open(lock, "rb") as handle:
            info = os.fstat(handle.fileno())
            if info.st_uid != os.getuid() or time.time() - info.st_mtime < YOUNG_S:
                continue
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its process lives
            size = memory.stat().st_size if memory.exists() else 0
            yield size, [memory, lock]
