# SPDX-License-Identifier: Apache-2.0
"""The pages that are connected now, in the server's loop: what each is sent, and what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from flowact_ros.kiosk.display import NO_TALK, PAGE, Display
from flowact_ros.kiosk.outbox import Outbox
from flowact_ros.kiosk.protocol import (
    FRAME,
    GOT,
    HELLO,
    MAX_VOICE_MESSAGE,
    QUALITY,
    STATE,
    STATS,
    STOP,
    TALK,
    ProtocolError,
    pack,
    pack_json,
    parse_request,
    parse_voice,
)
from flowact_ros.kiosk.rendition import LADDER, Link, Rendition
from flowact_ros.media.errors import MediaError

MAX_CLIENTS = 32
MAX_TEXTS_PER_SECOND = 20  # of a page; ours sends three
MAX_VOICES_PER_SECOND = 60  # ours sends 25
VOICE, LEFT = "voice", "left"
HEARTBEAT_S = 10.0
MOST_ENCODING = 3  # frames: an encoder later than that leaves some out


@dataclass(frozen=True)
class PageEvent:
    """What a person at a page wants. `kind`: TALK (value: bool), STOP, VOICE (value: S16LE mono bytes; rate [Hz]),
    or LEFT: the page is gone."""

    page: str
    kind: str
    value: Any = None
    rate: int = 0


class _Client:
    def __init__(self, page: web.WebSocketResponse) -> None:
        self.name = secrets.token_hex(4)
        self.socket = page
        self.outbox = Outbox()
        self.ready = asyncio.Event()
        self.link = Link(time.monotonic())
        self.stats: dict[str, int | float | str | None] = {}
        self.window_s, self.texts, self.voices = time.monotonic(), 0, 0

    def put(self, kind: int, message: bytes, seconds: float = 0.0) -> None:
        self.outbox.put(kind, message, seconds)
        self.ready.set()

    def count(self, text: bool) -> None:
        """Raises ProtocolError for a page that sends too much."""
        now = time.monotonic()
        if now - self.window_s >= 1.0:
            self.window_s, self.texts, self.voices = now, 0, 0
        self.texts, self.voices = self.texts + text, self.voices + (not text)
        if self.texts > MAX_TEXTS_PER_SECOND:
            raise ProtocolError(f"more than {MAX_TEXTS_PER_SECOND} messages a second")
        if self.voices > MAX_VOICES_PER_SECOND:
            raise ProtocolError(f"more than {MAX_VOICES_PER_SECOND} voice messages a second")


class Hub:
    """All of it is called in the server's loop, but for `stats` and `clients`.

    greeting: makes hello and state for a new page, packed, from its name. on_event: see `PageEvent`.
    """

    def __init__(
        self,
        display: Display,
        greeting: Callable[[str], tuple[bytes, bytes]],
        on_event: Callable[[PageEvent], None],
    ) -> None:
        self._display, self._greeting, self._on_event = display, greeting, on_event
        self._clients: set[_Client] = set()
        self._dropped_before = 0  # in front of pages that are gone
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="page-jpeg")
        self._encoding = 0
        self.bad_messages = 0
        self.bad_frames = 0
        self.snapshot: tuple[bytes, float] | None = None  # JPEG, arrival (monotonic)
        self.frame_arrived = asyncio.Event()

    @property
    def clients(self) -> int:
        return len(self._clients)

    def stats(self) -> dict[str, Any]:
        clients = list(self._clients)
        return {
            "clients": len(clients),
            "dropped_frames": self._dropped_before + sum(c.outbox.dropped_frames for c in clients),
            "bad_messages": self.bad_messages,
            "reduced_pages": sum(c.link.level > 0 for c in clients),
            "pages": [{**c.stats, "rendition": c.link.level} for c in clients if c.stats],
        }

    # ------------------------------------------------------------ to the pages

    def deliver(self, kind: int, message: bytes, seconds: float) -> None:
        """To every page; `seconds`: of sound."""
        for client in self._clients:
            client.put(kind, message, seconds)

    def deliver_frame(self, jpeg: bytes, sequence: int, pts: float) -> None:
        """To every page, as its link can take it."""
        self.snapshot = (jpeg, time.monotonic())
        self.frame_arrived.set()
        self.frame_arrived = asyncio.Event()
        due = {c.link.level for c in self._clients if sequence % c.link.rendition.every == 0}
        for level in sorted(due):
            if LADDER[level].quality is None:
                self._send_frame(level, sequence, pack(FRAME, jpeg, pts=pts, sequence=sequence))
            elif self._encoding < MOST_ENCODING:
                self._encoding += 1
                asyncio.ensure_future(self._encode(level, jpeg, sequence, pts))

    async def _encode(self, level: int, jpeg: bytes, sequence: int, pts: float) -> None:
        rendition: Rendition = LADDER[level]
        try:
            loop = asyncio.get_running_loop()
            smaller = await loop.run_in_executor(self._encoder, rendition.of, jpeg)
        except MediaError:
            self.bad_frames += 1  # begins like a JPEG and is none: pages with good links notice as well
            return
        finally:
            self._encoding -= 1
        every = rendition.every if rendition.every > 1 else 0
        self._send_frame(level, sequence, pack(FRAME, smaller, pts=pts, sequence=sequence, rate=every))

    def _send_frame(self, level: int, sequence: int, message: bytes) -> None:
        now = time.monotonic()
        for client in self._clients:
            if client.link.level != level:
                continue
            if client.link.full(now):
                client.outbox.dropped_frames += 1
                continue
            client.put(FRAME, message)
            client.link.sent(sequence, now)

    async def watch_links(self) -> None:
        """Runs until it is cancelled: once a second every page's rendition is judged anew."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for client in self._clients:
                client.link.tick(client.outbox.dropped_frames, now)

    async def close(self) -> None:
        """Says goodbye to the pages."""
        code = WSCloseCode.GOING_AWAY
        closing = [client.socket.close(code=code, message=b"closing") for client in self._clients]
        await asyncio.gather(*closing, return_exceptions=True)
        self._encoder.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ from a page

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One page's WebSocket, from its opening to its end."""
        if len(self._clients) >= MAX_CLIENTS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_CLIENTS} pages are connected already\n")
        page = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_VOICE_MESSAGE, compress=False, timeout=1.0
        )
        await page.prepare(request)
        client = _Client(page)
        hello, state = self._greeting(client.name)
        client.put(HELLO, hello)
        client.put(STATE, state)
        self._clients.add(client)
        sender = asyncio.ensure_future(_send(client))
        try:
            await self._receive(client)
        finally:
            sender.cancel()
            self._clients.discard(client)
            self._dropped_before += client.outbox.dropped_frames
            self._on_event(PageEvent(client.name, LEFT))
        return page

    async def _receive(self, client: _Client) -> None:
        async for message in client.socket:
            try:
                if message.type is WSMsgType.TEXT:
                    self._on_text(client, message.data)
                elif message.type is WSMsgType.BINARY:
                    self._on_binary(client, message.data)
            except ProtocolError as error:
                self.bad_messages += 1
                reason = str(error).encode()[:120]
                await client.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason)
                return

    def _on_text(self, client: _Client, text: str) -> None:
        client.count(True)
        kind, value = parse_request(text)
        if kind == STATS:
            client.stats = value
        elif kind == GOT:
            client.link.got(value, time.monotonic())
        elif kind == QUALITY:
            client.link.wish(value)
        elif (kind == TALK and self._display.talk == NO_TALK) or (kind == STOP and not self._display.stop):
            raise ProtocolError(f"{kind} is not allowed at this page")
        else:
            self._on_event(PageEvent(client.name, kind, value))

    def _on_binary(self, client: _Client, data: bytes) -> None:
        client.count(False)
        if self._display.talk != PAGE:
            raise ProtocolError("the microphone of this page is not asked for")
        voice = parse_voice(data)
        self._on_event(PageEvent(client.name, VOICE, voice.payload, voice.rate))


def greeting_messages(hello: dict, state: dict, pts: float) -> tuple[bytes, bytes]:
    """Hello and state of one new page, packed."""
    return pack(HELLO, pack_json(hello), pts=pts), pack(STATE, pack_json(state), pts=pts)


async def _send(client: _Client) -> None:
    with contextlib.suppress(ConnectionError):  # the receiving side ends with the connection, and tidies up
        while not client.socket.closed:
            message = client.outbox.get()
            if message is None:
                client.ready.clear()
                await client.ready.wait()
                continue
            # Waits while the page does not read; meanwhile the outbox stays bounded.
            await client.socket.send_bytes(message)
        return
    await client.socket.close()

