# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster that runs already: whether anything answers at its address, before Ray tries that for minutes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

AUTO = "auto"  # this machine's: Ray says at once where there is none
ANSWER_S = 5.0


def check_cluster(address: str) -> None:
    """Raises ValueError, one line, where no cluster can be."""
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ValueError(f"--cluster: {address!r} is neither {AUTO} nor the HOST:PORT that `ray start --head` prints")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        there = f"{address} ({error.strerror or 'no answer'})"
        raise ValueError(f"--cluster: no Ray cluster is at {there}: `ray start --head` starts one") from None


def prepare_to_join() -> None:
    """Settings of Ray for this process, to be made before Ray is imported; those of the user's environment stay.

    `ray start` has its cluster ask for the token of its user, if there is one; a process that joins shows it only in
    this mode. A server that is none of Ray's is asked once, not twenty times, which takes minutes.
    """
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or file.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
