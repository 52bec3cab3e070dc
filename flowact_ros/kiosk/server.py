# SPDX-License-Identifier: Apache-2.0
"""The page's HTTP and WebSocket server: an asyncio loop in a thread of its own, fed from any thread."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from flowact_ros.kiosk.access import Access, checked_base_path, checked_origin, choose_token, is_loopback
from flowact_ros.kiosk.display import NO_TALK, Display
from flowact_ros.kiosk.errors import KioskError
from flowact_ros.kiosk.hub import MAX_CLIENTS, Hub, PageEvent, greeting_messages
from flowact_ros.kiosk.listener import address_of_this_machine, listen
from flowact_ros.kiosk.protocol import (
    AUDIO,
    FRAME,
    MAX_AUDIO_RATE,
    MIN_AUDIO_RATE,
    STATE,
    ProtocolError,
    pack,
    pack_json,
)
from flowact_ros.kiosk.routes import Routes, version
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

__all__ = ["MAX_CLIENTS", "KioskError", "KioskServer", "PageEvent"]

WANTED_AFTER_SNAPSHOT_S = 3.0
WANTED_AFTER_FLEET_S = 10.0


class KioskServer:
    """Serves the page on `http://host:port/` from construction until `close`, and the fleet's on `/fleet`.

    Behind a proxy: `allowed_origins` ("https://robot.example") are the names it is seen under, `base_path` ("/face") is
    what the proxy puts before its paths, if it leaves that on.

    `port` 0 takes any free one (see `.port`, `.url`). On loopback no token is asked for; on any other `host` the token
    is `token`, else FLOWACT_KIOSK_TOKEN, else a fresh one, and `.url` carries it. `buffer_ms` is the jitter buffer of
    the pages, `display` what they show and may do. `on_event` is called in the server's thread with what people at the
    pages want; it must return at once, and is needed where `display` lets them talk or stop. Raises `KioskError` when
    the address cannot be had.

    `push_frame`, `push_audio`, `set_state`, `set_health` and `set_fleet` may be called from any thread and return at
    once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8620,
        *,
        token: str | None = None,
        buffer_ms: int = 200,
        allowed_origins: tuple[str, ...] = (),
        base_path: str = "",
        display: Display | None = None,
        on_event: Callable[[PageEvent], None] | None = None,
    ) -> None:
        if not 0 <= port <= 65_535:
            raise KioskError(f"port is {port}; expected 0 to 65535")
        if not 40 <= buffer_ms <= 2_000:
            raise KioskError(f"buffer_ms is {buffer_ms}; expected 40 to 2000")
        self._display = display or Display()
        if on_event is None and (self._display.talk != NO_TALK or self._display.stop):
            raise KioskError("the page lets people talk or stop, but nobody takes what they do: on_event is missing")
        try:
            self.token = None if is_loopback(host) else choose_token(token)
        except ValueError as error:
            raise KioskError(str(error)) from error
        self.host = host
        self.base_path = checked_base_path(base_path)
        self._access = Access(self.token, tuple(map(checked_origin, allowed_origins)), self.base_path)
        self._health = "ok"
        self._hello = {
            "title": self._display.title, "run": secrets.token_hex(8), "version": version(), "buffer_ms": buffer_ms,
            "frame_rate": FRAME_RATE, "sample_rate": SAMPLE_RATE, "display": self._display.as_json(),
        }  # fmt: skip
        self._on_event = on_event or (lambda event: None)
        self._state: dict = {}
        self._fleet: list[dict[str, Any]] | None = None
        self._sequence = {FRAME: 0, AUDIO: 0, STATE: 0}
        self._newest_pts = 0.0
        self._wanted_until = self._fleet_wanted_until = -math.inf
        self._lock = threading.Lock()
        self._closed = False
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        started: list[BaseException | None] = []
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started, up), name="kiosk", daemon=True)
        self._thread.start()
        up.wait()
        if started[0] is not None:
            self._closed = True
            raise KioskError(f"the page's server did not start: {started[0]}") from started[0]

    # ------------------------------------------------------------------ for the publisher, any thread

    @property
    def origin(self) -> str:
        """`http://host:port` as a browser writes it: for all addresses the one that other machines reach."""
        host = address_of_this_machine() if self.host in ("0.0.0.0", "::", "[::]", "") else self.host
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}"

    @property
    def page(self) -> str:
        """The page's address without the token: what logs and other robots may know."""
        return f"{self.origin}{self.base_path}/"

    @property
    def url(self) -> str:
        """The address to open, with the token where one is needed."""
        return self.page + (f"?token={self.token}" if self.token else "")

    @property
    def clients(self) -> int:
        """Pages connected now."""
        return self._hub.clients

    @property
    def wanted(self) -> bool:
        """True while somebody looks (or has just asked for a snapshot): otherwise JPEGs need not be made."""
        return bool(self.clients) or time.monotonic() < self._wanted_until

    @property
    def fleet_wanted(self) -> bool:
        """True while somebody looks at the fleet's page: otherwise nobody needs to look for avatars."""
        return time.monotonic() < self._fleet_wanted_until

    def push_frame(self, jpeg: bytes, pts: float) -> None:
        """Shows a JPEG when the content clock reaches `pts` [s]."""
        if not isinstance(jpeg, (bytes, bytearray, memoryview)) or bytes(jpeg[:2]) != b"\xff\xd8":
            raise KioskError("push_frame needs the bytes of a JPEG (they start with FF D8)")
        with self._lock:
            sequence = self._count(FRAME, pts)
            self._call(self._hub.deliver_frame, bytes(jpeg), sequence, float(pts))

    def push_audio(self, pcm_s16: bytes, rate: int, pts: float) -> None:
        """Plays S16LE mono samples (at most 1 s), the first one heard when the content clock reaches `pts` [s]."""
        if not MIN_AUDIO_RATE <= rate <= MAX_AUDIO_RATE:
            raise KioskError(f"sample rate is {rate} Hz; expected {MIN_AUDIO_RATE} to {MAX_AUDIO_RATE}")
        if not isinstance(pcm_s16, (bytes, bytearray, memoryview)) or len(pcm_s16) % 2:
            raise KioskError("push_audio needs S16LE bytes, two a sample")
        if len(pcm_s16) > 2 * rate:
            raise KioskError(f"push_audio got {len(pcm_s16) / 2 / rate:.1f} s at once; expected at most 1 s")
        if not len(pcm_s16):
            return
        with self._lock:
            sequence = self._count(AUDIO, pts)
            message = pack(AUDIO, bytes(pcm_s16), pts=pts, sequence=sequence, rate=rate)
            self._call(self._hub.deliver, AUDIO, message, len(pcm_s16) / 2 / rate)

    def set_state(self, state: dict) -> None:
        """What the page says of the avatar. Replaces the state before. Understood are

        behaviour (str), speaking (bool), fps (float), message (str: why there is no face), listens (bool: somebody
        hears the user), heard and said ({"text", "pts"}), and turn ({"page": who has it, "phase": "opening" or "open",
        "problem": str}); everything else is listed in the details.
        """
        try:
            payload = pack_json(state)
        except ProtocolError as error:
            raise KioskError(str(error)) from error
        with self._lock:
            self._state = json.loads(payload)
            sequence = self._count(STATE, self._newest_pts)
            message = pack(STATE, payload, pts=self._newest_pts, sequence=sequence)
            self._call(self._hub.deliver, STATE, message, 0.0)

    def set_health(self, status: str) -> None:
        """What `/healthz` answers: "ok", or what is wrong, with status 503."""
        self._health = status

    def set_fleet(self, avatars: list[dict[str, Any]]) -> None:
        """What `/fleet` shows. Raises KioskError for what JSON cannot hold."""
        try:
            pack_json({"avatars": avatars})
        except ProtocolError as error:
            raise KioskError(str(error)) from error
        self._fleet = avatars

    def stats(self) -> dict:
        """Counters of the server and, under `pages`, the last figures each page reported (see `STATS_FIELDS`)."""
        return {**self._hub.stats(), "frames": self._sequence[FRAME], "refused": self._access.refused}

    def close(self) -> None:
        """Says goodbye to the pages and stops the thread. Harmless when called again."""
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10.0)

    def __enter__(self) -> KioskServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, kind: int, pts: float) -> int:
        if not math.isfinite(pts):
            raise KioskError(f"pts is {pts}; expected seconds on the content clock")
        self._newest_pts = float(pts)
        self._sequence[kind] += 1
        return self._sequence[kind]

    def _call(self, function: Callable[..., object], *args: object) -> None:
        if self._closed:
            raise KioskError("the page's server is closed")
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:  # closed by another thread between the check and the call
            raise KioskError("the page's server is closed") from error

    # ------------------------------------------------------------------ in the server's thread

    def _run(self, started: list[BaseException | None], up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(started, up))
        finally:
            self._loop.close()
            self._socket.close()

    async def _serve(self, started: list[BaseException | None], up: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._hub = Hub(self._display, self._greeting, self._on_event)
        routes = Routes(
            self._hub,
            self._display,
            state=self._state_answer,
            health=lambda: self._health,
            fleet=self._fleet_answer,
            wanted=self._snapshot_wanted,
        )
        app = web.Application(middlewares=[self._access.middleware], client_max_size=1024)
        for base in {"", self.base_path}:  # proxies take it off, or leave it on
            routes.add_to(app, base)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
        try:
            await runner.setup()
            await web.SockSite(runner, self._socket).start()
        except OSError as error:
            started.append(error)
            up.set()
            return
        started.append(None)
        up.set()
        watch = asyncio.ensure_future(self._hub.watch_links())
        await self._stop.wait()
        watch.cancel()
        await self._hub.close()
        await runner.cleanup()

    def _greeting(self, page: str) -> tuple[bytes, bytes]:
        with self._lock:
            return greeting_messages({**self._hello, "page": page}, self._state, self._newest_pts)

    def _state_answer(self) -> dict[str, Any]:
        with self._lock:
            state, pts = dict(self._state), self._newest_pts
        return {"state": state, "pts": pts, "server": self.stats()}

    def _fleet_answer(self) -> dict[str, Any]:
        self._fleet_wanted_until = time.monotonic() + WANTED_AFTER_FLEET_S
        return {"known": self._fleet is not None, "avatars": self._fleet or []}

    def _snapshot_wanted(self) -> None:
        self._wanted_until = time.monotonic() + WANTED_AFTER_SNAPSHOT_S
