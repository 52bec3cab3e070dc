# SPDX-License-Identifier: Apache-2.0
"""One log file of all nodes, which a robot that runs for months does not fill its disk with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

LARGEST = 20_000_000  # bytes; then the file is moved to `….log.1`, and that one is gone
KEPT = 20  # logs of earlier starts


class _Log(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk must not stop the nodes; what is notable is still shown."""


def file_log(path: Path, also: Callable[[str], None] | None) -> tuple[Callable[[str], None], logging.Handler]:
    """A log function that appends to `path`, and to `also`; with what is to be closed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _Log(path, maxBytes=LARGEST, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def log(line: str) -> None:
        handler.handle(logging.LogRecord("flowact", logging.INFO, "", 0, line, None, None))
        if also is not None:
            also(line)

    return log, handler


def sweep(folder: Path, kept: int = KEPT) -> None:
    """Removes all but the `kept` newest logs of earlier starts in `folder`, with what was moved aside of them."""
    logs = sorted(folder.glob("flowact-[0-9]*.log"))  # their names are times
    for path in logs[: max(0, len(logs) - kept)]:
        for part in (path, path.with_name(f"{path.name}.1")):
            part.unlink(missing_ok=True)
