# SPDX-License-Identifier: Apache-2.0
"""The page behind a TLS proxy, which has another name and perhaps a path of its own. README's nginx lines were run
against the same server; here a request looks as it looks behind them."""

from __future__ import annotations

import json

import aiohttp
import pytest
from cdp import Page
from page_client import get, open_socket, receive, run

from flowact_ros.kiosk import listener
from flowact_ros.kiosk.access import checked_base_path, checked_origin
from flowact_ros.kiosk.protocol import HELLO, STATE
from flowact_ros.kiosk.server import KioskError, KioskServer

ROBOT = "https://robot.example"


def socket_status(server, path, **headers):
    async def knock():
        async with aiohttp.ClientSession() as session:
            try:
                page = await session.ws_connect(server.origin + path, headers=headers)
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
            return [message.kind for message in await receive(page, 2)]

    return run(knock())


@pytest.mark.parametrize("host", ["robot.example", "127.0.0.1:8620"])  # passed on, or not
@pytest.mark.parametrize("base", ["", "/face"])  # taken off, or not
def test_a_page_behind_a_proxy(host, base):
    with KioskServer(port=0, allowed_origins=(ROBOT, "https://other.example:8443/"), base_path="face/") as server:
        for path in ("/", "/app.js", "/style.css", "/healthz"):
            assert get(server, base + path, Host=host)[0] == 200
        assert get(server, f"{base}/state", Host=host, Origin=ROBOT)[0] == 200
        assert socket_status(server, f"{base}/ws", Host=host, Origin=ROBOT) == [HELLO, STATE]
        assert socket_status(server, f"{base}/ws", Host=host, Origin="https://evil.example") == 403
        assert socket_status(server, f"{base}/ws", Host=host) == 403
        assert get(server, f"{base}/state", Host="evil.example")[0] == 403
        assert get(server, "/face", Host=host)[1].get("Content-Type", "").startswith("text/html")  # by a redirect


def test_what_is_refused_names_the_parameter():
    with KioskServer(port=0) as server:
        assert b"allowed_origins" in get(server, "/", Host="robot.example")[2]
        assert b"allowed_origins" in get(server, "/state", Origin=ROBOT)[2]


def test_the_token_behind_a_base_path():
    with KioskServer("0.0.0.0", 0, base_path="/face", token="a-token-of-the-installation") as server:

        async def visit():
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                async with session.get(server.url) as answer:
                    assert answer.status == 200 and str(answer.url) == f"{server.origin}/face/"
                    assert "Path=/face/" in answer.history[0].headers["Set-Cookie"]
                page = await open_socket(session, server, server.origin, "/face/ws")
                return [message.kind for message in await receive(page, 2)]

        assert run(visit()) == [HELLO, STATE]


@pytest.mark.parametrize(
    ("origin", "right"),
    [(ROBOT, ROBOT), (" https://Robot.example:443/ ", ROBOT), ("http://10.0.0.2:8080", "http://10.0.0.2:8080")],
)
def test_origins(origin, right):
    assert checked_origin(origin) == right


@pytest.mark.parametrize(
    "origin",
    ["robot.example", "*", "https://", "https://robot.example/face", "wss://robot.example", "https://a@b", "null"],
)
def test_what_is_no_origin(origin):
    with pytest.raises(KioskError, match="expected https://NAME"):
        KioskServer(port=0, allowed_origins=(origin,))


def test_base_paths():
    for path, right in (("", ""), ("/", ""), ("face", "/face"), ("/face/", "/face"), ("a/b", "/a/b")):
        assert checked_base_path(path) == right
    for path in ("/a b", "/../x", "a//b", "/face?x", "https://x/y"):
        with pytest.raises(KioskError, match="base path"):
            checked_base_path(path)


def test_health():
    with KioskServer(port=0) as server:
        assert get(server, "/healthz")[0] == 200
        server.set_health("stalled: no frames leave")
        status, _, body = get(server, "/healthz")
        assert status == 503 and json.loads(body)["status"] == "stalled: no frames leave"


def test_an_address_that_can_be_opened(monkeypatch):
    """0.0.0.0 is none; the one that other machines reach is, also from this one."""
    monkeypatch.setattr("flowact_ros.kiosk.server.address_of_this_machine", lambda: "192.0.2.7")
    for host in ("0.0.0.0", ""):
        with KioskServer(host, 0) as server:
            assert server.url.startswith(f"http://192.0.2.7:{server.port}/?token=")
    with KioskServer("127.0.0.1", 0) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
    assert listener.address_of_this_machine().count(".") == 3


@pytest.mark.browser
def test_the_page_finds_its_parts_below_a_base_path():
    with KioskServer(port=0, base_path="/face") as server, Page(server.url) as page:
        page.wait_for("window.flowact?.stats().connections === 1")
        assert server.clients == 1
