# SPDX-License-Identifier: Apache-2.0
"""All robots of one server process: one set of networks, a session each, and whether the process is well."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from flowact_ros.engine.interfaces import EngineError, Pipeline, Reference
from flowact_ros.engine.streams.host import Streams, TooManyStreams
from flowact_ros.fleet.access import refusal
from flowact_ros.fleet.connection import Connection
from flowact_ros.fleet.wire import WireError, pack

_LOG = logging.getLogger(__name__)

# Close codes of the WebSocket (RFC 6455), and one of our own. After POLICY a robot gives up, after the others it tries
# another server: what fails here may go well there.
POLICY, BAD_MESSAGE, FAILED, FULL = 1008, 1007, 1011, 4503


class Unwell(RuntimeError):
    """The process should be replaced; one line why."""


class Replica:
    """streams: as many as `most` at once, `batch` of them computed together (the pipeline is `batched`); token: that
    robots must have, "" for none.

    reference: with it a few steps are made and measured first, so that the first robot need not wait
    """

    def __init__(
        self, pipeline: Pipeline, *, most: int, batch: int = 1, token: str = "", jpeg_quality: int = 85,
        reference: Reference | None = None,
    ) -> None:  # fmt: skip
        self._pipeline, self._token, self._quality = pipeline, token, jpeg_quality
        self._streams = Streams(pipeline, batch=batch, limit=most, name="this server")
        if reference is not None:
            self._streams.measure(reference)
        self._open: set[Connection] = set()
        self._failure = ""  # since the last frame that left

    async def handle(self, socket: Any) -> None:
        """One robot's WebSocket (Starlette's), from before it is accepted to its end."""
        reason = refusal(socket.headers, self._token)
        if reason:
            await socket.close(POLICY, reason)
            return
        await socket.accept()
        connection = Connection(
            self._streams, self._pipeline, socket, jpeg_quality=self._quality, health=self._told
        )  # fmt: skip
        self._open.add(connection)
        try:
            await connection.run()
            await socket.close()
        except TooManyStreams as error:
            await self._end(socket, FULL, error)
        except WireError as error:
            await self._end(socket, BAD_MESSAGE, error)
        except ValueError as error:  # what the robot wishes for
            await self._end(socket, POLICY, error)
        except (EngineError, OSError) as error:
            await self._end(socket, FAILED, error)
        except Exception as error:  # Starlette's, when the robot is gone
            _LOG.info("a robot is gone: %s", type(error).__name__)
        finally:
            self._open.discard(connection)

    async def _end(self, socket: Any, code: int, error: Exception) -> None:
        text = " ".join(str(error).split())[:500]
        try:
            await socket.send_bytes(pack("failed", text=text))
            await socket.close(code, text[:100])
        except Exception as gone:
            _LOG.info("a robot is gone: %s", type(gone).__name__)

    def _told(self, failure: str) -> None:
        """Threads of connections: "" for a frame that left."""
        self._failure = failure

    def check(self) -> None:
        """Raises Unwell where no stream works any more: the engine failed and no frame left since, or one is stuck."""
        if self._failure:
            raise Unwell(self._failure)
        if any(connection.stuck for connection in list(self._open)):
            raise Unwell("an engine makes no steps")

    @property
    def load(self) -> int:
        """Robots that are connected."""
        return len(self._open)

    async def close(self) -> None:
        await asyncio.to_thread(self._streams.close)
