# SPDX-License-Identifier: Apache-2.0
"""What travels over the page's WebSocket (path `/ws`), in both directions.

Server to page: one binary message per item, a 16-byte little-endian header and the payload:

    offset  type     field
    0       uint8    kind: 1 frame, 2 audio, 3 state, 4 hello
    1       uint8    protocol version (1)
    2       uint16   audio: sample rate [Hz]; otherwise 0
    4       uint32   sequence, counted per kind by the server, so a gap is a dropped item
    8       float64  pts [s] on the publisher's content clock: when the frame is due, when the first sample is heard;
                     for state and hello the newest pts pushed so far (0 before the first)
    16               payload: JPEG | PCM S16LE mono | UTF-8 JSON object | UTF-8 JSON object

The time base is the publisher's: frames and audio share it, and the page compares pts only with pts. A frame should be
pushed some tens of milliseconds before it is due; the page adds its own jitter buffer. `hello` comes first on every
connection and resets the page; `run` in it changes with every server start.

Page to server: UTF-8 JSON text of at most 4096 bytes, now and then `{"type": "stats", ...}` (see `STATS_FIELDS`).
Anything else closes the connection: the page shows the avatar, it commands nothing.
"""

from __future__ import annotations

import json
import math
import struct
from typing import NamedTuple

VERSION = 1
FRAME, AUDIO, STATE, HELLO = 1, 2, 3, 4
HEADER = struct.Struct("<BBHId")
MAX_CLIENT_MESSAGE = 4096  # bytes

MIN_AUDIO_RATE, MAX_AUDIO_RATE = 8_000, 48_000  # [Hz]

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
}


class ProtocolError(ValueError):
    """A message that does not follow this file; the text is one line."""


class Message(NamedTuple):
    kind: int
    rate: int
    sequence: int
    pts: float
    payload: bytes


def pack(kind: int, payload: bytes, *, pts: float = 0.0, sequence: int = 0, rate: int = 0) -> bytes:
    """One server-to-page message. `sequence` wraps at 2**32."""
    return HEADER.pack(kind, VERSION, rate, sequence & 0xFFFFFFFF, pts) + payload


def unpack(data: bytes) -> Message:
    """The inverse of `pack`, for clients written in Python (tests, bench). Raises `ProtocolError`."""
    if len(data) < HEADER.size:
        raise ProtocolError(f"message of {len(data)} bytes is shorter than its header of {HEADER.size}")
    kind, version, rate, sequence, pts = HEADER.unpack_from(data)
    if version != VERSION or kind not in (FRAME, AUDIO, STATE, HELLO):
        raise ProtocolError(
            f"unknown message kind {kind}, version {version}; expected kinds 1 to 4, version {VERSION}"
        )
    return Message(kind, rate, sequence, pts, bytes(data[HEADER.size :]))


def parse_client_message(text: str) -> dict[str, int | float | str | None]:
    """Checks what a page sent and returns its stats (known fields only). Raises `ProtocolError`."""
    if len(text.encode("utf-8", "replace")) > MAX_CLIENT_MESSAGE:
        raise ProtocolError(f"message of {len(text)} characters; at most {MAX_CLIENT_MESSAGE} bytes are read")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("message is not JSON") from error
    if not isinstance(message, dict) or message.get("type") != "stats":
        raise ProtocolError('message is not an object with "type": "stats"')
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
