# SPDX-License-Identifier: Apache-2.0
"""A relay in front of a server that lets only so much through, as a bad network does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

BURST_S = 0.05


class SlowLink:
    """Listens on `port` and passes on to `target`; `rate` [bytes/s] is what all connections get of what comes back."""

    def __init__(self, target: int, rate: float) -> None:
        self.rate = rate
        self._target = target
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target, limit=8192)
        both = self._pass(reader, forth, False), self._pass(back, writer, True)
        with contextlib.suppress(asyncio.CancelledError):  # `close`, and what this is a callback of would complain
            await asyncio.gather(*both)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, slow: bool) -> None:
        due = time.monotonic()
        try:
            while data := await source.read(4096):
                sink.write(data)
                await sink.drain()
                if slow:
                    due = max(due + len(data) / self.rate, time.monotonic() - BURST_S)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
        except ConnectionError:
            pass  # either side may leave at any time
        finally:
            sink.close()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> SlowLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
