# SPDX-License-Identifier: Apache-2.0
"""Two avatars in one namespace mix their frames on the same topics: whoever comes second on a machine is told."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


class Claim:
    """A lock on a namespace of a domain, kept until `close` or the end of the process."""

    def __init__(self, namespace: str, domain: str, folder: Path | None = None) -> None:
        name = f"flowact-{domain or '0'}-{namespace.strip('/').replace('/', '.')}.lock"
        self._path = (folder or Path(tempfile.gettempdir())) / name
        self._handle = -1
        self.holder = self._take()  # the process that has it already, "" if nobody has

    def _take(self) -> str:
        try:
            self._handle = self._open()
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(self._handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
        except OSError:
            return ""  # no place for locks: nothing is known
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, str(os.getpid()).encode(), 0)
        except OSError:
            pass  # the file of another user, who has ended
        return ""

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:  # of another user; a lock needs no more than this
            return os.open(self._path, os.O_RDONLY)

    def close(self) -> None:
        """Harmless when called again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
