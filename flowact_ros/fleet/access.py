# SPDX-License-Identifier: Apache-2.0
"""Who may have a stream: on the loopback interface anybody on the machine, beyond it whoever has the token."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping

from flowact_ros.fleet.wire import TOKEN_VARIABLE
from flowact_ros.kiosk.access import is_loopback

MIN_TOKEN = 16  # characters


def choose_token(host: str) -> str:
    """"" on loopback, unless one is set; else that of FLOWACT_FLEET_TOKEN, or a fresh one. Raises ValueError."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and is_loopback(host):
        return ""
    token = token or secrets.token_urlsafe(24)
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{TOKEN_VARIABLE} has {len(token)} characters; {MIN_TOKEN} or more are needed, printable ASCII"
        )
    return token


def refusal(headers: Mapping[str, str], token: str) -> str:
    """Why a connection is refused; "" if it is not. A browser's is, whatever page it shows: it names an origin."""
    if headers.get("origin") is not None:
        return "the fleet speaks to robots, not to pages in a browser"
    kind, _, given = headers.get("authorization", "").partition(" ")
    if token and not (kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())):
        return f"the fleet needs its token: set {TOKEN_VARIABLE} to what was printed when it started"
    return ""
