# SPDX-License-Identifier: Apache-2.0
"""A robot's connection to the fleet: a thread that makes it, and makes it anew whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.fleet.wire import LARGEST, PATH, Message, WireError, unpack
from flowact_ros.media.errors import MediaError

SILENCE_S = 2.0  # without a message, and the server is given up
OPEN_S = 20.0  # for a server to encode the picture and begin
BACKOFF_S = (0.1, 2.0)  # before another try: the first, the longest
CLOSE_S = 0.5  # for a server to say goodbye
REFUSING = {401, 403}  # statuses, and 1008 (`Replica`), after which another try is of no use
POLICY = 1008

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stream:
    """What a link calls, in its thread.

    opening: gives a connection's first message; opened: a server begins with this message, gives what it has to know
    before anything else is sent, called with the lock; take: any other message, raises WireError or MediaError for one
    that cannot be, which ends the connection; frames: how many have come; lost: the connection is over, called with the
    lock; ended: there will be no other one, with the error, EngineError for a refusal, or None after `close`.
    """

    opening: Callable[[], bytes]
    opened: Callable[[Message], Iterable[bytes]]
    take: Callable[[Message], None]
    frames: Callable[[], int]
    lost: Callable[[], None]
    ended: Callable[[Exception | None], None]


class Link:
    """url: ws://HOST:PORT or wss://; lock: held by whoever sends; warn: gets a line about servers that are gone.

    Raises ValueError, one line, for another url.
    """

    def __init__(
        self, url: str, token: str, stream: Stream, lock: threading.Lock, warn: Callable[[str], None]
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"the fleet's address is {url!r}: ws://HOST:PORT or wss://HOST:PORT is needed")
        self._url, self._token = url.rstrip("/") + PATH, token
        self._stream, self._lock, self._warn = stream, lock, warn
        self._out: asyncio.Queue[bytes] | None = None  # of the connection, once it is open
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Harmless when called again."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ends the connection, and waits for that."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(lambda: self._stop is not None and self._stop.set())
            self._thread.join(5.0)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def open(self) -> bool:
        """Does a server make frames now?"""
        return self._out is not None

    def send(self, message: bytes) -> None:
        """With the lock, in any thread. Without a connection it is not sent: `Stream.opened` tells the next server."""
        out = self._out
        if out is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(out.put_nowait, message)

    # ---- its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        error: Exception | None = None
        try:
            self._loop.run_until_complete(self._live())
        except Exception as failure:  # told where frames are taken
            if not isinstance(failure, EngineError):
                _LOG.exception("the connection's thread failed")
            error = failure
        finally:
            self._loop.close()
            self._stream.ended(error)

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        stopped = asyncio.ensure_future(self._stop.wait())
        backoff, told = BACKOFF_S[0], ""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=SILENCE_S)) as client:
            while not self._closed.is_set():
                once = asyncio.ensure_future(self._connect(client))
                await asyncio.wait({once, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not once.done():
                    once.cancel()
                    await asyncio.wait({once})
                    return
                frames, reason = once.result()
                if frames:
                    backoff, told = BACKOFF_S[0], ""
                    self._warn(f"the server is gone ({reason}): another one goes on")
                elif reason != told:
                    told = reason
                    self._warn(f"no server of the fleet takes this stream ({reason}): it is tried on")
                await asyncio.wait({stopped}, timeout=backoff)
                backoff = min(2 * backoff, BACKOFF_S[1])

    async def _connect(self, client: aiohttp.ClientSession) -> tuple[int, str]:
        """One connection, to its end: how many frames came, and why it ended. Raises EngineError for a refusal."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        stream = self._stream
        begun, sender, last = stream.frames(), None, ""
        try:
            async with client.ws_connect(
                self._url, headers=headers, max_msg_size=LARGEST,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),  # type: ignore[call-arg] # of attrs
            ) as socket:  # fmt: skip
                await socket.send_bytes(stream.opening())
                patience = OPEN_S
                while True:
                    message = await asyncio.wait_for(socket.receive(), patience)
                    if message.type != aiohttp.WSMsgType.BINARY:
                        if socket.close_code == POLICY:
                            raise EngineError(f"the fleet refuses this stream: {last or message.extra or 'no reason'}")
                        return stream.frames() - begun, last or f"closed, {socket.close_code}"
                    came = unpack(message.data)
                    if came.kind == "opened":
                        patience = SILENCE_S
                        sender = asyncio.ensure_future(_send_all(socket, self._opened(came)))
                    elif came.kind == "failed":
                        last = came.get("text", str, "")
                    else:
                        stream.take(came)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in REFUSING:
                raise EngineError(f"the fleet refuses this stream: status {error.status}; is its token set?") from None
            return stream.frames() - begun, f"status {error.status}"
        except (TimeoutError, asyncio.TimeoutError):
            return stream.frames() - begun, f"nothing came for {SILENCE_S:g} s"
        except (aiohttp.ClientError, OSError, WireError, MediaError) as error:
            return stream.frames() - begun, " ".join(str(error).split())[:200] or type(error).__name__
        finally:
            if sender is not None:
                sender.cancel()
            with self._lock:
                self._out = None
                stream.lost()

    def _opened(self, message: Message) -> asyncio.Queue[bytes]:
        """Everything that the server has to know goes first; from then on what is sent comes behind it."""
        with self._lock:
            self._out = out = asyncio.Queue()
            for first in self._stream.opened(message):
                out.put_nowait(first)
        return out


async def _send_all(socket: aiohttp.ClientWebSocketResponse, out: asyncio.Queue[bytes]) -> None:
    while True:
        await socket.send_bytes(await out.get())
