# SPDX-License-Identifier: Apache-2.0
"""The page's HTTP and WebSocket server: an asyncio loop in a thread of its own, fed from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import threading
import time
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

from flowact_ros.kiosk.access import Access, checked_base_path, checked_origin, choose_token, is_loopback
from flowact_ros.kiosk.errors import KioskError
from flowact_ros.kiosk.listener import address_of_this_machine, listen
from flowact_ros.kiosk.outbox import Outbox
from flowact_ros.kiosk.protocol import (
    AUDIO,
    FRAME,
    HELLO,
    MAX_AUDIO_RATE,
    MAX_CLIENT_MESSAGE,
    MIN_AUDIO_RATE,
    STATE,
    ProtocolError,
    pack,
    pack_json,
    parse_client_message,
)
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

MAX_CLIENTS = 32
MAX_MESSAGES_PER_SECOND = 20  # of a page; ours sends one
_HEARTBEAT_S = 10.0
_SNAPSHOT_WAIT_S = 1.0
_WANTED_AFTER_SNAPSHOT_S = 3.0
_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class _Client:
    def __init__(self, socket_: web.WebSocketResponse) -> None:
        self.socket = socket_
        self.outbox = Outbox()
        self.ready = asyncio.Event()
        self.stats: dict[str, int | float | str | None] = {}


class KioskServer:
    """Serves the page on `http://host:port/` from construction until `close`.

    Behind a proxy: `allowed_origins` ("https://robot.example") are the names it is seen under, `base_path` ("/face") is
    what the proxy puts before its paths, if it leaves that on.

    `port` 0 takes any free one (see `.port`, `.url`). On loopback no token is asked for; on any other `host` the token
    is `token`, else FLOWACT_KIOSK_TOKEN, else a fresh one, and `.url` carries it. `buffer_ms` is the jitter buffer of
    the pages. Raises `KioskError` when the address cannot be had.

    `push_frame`, `push_audio` and `set_state` may be called from any thread and return at once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8620,
        *,
        token: str | None = None,
        title: str = "FlowAct",
        buffer_ms: int = 200,
        allowed_origins: tuple[str, ...] = (),
        base_path: str = "",
    ) -> None:
        if not 0 <= port <= 65_535:
            raise KioskError(f"port is {port}; expected 0 to 65535")
        if not 40 <= buffer_ms <= 2_000:
            raise KioskError(f"buffer_ms is {buffer_ms}; expected 40 to 2000")
        try:
            self.token = None if is_loopback(host) else choose_token(token)
        except ValueError as error:
            raise KioskError(str(error)) from error
        self.host = host
        self.base_path = checked_base_path(base_path)
        self._access = Access(self.token, tuple(map(checked_origin, allowed_origins)), self.base_path)
        self._health = "ok"
        self._hello = {
            "title": title, "run": secrets.token_hex(8), "buffer_ms": buffer_ms,
            "frame_rate": FRAME_RATE, "sample_rate": SAMPLE_RATE,
        }  # fmt: skip
        self._clients: set[_Client] = set()
        self._state: dict = {}
        self._snapshot: tuple[int, bytes, float] | None = None  # sequence, JPEG, arrival (monotonic)
        self._frame_arrived: asyncio.Event | None = None
        self._sequence = {FRAME: 0, AUDIO: 0, STATE: 0}
        self._newest_pts = 0.0
        self._wanted_until = -math.inf
        self._bad_messages = 0
        self._closed_clients_dropped = 0
        self._lock = threading.Lock()
        self._closed = False
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
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
    def url(self) -> str:
        """The address to open, with the token where one is needed."""
        return f"{self.origin}{self.base_path}/" + (f"?token={self.token}" if self.token else "")

    @property
    def clients(self) -> int:
        """Pages connected now."""
        return len(self._clients)

    @property
    def wanted(self) -> bool:
        """True while somebody looks (or has just asked for a snapshot): otherwise JPEGs need not be made."""
        return bool(self._clients) or time.monotonic() < self._wanted_until

    def push_frame(self, jpeg: bytes, pts: float) -> None:
        """Shows a JPEG when the content clock reaches `pts` [s]."""
        if not isinstance(jpeg, (bytes, bytearray, memoryview)) or bytes(jpeg[:2]) != b"\xff\xd8":
            raise KioskError("push_frame needs the bytes of a JPEG (they start with FF D8)")
        with self._lock:
            message = self._pack(FRAME, bytes(jpeg), pts)
            self._call(self._deliver_frame, message, self._sequence[FRAME], bytes(jpeg))

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
            message = self._pack(AUDIO, bytes(pcm_s16), pts, rate)
            self._call(self._deliver, AUDIO, message, len(pcm_s16) / 2 / rate)

    def set_state(self, state: dict) -> None:
        """What the corner of the page says. `behaviour` (str), `speaking` (bool), `fps` (float) and `message` (str) are
        understood; everything else is listed in the details overlay. Replaces the state before."""
        try:
            payload = pack_json(state)
        except ProtocolError as error:
            raise KioskError(str(error)) from error
        with self._lock:
            self._state = json.loads(payload)
            message = self._pack(STATE, payload, self._newest_pts)
            self._call(self._deliver, STATE, message, 0.0)

    def set_health(self, status: str) -> None:
        """What `/healthz` answers: "ok", or what is wrong, with status 503."""
        self._health = status

    def stats(self) -> dict:
        """Counters of the server and, under `pages`, the last figures each page reported (see `STATS_FIELDS`)."""
        clients = list(self._clients)
        dropped = self._closed_clients_dropped + sum(client.outbox.dropped_frames for client in clients)
        return {
            "clients": len(clients),
            "frames": self._sequence[FRAME],
            "dropped_frames": dropped,
            "refused": self._access.refused,
            "bad_messages": self._bad_messages,
            "pages": [dict(client.stats) for client in clients if client.stats],
        }

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

    def _pack(self, kind: int, payload: bytes, pts: float, rate: int = 0) -> bytes:
        if not math.isfinite(pts):
            raise KioskError(f"pts is {pts}; expected seconds on the content clock")
        self._newest_pts = float(pts)
        self._sequence[kind] += 1
        return pack(kind, payload, pts=pts, sequence=self._sequence[kind], rate=rate)

    def _call(self, function: object, *args: object) -> None:
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
        self._frame_arrived = asyncio.Event()
        app = web.Application(middlewares=[self._access.middleware], client_max_size=1024)
        for base in {"", self.base_path}:  # proxies take it off, or leave it on
            app.router.add_get(f"{base}/ws", self._websocket)
            app.router.add_get(f"{base}/snapshot.jpg", self._get_snapshot)
            app.router.add_get(f"{base}/state", self._get_state)
            app.router.add_get(f"{base}/healthz", self._get_health)
            for path in sorted(_STATIC.iterdir()):
                if path.suffix in _TYPES:
                    name = "" if path.name == "index.html" else path.name
                    app.router.add_get(f"{base}/{name}", _static_handler(path))
        if self.base_path:  # without its last slash the page would look for its parts a level too high
            app.router.add_get(self.base_path, self._to_page)
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
        await self._stop.wait()
        code = WSCloseCode.GOING_AWAY
        closing = [client.socket.close(code=code, message=b"closing") for client in self._clients]
        await asyncio.gather(*closing, return_exceptions=True)
        await runner.cleanup()

    def _deliver(self, kind: int, message: bytes, seconds: float) -> None:
        for client in self._clients:
            client.outbox.put(kind, message, seconds)
            client.ready.set()

    def _deliver_frame(self, message: bytes, sequence: int, jpeg: bytes) -> None:
        self._snapshot = (sequence, jpeg, time.monotonic())
        if self._frame_arrived is not None:
            self._frame_arrived.set()
            self._frame_arrived = asyncio.Event()
        self._deliver(FRAME, message, 0.0)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._clients) >= MAX_CLIENTS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_CLIENTS} pages are connected already\n")
        page = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_S,
            max_msg_size=MAX_CLIENT_MESSAGE,
            compress=False,
            timeout=1.0,
        )
        await page.prepare(request)
        client = _Client(page)
        with self._lock:
            hello, state = dict(self._hello), dict(self._state)
            pts = self._newest_pts
        client.outbox.put(HELLO, pack(HELLO, pack_json(hello), pts=pts))
        client.outbox.put(STATE, pack(STATE, pack_json(state), pts=pts))
        client.ready.set()
        self._clients.add(client)
        sender = asyncio.ensure_future(_send(client))
        try:
            await self._receive(client)
        finally:
            sender.cancel()
            self._clients.discard(client)
            self._closed_clients_dropped += client.outbox.dropped_frames
        return page

    async def _receive(self, client: _Client) -> None:
        window, count = time.monotonic(), 0
        async for message in client.socket:
            now = time.monotonic()
            if now - window >= 1.0:
                window, count = now, 0
            count += 1
            try:
                if message.type is not WSMsgType.TEXT:
                    raise ProtocolError("pages send text")
                if count > MAX_MESSAGES_PER_SECOND:
                    raise ProtocolError(f"more than {MAX_MESSAGES_PER_SECOND} messages a second")
                client.stats = parse_client_message(message.data)
            except ProtocolError as error:
                self._bad_messages += 1
                reason = str(error).encode()[:120]
                await client.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason)
                return

    async def _get_snapshot(self, request: web.Request) -> web.StreamResponse:
        self._wanted_until = time.monotonic() + _WANTED_AFTER_SNAPSHOT_S
        fresh = self._snapshot is not None and time.monotonic() - self._snapshot[2] < 0.5
        if not fresh and self._frame_arrived is not None:
            # Nobody looked until now: the publisher has to notice that a picture is wanted.
            with contextlib.suppress(asyncio.TimeoutError):  # then the last frame there is, or 404
                await asyncio.wait_for(self._frame_arrived.wait(), _SNAPSHOT_WAIT_S)
        if self._snapshot is None:
            raise web.HTTPNotFound(text="no frame yet\n")
        age = time.monotonic() - self._snapshot[2]
        return web.Response(
            body=self._snapshot[1], content_type="image/jpeg", headers={"X-Age": f"{age:.3f}"}
        )

    async def _get_state(self, request: web.Request) -> web.StreamResponse:
        with self._lock:
            state, pts = dict(self._state), self._newest_pts
        return web.json_response({"state": state, "pts": pts, "server": self.stats()})

    async def _get_health(self, request: web.Request) -> web.StreamResponse:
        age = None if self._snapshot is None else round(time.monotonic() - self._snapshot[2], 3)
        answer = {"status": self._health, "clients": self.clients, "frame_age_s": age}
        return web.json_response(answer, status=200 if self._health == "ok" else 503)

    async def _to_page(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(f"{self.base_path}/")


async def _send(client: _Client) -> None:
    try:
        while not client.socket.closed:
            message = client.outbox.get()
            if message is None:
                client.ready.clear()
                await client.ready.wait()
                continue
            # Waits while the page does not read; meanwhile the outbox stays bounded.
            await client.socket.send_bytes(message)
    except ConnectionError:
        await client.socket.close()


def _static_handler(path: Path) -> object:
    async def get(request: web.Request) -> web.StreamResponse:
        return web.Response(body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8")

    return get
