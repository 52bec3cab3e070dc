# SPDX-License-Identifier: Apache-2.0
"""Who watches the page while `flowact bench` runs: a client of its WebSocket, and a real browser."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp

from flowact_ros.evaluation.load import REST_S
from flowact_ros.kiosk import browser
from flowact_ros.kiosk.protocol import AUDIO, FRAME, unpack

ASK_S = 2.0  # how often the page's own figures are read; each covers its last 600 screen refreshes


class Page(threading.Thread):
    """One client of the page's WebSocket, as a browser would be, without drawing."""

    def __init__(self, url: str) -> None:
        super().__init__(name="page", daemon=True)
        self.url, self.frames, self.sounds, self.missed = url, 0, 0, 0
        self.error = ""
        self.kept: list[tuple[int, float, bytes]] = []  # (interruption, seconds after it, JPEG)
        self._cuts: list[float] = []
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            asyncio.run(self._watch())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.error = str(error)

    async def _watch(self) -> None:
        origin = self.url.split("?")[0].rstrip("/")
        last = -1
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{origin}/ws", headers={"Origin": origin}, max_msg_size=0) as socket,
        ):
            while not self._ended.is_set():
                try:
                    data = await socket.receive(timeout=1.0)
                except asyncio.TimeoutError:
                    continue
                if data.type is not aiohttp.WSMsgType.BINARY:
                    if data.type in (
                        aiohttp.WSMsgType.CLOSED,
                        aiohttp.WSMsgType.CLOSE,
                        aiohttp.WSMsgType.ERROR,
                    ):
                        self.error = "the page's server closed the connection"
                        return
                    continue
                message = unpack(data.data)
                if message.kind == FRAME:
                    now = time.monotonic()
                    if self._cuts and now - self._cuts[-1] < REST_S:
                        self.kept.append((len(self._cuts) - 1, now - self._cuts[-1], message.payload))
                    self.frames += 1
                    self.missed += max(0, message.sequence - last - 1) if last >= 0 else 0
                    last = message.sequence
                self.sounds += message.kind == AUDIO

    def cut(self) -> None:
        """An interruption is asked for now."""
        self._cuts.append(time.monotonic())

    def end(self) -> None:
        self._ended.set()
        self.join(3.0)

    def save(self, folder: Path) -> list[tuple[int, float, str]]:
        """Writes the kept pictures; (interruption, seconds after it, file) each."""
        out = []
        for number, (cut, after, jpeg) in enumerate(self.kept):
            path = folder / f"{number:05d}.jpg"
            path.write_bytes(jpeg)
            out.append((cut, round(after, 4), str(path)))
        return out


class Screen(threading.Thread):
    """A headless Chromium that shows the page with sound. What it tells the page's server is read from `/state`.

    Raises OSError without a Chromium.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="screen", daemon=True)
        self._origin = url.split("?")[0].rstrip("/")
        self._reports: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._browser = browser.launch(url, headless=True, extra=("--remote-debugging-port=0",))

    def run(self) -> None:
        while not self._ended.wait(ASK_S):
            try:
                with urlopen(f"{self._origin}/state", timeout=5.0) as answer:
                    pages = json.load(answer)["server"]["pages"]
            except OSError:
                continue  # the bridge is busy or going: figures() says if nothing ever came
            self._reports += [page for page in pages if page.get("clock") == "audio"]

    def figures(self) -> dict[str, Any]:
        """page_skew_ms {"p50", "p95"}: picture drawn minus sound heard, the worst of all reports; fps: their median.

        Raises ValueError when the page never played sound.
        """
        rows = [row for row in self._reports if row.get("skew_p95_ms") is not None]
        if not rows:
            raise ValueError("the browser never played the page's sound: nothing is known of picture against sound")
        worst = max(rows, key=lambda row: row["skew_p95_ms"])
        fps = sorted(row["fps"] for row in rows)
        return {
            "page_skew_ms": {"p50": round(worst["skew_p50_ms"], 1), "p95": round(worst["skew_p95_ms"], 1)},
            "screen": {"reports": len(rows), "fps": fps[len(fps) // 2], "late": rows[-1]["late"]},
        }

    def end(self) -> None:
        self._ended.set()
        self.join(6.0)
        self._browser.close()
