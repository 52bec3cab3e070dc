# SPDX-License-Identifier: Apache-2.0
"""The page's server: what it sends, and that no client can slow it or break it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import aiohttp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_client import JPEG, PATIENCE_S, PCM, get, open_socket, receive, run, wait_for

from flowact_ros.kiosk.protocol import AUDIO, FRAME, HELLO, STATE
from flowact_ros.kiosk.server import MAX_CLIENTS, KioskError, KioskServer


def test_a_page_gets_hello_state_then_the_stream(server):
    server.set_state({"behaviour": "listening"})

    async def watch():
        async with aiohttp.ClientSession() as session:
            page = await open_socket(session, server, server.origin)
            first = await receive(page, 2)
            assert server.clients == 1 and server.wanted
            server.push_frame(JPEG, 12.5)
            server.push_audio(PCM, 24_000, 12.5)
            server.push_frame(JPEG, 12.54)
            rest = await receive(page, 3)
            await page.send_str('{"type": "stats", "fps": 24.9, "clock": "audio", "skew_p95_ms": 17.0}')
            while not server.stats()["pages"]:  # `run` has the limit
                await asyncio.sleep(0.01)
            return first, rest, server.stats()["pages"]

    (hello, state), rest, pages = run(watch())
    assert hello.kind == HELLO and json.loads(hello.payload)["buffer_ms"] == 200
    assert state.kind == STATE and json.loads(state.payload) == {"behaviour": "listening"}
    rest.sort(key=lambda m: m.pts + m.kind / 1000)  # sound may overtake a picture
    assert [(m.kind, m.rate, m.sequence, m.pts) for m in rest] == [
        (FRAME, 0, 1, 12.5), (AUDIO, 24_000, 1, 12.5), (FRAME, 0, 2, 12.54)
    ]  # fmt: skip
    assert rest[0].payload == JPEG and rest[1].payload == PCM
    assert pages == [{"fps": 24.9, "clock": "audio", "skew_p95_ms": 17.0, "rendition": 0}]
    wait_for(lambda: server.clients == 0)
    assert not server.wanted


def test_http_answers(server):
    assert get(server, "/snapshot.jpg")[0] == 404
    assert server.wanted  # somebody asked: the publisher should make a picture
    server.push_frame(JPEG, 1.0)
    server.set_state({"behaviour": "speaking"})
    wait_for(lambda: json.loads(get(server, "/healthz")[2])["frame_age_s"] is not None)
    status, headers, body = get(server, "/snapshot.jpg")
    assert (status, headers["Content-Type"], body) == (200, "image/jpeg", JPEG)
    assert json.loads(get(server, "/state")[2])["state"] == {"behaviour": "speaking"}
    status, headers, body = get(server, "/")
    assert status == 200 and b"Tap for sound" in body
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"]
        and headers["X-Content-Type-Options"] == "nosniff"
    )
    assert get(server, "/fleet")[2].startswith(b"<!doctype html>")
    assert json.loads(get(server, "/fleet.json")[2]) == {"known": False, "avatars": []} and server.fleet_wanted
    assert get(server, "/background")[0] == 404
    for name in ("app.js", "audio.js", "video.js", "clock.js", "connection.js", "fleet.js", "voice-worklet.js"):
        assert get(server, f"/{name}")[1]["Content-Type"].startswith("text/javascript")
    for path in ("/nothing", "/../server.py", "/static/app.js", "/%2e%2e/server.py"):
        assert get(server, path)[0] == 404


def test_a_snapshot_waits_for_the_publisher(server):
    threading.Timer(0.2, lambda: server.push_frame(JPEG, 3.0)).start()
    assert get(server, "/snapshot.jpg")[::2] == (200, JPEG)


def test_bad_pushes_are_refused(server):
    for call in (
        lambda: server.push_frame(b"not a jpeg", 0.0),
        lambda: server.push_frame(JPEG, float("nan")),
        lambda: server.push_frame("x", 0.0),
        lambda: server.push_audio(b"abc", 24_000, 0.0),
        lambda: server.push_audio(PCM, 96_000, 0.0),
        lambda: server.push_audio(bytes(50_000), 24_000, 0.0),
        lambda: server.set_state({"x": float("inf")}),
        lambda: server.set_state([1]),
        lambda: server.set_state({"x": np.zeros(2)}),
    ):
        with pytest.raises(KioskError):
            call()
    server.push_audio(b"", 24_000, 0.0)
    assert server.stats()["frames"] == 0


def test_a_busy_port_and_a_wrong_address_are_clear_errors(server):
    with pytest.raises(KioskError, match=f"port {server.port} on 127.0.0.1 is already in use"):
        KioskServer(port=server.port)
    with pytest.raises(KioskError, match="70000"):
        KioskServer(port=70_000)
    with pytest.raises(KioskError, match="192.0.2.1"):
        KioskServer("192.0.2.1", 0)


def test_closing_frees_the_port_and_says_goodbye():
    server = KioskServer(port=0)

    async def watch():
        async with aiohttp.ClientSession() as session:
            page = await open_socket(session, server, server.origin)
            await receive(page, 2)
            await asyncio.get_running_loop().run_in_executor(None, server.close)
            return (await page.receive(timeout=PATIENCE_S)).data

    assert run(watch()) in (1000, 1001)  # aiohttp before 3.10 may say done instead of going away
    server.close()
    with pytest.raises(KioskError, match="closed"):
        server.push_frame(JPEG, 0.0)
    with KioskServer(port=server.port):
        pass


def test_malformed_and_giant_messages_close_only_their_sender(server):
    async def attack():
        codes = []
        async with aiohttp.ClientSession() as session:
            good = await open_socket(session, server, server.origin)
            await receive(good, 2)
            for data in ("nonsense", '{"type":"command"}', "x" * 5_000_000, b"\x00\x01", "[" * 4000):
                page = await open_socket(session, server, server.origin)
                await receive(page, 2)
                try:
                    await (page.send_bytes(data) if isinstance(data, bytes) else page.send_str(data))
                except ConnectionError:
                    pass  # closed on us while the giant was still on its way
                while not page.closed:
                    await page.receive(timeout=PATIENCE_S)
                codes.append(page.close_code)
            server.push_frame(JPEG, 1.0)
            return codes, (await receive(good, 1))[0].payload

    codes, payload = run(attack())
    assert codes[:2] == [1008, 1008] and codes[2] in (1009, 1006) and codes[3:] == [1008, 1008]
    assert payload == JPEG


def test_a_talkative_page_is_closed(server):
    async def talk():
        async with aiohttp.ClientSession() as session:
            page = await open_socket(session, server, server.origin)
            await receive(page, 2)
            for _ in range(100):
                if page.closed:
                    break
                await page.send_str('{"type":"stats"}')
            while not page.closed:
                await page.receive(timeout=PATIENCE_S)
            return page.close_code

    assert run(talk()) == 1008


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_raw_bytes_on_the_port_do_no_harm(shared_server, data):
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(data)
    assert get(shared_server, "/healthz")[0] == 200


@pytest.fixture(scope="module")
def shared_server():
    with KioskServer(port=0) as running:
        yield running


def test_a_page_that_does_not_read_loses_frames_not_others(server):
    """The stuck page's old frames are dropped and counted; the other page gets every frame, in order."""
    big = JPEG + bytes(200_000)

    async def watch():
        async with aiohttp.ClientSession() as session:
            stuck = socket.create_connection(("127.0.0.1", server.port))
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.sendall(
                f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.origin}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            page = await open_socket(session, server, server.origin)
            await receive(page, 2)
            while server.clients < 2:
                await asyncio.sleep(0.01)
            seen = []
            for i in range(60):
                server.push_frame(big, float(i))
                seen += [m.sequence for m in await receive(page, 1)]
            dropped = server.stats()["dropped_frames"]
            stuck.close()
            return seen, dropped

    seen, dropped = run(watch())
    assert seen == list(range(1, 61))
    assert 20 <= dropped <= 60 - 12


def test_many_pages_and_no_more_than_the_limit(server):
    async def crowd():
        async with aiohttp.ClientSession() as session:
            pages = [await open_socket(session, server, server.origin) for _ in range(MAX_CLIENTS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await open_socket(session, server, server.origin)
            for page in pages:
                await receive(page, 2)
            server.push_frame(JPEG, 7.0)
            got = [(await receive(page, 1))[0].pts for page in pages]
            for page in pages[::2]:
                await page.close()
            return caught.value.status, got

    assert run(crowd()) == (503, [7.0] * MAX_CLIENTS)
    wait_for(lambda: server.clients == 0)


def test_pushing_from_many_threads_keeps_the_sequence_whole(server):
    async def watch():
        async with aiohttp.ClientSession() as session:
            page = await open_socket(session, server, server.origin)
            await receive(page, 2)
            threads = [
                threading.Thread(
                    target=lambda: [server.push_audio(PCM[:480], 24_000, 1.0) for _ in range(25)]
                )
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            return [m.sequence for m in await receive(page, 100)]

    assert run(watch()) == list(range(1, 101))
