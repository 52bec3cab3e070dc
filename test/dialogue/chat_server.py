# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on the loopback interface that answers like an OpenAI-compatible one, or badly on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request: what was asked is kept, what is answered the test says."""

    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append(dict(self.headers))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.set()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Nothing: pytest shows what a test prints."""

    def begin(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def piece(self, text: str) -> None:
        event = {"choices": [{"index": 0, "delta": {"content": text}}]}
        self.send(b"data: " + json.dumps(event).encode() + b"\n\n")


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a handler that hangs must not keep a test

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.answers = answers  # one a request, the last one for all that follow
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.release = threading.Event()  # ends handlers that hang
        self.hanging = threading.Event()  # one does
        self.left = threading.Event()  # a client went away in the middle of an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def serving(*answers: Answer) -> Iterator[ChatServer]:
    server = ChatServer(list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def streams(*pieces: str, done: bool = True) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        if done:
            handler.send(b"data: [DONE]\n\n")

    return answer


def sends(data: bytes, kind: str = "text/event-stream") -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(kind=kind)
        handler.send(data)

    return answer


def fails(status: int, message: str = "no", **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(status, "application/json", **headers)
        handler.send(json.dumps({"error": {"message": message}}).encode())

    return answer


def hangs(*pieces: str) -> Answer:
    """Says something, or nothing at all, and then no more."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        handler.server.hanging.set()
        handler.server.release.wait(60)

    return answer


def floods(total: int) -> Answer:
    """Never ends by itself: until the client goes, or `total` characters."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for _ in range(total // 1000):
            handler.piece("word " * 200)
        handler.send(b"data: [DONE]\n\n")

    return answer


def closes(handler: Handler) -> None:
    """The connection ends without an answer."""
    handler.connection.close()


def sentences(*entries: tuple[str, str]) -> str:
    """JSON as it is asked for, of (action, sentence)."""
    reply = [{"behaviour": "speaking", "action": action, "say": say} for action, say in entries]
    return json.dumps({"reply": reply})
