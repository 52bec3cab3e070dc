# SPDX-License-Identifier: Apache-2.0
"""What the page's server answers over HTTP: the page's own files, a snapshot, the state, its health, the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from flowact_ros.kiosk.display import Display
from flowact_ros.kiosk.hub import Hub

SNAPSHOT_WAIT_S = 1.0
STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGES = {"index.html": "", "fleet.html": "fleet"}


def version() -> str:
    """Of the page's files: a page that finds another one after a restart loads itself anew."""
    digest = hashlib.sha256()
    for path in _files():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files() -> list[Path]:
    return sorted(path for path in STATIC.iterdir() if path.suffix in _TYPES)


class Routes:
    """state, health, fleet: called for each request; the first two as JSON objects. wanted: somebody has asked for a
    picture."""

    def __init__(
        self,
        hub: Hub,
        display: Display,
        *,
        state: Callable[[], dict[str, Any]],
        health: Callable[[], str],
        fleet: Callable[[], dict[str, Any]],
        wanted: Callable[[], None],
    ) -> None:
        self._hub, self._display = hub, display
        self._state, self._health, self._fleet, self._wanted = state, health, fleet, wanted

    def add_to(self, app: web.Application, base: str) -> None:
        """Everything below the path `base`, which is "" or begins with a slash."""
        get = app.router.add_get
        get(f"{base}/ws", self._hub.serve)
        get(f"{base}/snapshot.jpg", self._get_snapshot)
        get(f"{base}/background", self._get_background)
        get(f"{base}/state", self._get_state)
        get(f"{base}/healthz", self._get_health)
        get(f"{base}/fleet.json", self._get_fleet)
        for path in _files():
            get(f"{base}/{_PAGES.get(path.name, path.name)}", _static(path))
        if base:  # without its last slash the page would look for its parts a level too high
            get(base, _to(f"{base}/"))

    async def _get_snapshot(self, request: web.Request) -> web.StreamResponse:
        self._wanted()
        hub = self._hub
        if hub.snapshot is None or time.monotonic() - hub.snapshot[1] >= 0.5:
            # Nobody looked until now: the publisher has to notice that a picture is wanted.
            with contextlib.suppress(asyncio.TimeoutError):  # then the last frame there is, or 404
                await asyncio.wait_for(hub.frame_arrived.wait(), SNAPSHOT_WAIT_S)
        if hub.snapshot is None:
            raise web.HTTPNotFound(text="no frame yet\n")
        jpeg, arrived = hub.snapshot
        age = time.monotonic() - arrived
        return web.Response(body=jpeg, content_type="image/jpeg", headers={"X-Age": f"{age:.3f}"})

    async def _get_background(self, request: web.Request) -> web.StreamResponse:
        picture = self._display.picture
        if picture is None:
            raise web.HTTPNotFound(text="the parameter background names no picture\n")
        return web.Response(body=picture.data, content_type=picture.content_type)

    async def _get_state(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._state())

    async def _get_health(self, request: web.Request) -> web.StreamResponse:
        snapshot = self._hub.snapshot
        age = None if snapshot is None else round(time.monotonic() - snapshot[1], 3)
        status = self._health()
        answer = {"status": status, "clients": self._hub.clients, "frame_age_s": age}
        return web.json_response(answer, status=200 if status == "ok" else 503)

    async def _get_fleet(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._fleet())


def _static(path: Path) -> Callable[[web.Request], Any]:
    async def get(request: web.Request) -> web.StreamResponse:
        return web.Response(body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8")

    return get


def _to(address: str) -> Callable[[web.Request], Any]:
    async def get(request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(address)

    return get
