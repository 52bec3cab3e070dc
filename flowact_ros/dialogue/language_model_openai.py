# SPDX-License-Identifier: Apache-2.0
"""Replies of an OpenAI-compatible server (vLLM, Ollama, llama.cpp, a vendor's), streamed as server-sent events.

The server is asked for JSON of a fixed schema; one that refuses that with 400 or 422 is asked again without, once and
for all. The key comes from the environment and goes into the request's header only.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import wave
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from flowact_ros.dialogue.language_model import (
    JSON,
    USER,
    Cancellation,
    Cancelled,
    CutShort,
    LanguageModelError,
    Message,
    ModelSettings,
)
from flowact_ros.dialogue.reply import REPLY_SCHEMA

MAX_LINE = 1 << 20  # bytes of one event
MAX_BODY = 1 << 20  # bytes of an answer that is not streamed
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 4.0  # between tries, doubled each time
_NOT_UNDERSTOOD = (400, 422)
_AGAIN = (408, 429, 500, 502, 503, 504)


class _Temporary(LanguageModelError):
    """It may go well the next time."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class _NoSchema(LanguageModelError):
    """The server does not take `response_format`."""


class OpenAIModel:
    """`POST {base_url}/chat/completions`."""

    writes = JSON
    sees = hears = True  # if the model behind it does; who configures it knows

    def __init__(self, settings: ModelSettings) -> None:
        url = urlsplit(settings.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise LanguageModelError(
                f"base_url {settings.base_url!r} is no address of a server: write one such as http://127.0.0.1:11434/v1"
            )
        if url.username or url.password:
            raise LanguageModelError(
                f"base_url must hold no password: put the key into ${settings.key_variable}"
            )
        if not settings.model:
            raise LanguageModelError("model is empty: name the model that the server is to use")
        self._settings = settings
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._schema = True

    def load(self, system: str) -> None:
        """Nothing: the server is there or not when it is asked."""

    def close(self) -> None:
        """Nothing is kept between requests."""

    def stream(self, messages: Sequence[Message], cancellation: Cancellation) -> Iterator[str]:
        # A loop of our own, run while a piece is waited for: cancelling its task ends the wait at once, TLS or not.
        loop = asyncio.new_event_loop()
        pieces = self._pieces(messages, cancellation)
        try:
            while (piece := _next(loop, pieces, cancellation)) is not None:
                yield piece
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _pieces(
        self, messages: Sequence[Message], cancellation: Cancellation
    ) -> AsyncGenerator[str, None]:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.connect_timeout_s, sock_read=self._settings.read_timeout_s
        )
        key = os.environ.get(self._settings.key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        wait_s, tries = FIRST_WAIT_S, 0
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            while True:
                begun = False
                try:
                    async for piece in self._ask(client, messages):
                        begun = True
                        yield piece
                    return
                except _NoSchema:
                    self._schema = False
                except (_Temporary, aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                    reason = f"{self._settings.base_url}: {_one_line(error)}"
                    asked = max(wait_s, getattr(error, "wait_s", 0.0))
                    # What was said already cannot be taken back; a second try would say it again.
                    if (
                        begun
                        or tries >= self._settings.retries
                        or min(asked, LONGEST_WAIT_S) >= cancellation.left_s
                    ):
                        raise LanguageModelError(reason) from None
                    tries += 1
                    await asyncio.sleep(min(asked, LONGEST_WAIT_S))
                    wait_s *= 2

    async def _ask(
        self, client: aiohttp.ClientSession, messages: Sequence[Message]
    ) -> AsyncGenerator[str, None]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [_message(message) for message in messages],
            "stream": True,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
        }
        if self._schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": REPLY_SCHEMA},
            }
        # A redirection would carry the key and the visitor's words to somebody else.
        async with client.post(self._url, json=body, allow_redirects=False) as answer:
            if answer.status != 200:
                text = f"HTTP {answer.status}: {_complaint(await _body(answer))}"
                if answer.status in _NOT_UNDERSTOOD and self._schema:
                    raise _NoSchema(text)
                if answer.status in _AGAIN:
                    raise _Temporary(text, _seconds(answer.headers.get("Retry-After", "")))
                raise LanguageModelError(f"{self._settings.base_url}: {text}")
            if answer.content_type != "text/event-stream":
                value = _parsed(await _body(answer))
                yield _content(value, "message")
                _check_end(value)
                return
            async for event in _events(answer.content):
                value = _parsed(event)
                if piece := _content(value, "delta"):
                    yield piece
                _check_end(value)


