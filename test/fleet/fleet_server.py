# SPDX-License-Identifier: Apache-2.0
"""A server of the fleet without Ray: a replica of the integers' pipeline behind uvicorn, in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from fakes import FakePipeline
from fastapi import FastAPI, WebSocket

from flowact_ros.fleet.replica import Replica
from flowact_ros.fleet.wire import PATH


def free_port() -> int:
    """For a server in another process: somebody else may take it before that. Our own servers choose theirs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FleetServer:
    """Serves on `port`, 0 for any, until `stop`, which breaks all connections as the death of a process does."""

    def __init__(
        self, port: int = 0, *, most: int = 2, token: str = "", hook: Callable[..., None] | None = None
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"ws://127.0.0.1:{self.port}"
        self.pipeline = FakePipeline(hook=hook) if hook else FakePipeline()
        self.replica = Replica(self.pipeline, most=most, token=token)
        app = FastAPI()

        @app.websocket(PATH)
        async def stream(websocket: WebSocket) -> None:
            await self.replica.handle(websocket)

        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0, lifespan="off")
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server ended before it served"
            time.sleep(0.01)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def _cut(self) -> None:
        """In the loop's own thread: its sockets are not safe in another."""
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        self._server.should_exit = True

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cut)
        self._thread.join(60.0)
        assert not self._thread.is_alive()
