# SPDX-License-Identifier: Apache-2.0
"""Who may look at the page: loopback by default; beyond it a token; never a page of another origin.

Three attacks are met: another machine connects (token), a web page of another site opens our WebSocket in the user's
browser (Origin), and a site rebinds its own name to 127.0.0.1 to become "same origin" (Host must be a loopback name).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from flowact_ros.kiosk.errors import KioskError

TOKEN_VARIABLE = "FLOWACT_KIOSK_TOKEN"
MIN_TOKEN = 16  # characters
_COOKIE = "flowact_kiosk"

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """True for localhost and addresses that only this machine reaches."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def choose_token(token: str | None) -> str:
    """The token given, else the one in FLOWACT_KIOSK_TOKEN, else a fresh one. Raises ValueError for a short one."""
    token = token or os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"the page's token has {len(token)} characters; expected {MIN_TOKEN} or more, printable ASCII"
        )
    return token


def same_origin(origin: str, host: str) -> bool:
    """True when the Origin header names the very site the request went to (`host` is the Host header)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and parts.netloc.lower() == host.lower()


def checked_origin(origin: str) -> str:
    """As browsers write it. Raises KioskError for anything else."""
    text = origin.strip().rstrip("/").lower()
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and text == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        whole = False
    if not whole or "@" in text:
        raise KioskError(f"allowed origin {origin!r}: expected https://NAME or https://NAME:PORT")
    default = {"http": ":80", "https": ":443"}[parts.scheme]  # browsers leave it out
    return text.removesuffix(default)


def checked_base_path(path: str) -> str:
    """With a slash before it and none after it; "" for none. Raises KioskError for what is no plain path."""
    text = path.strip().strip("/")
    if not text:
        return ""
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", text) or ".." in text.split("/"):
        raise KioskError(f"base path {path!r}: expected one like /face, of letters, digits and . _ ~ - between slashes")
    return f"/{text}"


class Access:
    """The server's rules as an aiohttp middleware; `token` is None on loopback."""

    def __init__(self, token: str | None, allowed_origins: tuple[str, ...] = (), base_path: str = "") -> None:
        self.token = token
        # Those of a TLS proxy in front, which passes its own name on as the Host header.
        self.allowed_origins = allowed_origins
        self.allowed_hosts = {urlsplit(origin).netloc for origin in allowed_origins}
        self.base_path = base_path
        self.refused = 0

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        @web.middleware
        async def check(request: web.Request, handler: Callable) -> web.StreamResponse:
            refusal = self._refusal(request)
            if refusal is not None:
                self.refused += 1
                status, reason = refusal
                return web.Response(status=status, text=reason + "\n", headers=_HEADERS)
            if self.token is not None and request.path.endswith("/") and "token" in request.query:
                # The token moves from the address bar (history, shoulder) into a cookie scripts cannot read. The way
                # back is relative: a proxy may have taken a base path off.
                response: web.StreamResponse = web.Response(status=303, headers={"Location": "./"})
                response.set_cookie(
                    _COOKIE, self.token, httponly=True, samesite="Strict", path=f"{self.base_path}/"
                )
            else:
                response = await handler(request)
            if not response.prepared:
                response.headers.update(_HEADERS)
            return response

        return check

    def _refusal(self, request: web.Request) -> tuple[int, str] | None:
        foreign = not is_loopback(_host_name(request.host)) and request.host.lower() not in self.allowed_hosts
        if self.token is None and foreign:
            return 403, (
                "this page answers to localhost only; behind a proxy, name its address in the parameter allowed_origins"
            )
        origin = request.headers.get("Origin")
        websocket = request.path in ("/ws", f"{self.base_path}/ws")
        if origin is None:
            if websocket:
                return 403, "the WebSocket needs the Origin header of this page"
        elif not (same_origin(origin, request.host) or origin in self.allowed_origins):
            return 403, f"requests of other origins are refused: {origin} is not in the parameter allowed_origins"
        if self.token is not None and not self._knows_token(request):
            return 401, "this page needs its token: open the address that was printed when the avatar started"
        return None

    def _knows_token(self, request: web.Request) -> bool:
        offers = [request.query.get("token", ""), request.cookies.get(_COOKIE, "")]
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            offers.append(bearer.strip())
        expected = (self.token or "").encode()
        return any(hmac.compare_digest(offer.encode("utf-8", "replace"), expected) for offer in offers)


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].strip("[]")
    return host.rpartition(":")[0] if ":" in host else host
