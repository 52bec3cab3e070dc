# SPDX-License-Identifier: Apache-2.0
"""Standard streams that do not matter: closed ones, and readers that leave (`flowact up | head -1`)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)  # the reader left; the terminal was closed


class _Lasting:
    """A text stream whose lines go nowhere once its reader has left: nodes must not stop for that."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._nowhere_if_gone():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._nowhere_if_gone():
            self._stream.flush()

    @contextlib.contextmanager
    def _nowhere_if_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still buffered goes there as well
            os.close(nowhere)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Standard streams that can be used inside, whatever the caller left of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would become it, and be written to
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has our characters
    out, err = (_Lasting(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
