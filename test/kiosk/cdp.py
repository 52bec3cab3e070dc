# SPDX-License-Identifier: Apache-2.0
"""A page in a real headless Chromium, driven through the DevTools protocol; blocking calls for plain tests."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from flowact_ros.kiosk import browser

PATIENCE_S = 60.0  # for things that must happen; nothing is asserted about speed


def need_chromium() -> str:
    """The browser's path; without one the test is skipped, or fails where FLOWACT_CI=1 promises one."""
    path = browser.find_browser()
    if path is None:
        reason = f"needs a Chromium: none of {', '.join(browser.CHROMIUM_NAMES)} is installed"
        if os.environ.get("FLOWACT_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class PageError(RuntimeError):
    """The page threw, or the browser refused a command."""


class Page:
    """One tab. `console` collects warnings, errors and uncaught exceptions of the page."""

    def __init__(
        self,
        url: str,
        *,
        allow_sound: bool = True,
        width: int = 960,
        height: int = 600,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.console: list[str] = []
        extra = ["--remote-debugging-port=0", "--remote-allow-origins=*", f"--window-size={width},{height}", *flags]
        self._browser = browser.launch(
            "about:blank", browser=need_chromium(), headless=True, allow_sound=allow_sound, extra=extra
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cdp", daemon=True)
        self._thread.start()
        self._waiting: dict[int, asyncio.Future] = {}
        self._next = 0
        try:
            self._call(self._connect(self._browser.devtools_port(PATIENCE_S)))
            for domain in ("Page", "Runtime", "Log"):
                self.send(f"{domain}.enable")
            self.open(url, width=width, height=height)
        except BaseException:
            self.close()
            raise

    def open(self, url: str, *, width: int = 960, height: int = 600) -> None:
        """Shows another page, on a screen of another size: quicker than another browser."""
        self.console.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=url)

    def send(self, method: str, **params: object) -> dict:
        """One DevTools command and its result."""
        return self._call(self._send(method, params))

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression (promises are awaited). Raises `PageError` when it throws."""
        answer = self.send(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=False,
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details.get("text", "?"))
        return answer["result"].get("value")

    def stats(self) -> dict:
        """`window.flowact.stats()`."""
        return self.evaluate("window.flowact.stats()")

    def wait_for(self, expression: str, timeout: float = PATIENCE_S) -> object:
        """Polls until the expression is truthy and returns it; fails with the page's last stats otherwise."""
        return self.wait_until(lambda: self.evaluate(expression), expression, timeout)

    def wait_until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE_S) -> object:
        end = time.monotonic() + timeout
        value: object = None
        while time.monotonic() < end:
            try:
                value = condition()
            except PageError as error:  # the page is still loading
                value, what = None, f"{what.splitlines()[0]} ({error})"[:300]
            if value:
                return value
            time.sleep(0.05)
        state = self.evaluate("JSON.stringify(window.flowact ? window.flowact.stats() : null)")
        raise AssertionError(
            f"not within {timeout:.0f} s: {what}; stats {state}; console {self.console[-5:]}"
        )

    def click(self, x: float, y: float) -> None:
        """A real (trusted) mouse click: a user's gesture for the browser."""
        self.hold(x, y, 0.0)

    def hold(self, x: float, y: float, seconds: float) -> None:
        """A real press of the mouse that lasts."""
        at = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._press("Input.dispatchMouseEvent", ("mousePressed", "mouseReleased"), at, seconds)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where to touch an element; fails for one that something else covers."""
        x, y, on_top = self.evaluate(
            f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{ block: 'nearest' }});"
            " const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;"
            " return [x, y, e.contains(document.elementFromPoint(x, y))]; })()"
        )
        assert on_top, f"{selector} cannot be touched"
        return x, y

    def key(self, key: str) -> None:
        """A real key press of a letter, of Space (" ") or of Escape."""
        code = {" ": "Space", "Escape": "Escape"}.get(key, f"Key{key.upper()}")
        number = 27 if key == "Escape" else ord(key.upper())
        given = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self._press("Input.dispatchKeyEvent", ("keyDown", "keyUp"), given, 0.0)

    def _press(self, method: str, kinds: tuple[str, str], given: dict[str, object], seconds: float) -> None:
        """Its end is sent without waiting for the answer to its beginning: a busy page does not make it longer."""

        async def send(kind: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await self._send(method, {"type": kind, **given})

        async def both() -> None:
            await asyncio.gather(send(kinds[0], 0.0), send(kinds[1], seconds))

        self._call(both())

    def screenshot(self, path: str | Path) -> Path:
        """Saves what the page looks like as a PNG."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))
        return Path(path)

    def close(self) -> None:
        async def end() -> None:
            for name in ("_socket", "_session"):
                if hasattr(self, name):
                    await getattr(self, name).close()

        try:
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()
            self._browser.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, coroutine: object, timeout: float = 90.0) -> dict:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        end = time.monotonic() + PATIENCE_S
        while True:
            async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                targets = [
                    target for target in await answer.json(content_type=None) if target["type"] == "page"
                ]
            if targets:
                break
            if time.monotonic() > end:
                raise PageError("the browser opened no page")
            await asyncio.sleep(0.05)
        self._socket = await self._session.ws_connect(targets[0]["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            data = message.json()
            future = self._waiting.pop(data["id"], None) if "id" in data else None
            if future is not None and not future.done():
                future.set_result(data)
            elif data.get("method") == "Runtime.exceptionThrown":
                details = data["params"]["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])
            elif data.get("method") == "Log.entryAdded":
                self.console.append(data["params"]["entry"]["text"])
            elif data.get("method") == "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(arg.get("value", "")) for arg in data["params"]["args"]))

    async def _send(self, method: str, params: dict) -> dict:
        self._next += 1
        number = self._next
        future: asyncio.Future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._socket.send_json({"id": number, "method": method, "params": params})
        data = await asyncio.wait_for(future, 80)
        if "error" in data:
            raise PageError(f"{method}: {data['error'].get('message')}")
        return data["result"]
