# SPDX-License-Identifier: Apache-2.0
"""Shared memory that processes left behind which did not end cleanly: three of them fill a plain container's 64 MB.

Fast DDS keeps `fastrtps_<16 digits>` in /dev/shm, 17 MB where images are sent, and holds a lock on the `…_el` beside it
as long as the process lives. Whoever can take that lock knows that nobody uses the memory any more.

A process that was killed while it made a `fastrtps_port<n>` leaves it unfinished, and every process after it waits for
ever, in C code, until somebody finishes it.
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
_PORT = re.compile(r"fastrtps_port\d+")
_FINISHED = 2  # boost.interprocess: the first word of a file; 0 and 1 while it is made


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
    for path in _unfinished(folder):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return freed


def _unfinished(folder: Path) -> list[Path]:
    """Ports that nobody is making any more."""
    found = []
    with contextlib.suppress(OSError):  # no such folder on this system
        for path in (folder / name for name in os.listdir(folder) if _PORT.fullmatch(name)):
            with contextlib.suppress(OSError), path.open("rb") as file:
                info, word = os.fstat(file.fileno()), file.read(4)
                old = time.time() - info.st_mtime >= YOUNG_S and info.st_uid == os.getuid()
                if old and int.from_bytes(word, "little") < _FINISHED:
                    found.append(path)
    return found


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
