# SPDX-License-Identifier: Apache-2.0
"""Whom the page's server refuses: other origins, rebound names, and beyond loopback everybody without the token."""

from __future__ import annotations

import aiohttp
import pytest
from page_client import get, open_socket, receive, run

from flowact_ros.kiosk import access
from flowact_ros.kiosk.protocol import HELLO, STATE
from flowact_ros.kiosk.server import KioskError, KioskServer


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "https://127.0.0.1.evil.example",
        "file://",
        "http://127.0.0.1:1",
        "",
    ],
)
def test_websockets_of_other_origins_are_refused(server, origin):
    async def knock():
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await open_socket(session, server, origin)
            return caught.value.status

    assert run(knock()) == 403
    assert server.clients == 0 and server.stats()["refused"] == 1


def test_requests_of_other_origins_and_rebound_names_are_refused(server):
    assert get(server, "/state", Origin="http://evil.example")[0] == 403
    assert get(server, "/state", Host="evil.example")[0] == 403
    rebound = f"evil.example:{server.port}"
    assert get(server, "/state", Host=rebound, Origin=f"http://{rebound}")[0] == 403
    assert get(server, "/state", Host="localhost:9999")[0] == 200  # a forwarded port
    assert get(server, "/state", Origin=server.origin)[0] == 200


def test_beyond_loopback_a_token_is_needed(monkeypatch):
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
    with KioskServer("0.0.0.0", 0) as server:
        assert len(server.token) >= 16 and server.url == f"{server.origin}/?token={server.token}"
        for path in ("/", "/app.js", "/state", "/snapshot.jpg", "/healthz", "/?token=wrong"):
            status, _, body = get(server, path)
            assert status == 401 and b"token" in body and server.token.encode() not in body
        assert get(server, f"/state?token={server.token}")[0] == 200
        assert get(server, "/state", Authorization=f"Bearer {server.token}")[0] == 200

        async def visit():
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    await open_socket(session, server, server.origin)
                async with session.get(server.url) as answer:
                    # the redirect leaves a cookie and a clean address
                    assert answer.status == 200 and str(answer.url) == server.origin + "/"
                    assert "httponly" in str(answer.history[0].headers["Set-Cookie"]).lower()
                page = await open_socket(session, server, server.origin)
                kinds = [m.kind for m in await receive(page, 2)]
                with pytest.raises(aiohttp.WSServerHandshakeError) as other:
                    await open_socket(session, server, "http://evil.example")
                return caught.value.status, kinds, other.value.status

        assert run(visit()) == (401, [HELLO, STATE], 403)


def test_the_token_comes_from_the_environment_and_must_be_long(monkeypatch):
    monkeypatch.setenv(access.TOKEN_VARIABLE, "a-token-of-the-installation")
    with KioskServer("0.0.0.0", 0) as server:
        assert server.token == "a-token-of-the-installation"
    with KioskServer("127.0.0.1", 0) as server:
        assert server.token is None and "token" not in server.url
    monkeypatch.setenv(access.TOKEN_VARIABLE, "short")
    with pytest.raises(KioskError, match="5 characters"):
        KioskServer("0.0.0.0", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("127.8.8.8", True), ("0.0.0.0", False),
     ("::", False), ("robot.local", False), ("192.168.1.4", False), ("", False), ("localhost.evil", False)],
)  # fmt: skip
def test_what_counts_as_loopback(host, loopback):
    assert access.is_loopback(host) is loopback
