# SPDX-License-Identifier: Apache-2.0
"""One robot at a server: its messages to a session, the session's frames to it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from flowact_ros.engine.characters import CharacterNotFound, load_character
from flowact_ros.engine.interfaces import AudioError, EngineError, Frame, Pipeline, ReferenceError_
from flowact_ros.engine.looking import FOLLOW, Looking
from flowact_ros.engine.losses import QUEUE_FULL, REFUSED
from flowact_ros.engine.session import Session
from flowact_ros.engine.streams.host import Streams, TooManyStreams
from flowact_ros.fleet.wire import PROTOCOL, Message, WireError, pack, unpack
from flowact_ros.media.errors import MediaError
from flowact_ros.media.image import decode_png
from flowact_ros.media.jpeg import encode_jpeg

MEMORY_S = 2.0  # how often the robot is sent what the avatar remembers
JPEGS_WAITING = 8  # messages in the queue of a slow link, from which pictures are left out
MOST_WAITING = 100  # four seconds: the link is given up
STUCK_S = 6.0  # a dozen steps
_REFUSED = (AudioError, WireError, MediaError, CharacterNotFound, ReferenceError_, ValueError)

_LOG = logging.getLogger(__name__)


class LinkTooSlow(Exception):
    """A robot is sent more than its link takes: its stream ends, and nothing is wrong with the server."""


class Socket(Protocol):
    """Of Starlette."""

    async def receive_bytes(self) -> bytes: ...

    async def send_bytes(self, data: bytes) -> None: ...


class Connection:
    """From `open` to the end of one stream. health: is told whether frames leave, or why the engine failed."""

    def __init__(
        self, streams: Streams, pipeline: Pipeline, socket: Socket, *, jpeg_quality: int, health: Callable[[str], None]
    ) -> None:
        self._streams, self._pipeline, self._socket = streams, pipeline, socket
        self._quality, self._health = jpeg_quality, health
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._session: Session | None = None
        self._stepped = time.monotonic()

    @property
    def stuck(self) -> bool:
        """Has its engine made no step for so long that it will make none any more?"""
        return self._session is not None and time.monotonic() - self._stepped > STUCK_S

    async def run(self) -> None:
        """Until one side ends it. Raises WireError for what is no opening, EngineError where no stream can be had."""
        first = unpack(await self._socket.receive_bytes())
        if first.kind != "open" or first.get("protocol", int, 0) != PROTOCOL:
            raise WireError(f"a stream begins with open, protocol {PROTOCOL}; {first.kind} came")
        session, resumed = await asyncio.to_thread(self._open, first)
        self._session, self._stepped = session, time.monotonic()
        self._send(
            "opened", width=self._pipeline.width, height=self._pipeline.height, resumed=resumed,
            controls=list(self._pipeline.control_names), reference_id=session.reference_id,
            server=f"{socket.gethostname()}:{os.getpid()}",
        )  # fmt: skip
        frames = threading.Thread(target=self._frames, args=(session,), name="fleet-frames", daemon=True)
        session.start()
        frames.start()
        tasks = [asyncio.create_task(self._hear(session)), asyncio.create_task(self._tell())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._session = None
            for task in tasks:
                task.cancel()
            await asyncio.to_thread(session.close)

    def _open(self, message: Message) -> tuple[Session, bool]:
        """The session, and whether it goes on with the memory that came."""
        rgb, name = self._picture(message, 0)
        seed = message.get("seed", int, 0)
        timeout_s = float(message.get("look_at_timeout", (int, float), 3.0))
        looking = Looking(message.get("gaze", str, FOLLOW), timeout_s=timeout_s, seed=seed)
        options: dict[str, Any] = {
            "seed": seed, "reference_id": name, "looking": looking, "on_chunk": lambda record: self._step(),
        }  # fmt: skip
        session, resumed = None, False
        if message.part(1):
            try:
                session, resumed = self._streams.open(rgb, saved=message.part(1), **options), True
            except TooManyStreams:
                raise
            except EngineError as error:
                self._send("warning", text=f"it begins anew from its reference: {error}")
        session = session or self._streams.open(rgb, **options)
        session.recover(message.get("recover", bool, True))
        return session, resumed

    def _picture(self, message: Message, part: int) -> tuple[np.ndarray, str]:
        """The picture that came, or the shipped character that is named. Raises MediaError, CharacterNotFound."""
        if message.part(part):
            return decode_png(message.part(part)), message.get("character", str, "")
        name = message.get("character", str, "")
        return load_character(name), name

    # ---- what comes

    async def _hear(self, session: Session) -> None:
        while True:
            message = unpack(await self._socket.receive_bytes())
            try:
                await self._take(session, message)
            except EngineError:
                raise
            except _REFUSED as error:
                self._send("warning", text=f"{message.kind}: {' '.join(str(error).split())[:500]}")

    async def _take(self, session: Session, message: Message) -> None:
        if message.kind == "speech":
            self._speech(session, message)
        elif message.kind == "instruction":
            session.set_instruction(
                message.get("text", str, ""), behaviour=message.get("behaviour", str, ""),
                priority=message.get("priority", int, 0), utterance_id=message.get("utterance_id", str, ""),
            )  # fmt: skip
        elif message.kind == "look_at":
            number = (int, float)
            session.look_at(float(message.get("x", number, 0.0)), float(message.get("y", number, 0.0)))
        elif message.kind == "look_away":
            session.look_away()
        elif message.kind == "interrupt":
            session.interrupt(message.get("utterance_id", str))
        elif message.kind == "reset":
            session.reset_memory()
        elif message.kind == "refused":
            session.refuse_audio(message.get("samples", int, 0), message.get("reason", str, REFUSED))
        elif message.kind == "reference":
            await self._change(session, message)
        else:
            raise WireError("the fleet does not know such messages")

    def _speech(self, session: Session, message: Message) -> None:
        if len(message.part(0)) % 2:
            raise WireError(f"{len(message.part(0))} bytes are no samples of S16LE")
        pcm = np.frombuffer(message.part(0), "<i2")
        try:
            session.push_audio(
                pcm, message.get("rate", int, 0), utterance_id=message.get("utterance_id", str, ""),
                first_sample=message.get("first_sample", int), sequence=message.get("sequence", int),
                last=message.get("last", bool, False),
            )  # fmt: skip
        except AudioError:
            session.refuse_audio(len(pcm), QUEUE_FULL)
            raise

    async def _change(self, session: Session, message: Message) -> None:
        """Encoding a picture takes a while: other messages are taken meanwhile by nobody, and frames go on."""
        answer: dict[str, Any] = {"id": message.get("id", int, 0), "error": "", "refused": False}
        try:
            rgb, name = await asyncio.to_thread(self._picture, message, 0)
            answer["reference_id"] = await asyncio.to_thread(session.set_reference, rgb, name)
        except _REFUSED as error:
            answer |= {"error": " ".join(str(error).split()), "refused": True}
        self._send("answer", **answer)

    # ---- what goes

    async def _tell(self) -> None:
        while (message := await self._out.get()) is not None:
            await self._socket.send_bytes(message)

    def _frames(self, session: Session) -> None:
        """A thread of its own: the session's pacing, and JPEGs."""
        saved_at = time.monotonic()
        try:
            for frame in session.frames():
                self._frame(session, frame)
                self._health("")
                if time.monotonic() - saved_at >= MEMORY_S:
                    saved_at = time.monotonic()
                    self._put(pack("memory", session.save()))
        except LinkTooSlow as error:
            _LOG.warning("a robot's stream ends: %s", error)
            self._send("failed", text=str(error))
        except Exception as error:
            if self._session is not None:  # it was not closed because the robot went
                reason = f"{type(error).__name__}: {error}"
                _LOG.exception("a stream failed")
                self._health(reason)
                self._send("failed", text=reason[:500])
        self._put(None)

    def _frame(self, session: Session, frame: Frame) -> None:
        waiting = self._out.qsize()
        if waiting > MOST_WAITING:
            raise LinkTooSlow(f"the link does not keep up: {waiting} messages wait")
        sound = np.clip(np.rint(frame.audio * 32768.0), -32768, 32767).astype("<i2").tobytes()
        jpeg = encode_jpeg(frame.rgb, self._quality) if waiting <= JPEGS_WAITING else b""
        self._put(
            pack(
                "frame", sound, np.asarray(frame.motion, "<f4").tobytes(), jpeg,
                index=frame.index, behaviour=frame.behaviour, utterance_id=frame.utterance_id, speaking=frame.speaking,
                repeated=frame.repeated, waiting=session.waiting, queued_s=session.queued_s,
            )
        )  # fmt: skip

    def _step(self) -> None:
        """Engine's thread."""
        self._stepped = time.monotonic()

    def _send(self, kind: str, **fields: Any) -> None:
        self._put(pack(kind, **fields))

    def _put(self, message: bytes | None) -> None:
        """Any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._out.put_nowait, message)
