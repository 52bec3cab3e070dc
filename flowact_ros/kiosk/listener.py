# SPDX-License-Identifier: Apache-2.0
"""The address the page is served on, had or refused with a clear reason."""

from __future__ import annotations

import errno
import socket

from flowact_ros.kiosk.errors import KioskError, PortTaken


def listen(host: str, port: int) -> socket.socket:
    """A non-blocking TCP socket that listens on one address (IPv4 first). Raises `KioskError` with what to do,
    `PortTaken` where waiting may help."""
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise KioskError(f"no address is known for the page's host {host!r} ({error})") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # "localhost" is 127.0.0.1 first
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is already in use; choose another, or 0 for any free one"
            ) from error
        if error.errno == errno.EACCES:
            raise KioskError(f"port {port} on {host} needs root; choose one above 1023") from error
        raise KioskError(f"cannot serve the page on {host}:{port} ({error.strerror})") from error
    listener.setblocking(False)
    return listener


def address_of_this_machine() -> str:
    """The IPv4 address that other machines reach this one by; 127.0.0.1 where there is no network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of a network that exists in documents only: the route to anywhere
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