def _next(
    loop: asyncio.AbstractEventLoop, pieces: AsyncGenerator[str, None], cancellation: Cancellation
) -> str | None:
    """The next piece; None at the end."""
    cancellation.check()
    left = cancellation.left_s

    async def wait() -> str | None:
        try:
            return await asyncio.wait_for(anext(pieces), None if left == float("inf") else left)
        except StopAsyncIteration:
            return None

    task = loop.create_task(wait())
    with cancellation.waking(lambda: loop.call_soon_threadsafe(task.cancel)):
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise Cancelled("the reply is not wanted any more") from None
        except asyncio.TimeoutError:
            raise LanguageModelError("the reply was not complete by its deadline") from None


async def _events(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The data of server-sent events, up to [DONE] or the end."""
    rest = b""
    async for block in content.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise LanguageModelError(f"the server sent an event of more than {MAX_LINE} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                if data:
                    yield data
    if rest.startswith(b"data:") and rest[5:].strip() not in (b"", b"[DONE]"):
        yield rest[5:].strip()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise LanguageModelError(f"the server's answer has more than {MAX_BODY} bytes")
    return b"".join(parts)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise LanguageModelError(f"the server sent no JSON: {_clip(data)}") from None
    if not isinstance(value, dict):
        raise LanguageModelError(f"the server sent JSON of another shape: {_clip(data)}")
    if value.get("error"):
        raise LanguageModelError(f"the server says: {_complaint(data)}")
    return value


def _content(value: dict[str, Any], kind: str) -> str:
    """The text in a completion, whole (`message`) or a piece (`delta`); "" for events about something else."""
    choices = value.get("choices")
    if choices == [] and kind == "delta":
        return ""  # figures of usage come like this
    try:
        content = choices[0][kind].get("content")  # type: ignore[index]
    except (TypeError, KeyError, IndexError, AttributeError):
        raise LanguageModelError(f"the server's JSON has no choices[0].{kind}") from None
    if content is not None and not isinstance(content, str):
        raise LanguageModelError(
            f"choices[0].{kind}.content is {type(content).__name__}, a text was expected"
        )
    return content or ""


def _check_end(value: dict[str, Any]) -> None:
    """Raises CutShort if the model was not done."""
    choices = value.get("choices")
    if choices and choices[0].get("finish_reason") == "length":
        raise CutShort("the answer reached max_tokens")


def _message(message: Message) -> dict[str, Any]:
    if not message.picture and message.sound is None:
        return {"role": message.role, "content": message.text}
    if message.role != USER:
        raise LanguageModelError(
            f"only a user's message has a picture or sound, not one of role {message.role!r}"
        )
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}]
    if message.picture:
        kind = "png" if message.picture.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(message.picture).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}})
    if message.sound is not None:
        data = base64.b64encode(_wav(message.sound, message.sound_rate)).decode()
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return {"role": message.role, "content": parts}


def _wav(pcm: np.ndarray, rate: int) -> bytes:
    """float32 mono [T] as a 16-bit WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(pcm, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return out.getvalue()


def _complaint(data: bytes) -> str:
    """What a server says about an error, in one short line."""
    try:
        error = json.loads(data)["error"]
        return _one_line(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return _clip(data)


def _clip(data: bytes) -> str:
    return _one_line(data[:400].decode("utf-8", "replace"))


def _one_line(error: object) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:200] or type(error).__name__


def _seconds(text: str) -> float:
    """Of a Retry-After header; dates count as not given."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
