# SPDX-License-Identifier: Apache-2.0
"""What travels over the page's WebSocket (path `/ws`), in both directions.

Binary messages, either way: a 16-byte little-endian header and the payload:

    offset  type     field
    0       uint8    kind: 1 frame, 2 audio, 3 state, 4 hello; 5 voice, the only one that a page sends
    1       uint8    protocol version (1)
    2       uint16   audio, voice: sample rate [Hz]; frame: 0, or n where only every n-th frame is sent to this page
    4       uint32   sequence, counted per kind by the sender, so a gap is a dropped item
    8       float64  pts [s] on the publisher's content clock: when the frame is due, when the first sample is heard;
                     for state and hello the newest pts pushed so far (0 before the first); voice: 0
    16               payload: JPEG | PCM S16LE mono | UTF-8 JSON object | UTF-8 JSON object | PCM S16LE mono

The time base is the publisher's: frames and audio share it, and the page compares pts only with pts. A frame should be
pushed some tens of milliseconds before it is due; the page adds its own jitter buffer. `hello` comes first on every
connection and resets the page; `run` in it changes with every server start, `page` is this connection's own name, and
`display` is what `kiosk.display.Display` holds.

Page to server, beside voice: UTF-8 JSON text of at most 4096 bytes, an object whose `type` is one of

    stats    figures of the page, once a second (see `STATS_FIELDS`)
    got      {"frame": sequence}: this frame has just arrived; the answer to how late the link is
    quality  {"want": "auto" | "full" | "low"}: which pictures the page wishes for
    talk     {"on": bool}: the person at the page takes the turn, or has ended it
    stop     what the avatar says is to stop

Anything else closes the connection, and so do `talk`, `stop` and voice where the page was not given the right to them.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NamedTuple

VERSION = 1
FRAME, AUDIO, STATE, HELLO, VOICE = 1, 2, 3, 4, 5
HEADER = struct.Struct("<BBHId")
MAX_CLIENT_MESSAGE = 4096  # bytes of text

MIN_AUDIO_RATE, MAX_AUDIO_RATE = 8_000, 48_000  # [Hz]
MAX_VOICE_S = 0.25  # of one message
MAX_VOICE_MESSAGE = HEADER.size + int(2 * MAX_AUDIO_RATE * MAX_VOICE_S)  # bytes

STATS, GOT, QUALITY, TALK, STOP = "stats", "got", "quality", "talk", "stop"
AUTO, FULL, LOW = "auto", "full", "low"

STATS_FIELDS: dict[str, tuple[type, ...]] = {
    "drawn": (int,),  # frames drawn since the connection opened
    "fps": (int, float),  # frames drawn in the last second
    "late": (int,),  # frames that came or were decoded after their time and were not drawn
    "underruns": (int,),  # times the sound ran dry
    "skips": (int,),  # times the page jumped in the stream instead of correcting by resampling
    "buffer_ms": (int, float, type(None)),  # how far ahead of the clock data arrives
    "skew_p50_ms": (int, float, type(None)),  # |pts drawn - pts heard|, last 10 s; null without sound
    "skew_p95_ms": (int, float, type(None)),
    "clock": (str,),  # "audio" or "monotonic"
    "audio": (str,),  # AudioContext state, or "none"
    "awake": (str,),  # "held", "refused", "unavailable" or "released": the lock that keeps the screen on
}


class ProtocolError(ValueError):
    """A message that does not follow this file; the text is one line."""


class Message(NamedTuple):
    kind: int
    rate: int
    sequence: int
    pts: float
    payload: bytes


class Request(NamedTuple):
    """What a page sent as text. `value`: the stats (dict), the frame (int), the wish (str), on (bool), or None."""

    kind: str
    value: Any


def pack(kind: int, payload: bytes, *, pts: float = 0.0, sequence: int = 0, rate: int = 0) -> bytes:
    """One binary message. `sequence` wraps at 2**32."""
    return HEADER.pack(kind, VERSION, rate, sequence & 0xFFFFFFFF, pts) + payload


def unpack(data: bytes) -> Message:
    """The inverse of `pack`. Raises `ProtocolError`."""
    if len(data) < HEADER.size:
        raise ProtocolError(f"message of {len(data)} bytes is shorter than its header of {HEADER.size}")
    kind, version, rate, sequence, pts = HEADER.unpack_from(data)
    if version != VERSION or kind not in (FRAME, AUDIO, STATE, HELLO, VOICE):
        raise ProtocolError(
            f"unknown message kind {kind}, version {version}; expected kinds 1 to 5, version {VERSION}"
        )
    return Message(kind, rate, sequence, pts, bytes(data[HEADER.size :]))


def parse_voice(data: bytes) -> Message:
    """A page's microphone: the message, checked. Raises `ProtocolError`."""
    message = unpack(data)
    if message.kind != VOICE:
        raise ProtocolError(f"a page sent a binary message of kind {message.kind}; expected {VOICE}, its voice")
    if not MIN_AUDIO_RATE <= message.rate <= MAX_AUDIO_RATE:
        raise ProtocolError(
            f"voice has a rate of {message.rate} Hz; expected {MIN_AUDIO_RATE} to {MAX_AUDIO_RATE}"
        )
    size = len(message.payload)
    if not size or size % 2 or size > 2 * message.rate * MAX_VOICE_S:
        raise ProtocolError(f"voice has {size} bytes; expected an even number, at most {MAX_VOICE_S} s of sound")
    return message


