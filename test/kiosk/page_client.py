# SPDX-License-Identifier: Apache-2.0
"""A page without a browser: HTTP and WebSocket requests to the kiosk server, for tests."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request

import numpy as np

from flowact_ros.kiosk import protocol
from flowact_ros.media.jpeg import encode_jpeg

JPEG = encode_jpeg(np.zeros((16, 16, 3), np.uint8))
PCM = bytes(1920)
PATIENCE_S = 60.0  # for things that must happen; nothing is asserted about speed


def get(server, path, **headers):
    """(status, headers, body) of a GET; a foreign Host goes in as a header."""
    request = urllib.request.Request(server.origin + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def wait_for(condition, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


async def open_socket(session, server, origin=None, path="/ws"):
    headers = {} if origin is None else {"Origin": origin}
    return await session.ws_connect(server.origin + path, headers=headers, max_msg_size=0)


async def receive(page, count):
    return [protocol.unpack((await page.receive(timeout=PATIENCE_S)).data) for _ in range(count)]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 150))