def parse_request(text: str) -> Request:
    """Checks what a page sent as text; of stats only known fields are returned. Raises `ProtocolError`."""
    if len(text.encode("utf-8", "replace")) > MAX_CLIENT_MESSAGE:
        raise ProtocolError(f"message of {len(text)} characters; at most {MAX_CLIENT_MESSAGE} bytes are read")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("message is not JSON") from error
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == STATS:
        return Request(STATS, _stats(message))
    if kind == GOT:
        frame = message.get("frame")
        if type(frame) is not int or not 0 <= frame < 2**32:
            raise ProtocolError("got names no frame: expected its sequence, a whole number")
        return Request(GOT, frame)
    if kind == QUALITY:
        if message.get("want") not in (AUTO, FULL, LOW):
            raise ProtocolError(f"quality wants none of {AUTO}, {FULL}, {LOW}")
        return Request(QUALITY, message["want"])
    if kind == TALK:
        if type(message.get("on")) is not bool:
            raise ProtocolError("talk says neither that it is on nor that it is off: expected true or false")
        return Request(TALK, message["on"])
    if kind == STOP:
        return Request(STOP, None)
    raise ProtocolError(f'message is not an object whose "type" is one of {STATS}, {GOT}, {QUALITY}, {TALK}, {STOP}')


def _stats(message: dict[str, Any]) -> dict[str, int | float | str | None]:
    stats: dict[str, int | float | str | None] = {}
    for name, kinds in STATS_FIELDS.items():
        if name not in message:
            continue
        value = message[name]
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ProtocolError(f"stats field {name} is a {type(value).__name__}")
        if isinstance(value, str) and len(value) > 32:
            raise ProtocolError(f"stats field {name} has {len(value)} characters; at most 32 are read")
        if isinstance(value, (int, float)) and not (abs(value) < 1e12 and math.isfinite(value)):
            raise ProtocolError(f"stats field {name} is out of range")
        stats[name] = value
    return stats


def pack_json(value: dict) -> bytes:
    """A JSON object as UTF-8 bytes. Raises `ProtocolError` for what JSON cannot hold (NaN, arrays of numpy, ...)."""
    if not isinstance(value, dict):
        raise ProtocolError(f"state is a {type(value).__name__}; expected a dict")
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"state cannot be written as JSON ({error})") from error
