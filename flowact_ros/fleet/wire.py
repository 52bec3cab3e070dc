# SPDX-License-Identifier: Apache-2.0
"""What travels between a robot and the fleet: binary WebSocket messages (path `/stream`), in both directions.

A message is 4 bytes, little-endian, with the length of a JSON object in UTF-8, that object, and a payload. `kind` in
the object says what it is; `parts` are the lengths of the payload's parts, in order.

Robot to fleet:

    open         {protocol, character, seed, gaze, look_at_timeout, recover}; picture (PNG or nothing), memory (or
                 nothing)
    speech       {rate, utterance_id, first_sample, sequence, last}; S16LE mono
    refused      {samples, reason}: speech that the robot could not take
    instruction  {text, behaviour, priority, utterance_id}
    look_at      {x, y}; look_away {}
    interrupt    {utterance_id}: of that one, null: of all
    reset        {}: memory starts anew
    reference    {id, character}; picture (PNG or nothing)

Fleet to robot:

    opened       {width, height, controls, reference_id, resumed, server}: `resumed`, it goes on with the memory it was
                 sent; `server`, HOST:PROCESS
    frame        {index, behaviour, utterance_id, speaking, repeated, waiting, queued_s}; audio S16LE 24 kHz, motion
                 float32, JPEG (nothing where the link does not keep up)
    memory       {}; what the avatar remembers, for another server to go on with
    answer       {id, reference_id, error, refused}: of `reference`
    warning      {text}: something that was sent could not be used
    failed       {text}: the stream ends
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

PROTOCOL = 1
PATH = "/stream"
LARGEST = 16_000_000  # bytes of a message: a picture or a memory
LARGEST_HEAD = 65_536
TOKEN_VARIABLE = "FLOWACT_FLEET_TOKEN"
_LENGTH = struct.Struct("<I")


class WireError(ValueError):
    """A message that is not of this protocol; one line."""


class Message(NamedTuple):
    kind: str
    fields: dict[str, Any]
    parts: tuple[bytes, ...]

    def get(self, name: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """A field of one of these types; None counts as not given. Raises WireError for another type."""
        value = self.fields.get(name)
        if value is None:
            return default
        wrong = isinstance(value, bool) and kinds is not bool
        if wrong or not isinstance(value, kinds):
            raise WireError(f"{name} of {self.kind} is {str(value)[:40]!r}, a {type(value).__name__}")
        return value

    def part(self, i: int) -> bytes:
        return self.parts[i] if i < len(self.parts) else b""


def pack(kind: str, *parts: bytes, **fields: Any) -> bytes:
    """Raises WireError for what is too long."""
    head = json.dumps({"kind": kind, "parts": [len(part) for part in parts], **fields}, separators=(",", ":")).encode()
    message = b"".join((_LENGTH.pack(len(head)), head, *parts))
    if len(head) > LARGEST_HEAD or len(message) > LARGEST:
        raise WireError(f"{kind} has {len(message)} bytes; at most {LARGEST} travel, {LARGEST_HEAD} as its head")
    return message


def unpack(data: bytes | str) -> Message:
    """Raises WireError for anything that `pack` does not make."""
    if not isinstance(data, bytes) or len(data) < _LENGTH.size:
        raise WireError("a message is no binary one with a length before it")
    (length,) = _LENGTH.unpack_from(data)
    if length > LARGEST_HEAD or len(data) < _LENGTH.size + length or len(data) > LARGEST:
        raise WireError(f"a message of {len(data)} bytes says that {length} of them are its head")
    try:
        fields = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        kind, lengths = fields.pop("kind"), fields.pop("parts")
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        raise WireError("a message's head is no JSON object with kind and parts") from None
    whole = isinstance(kind, str) and isinstance(lengths, list) and len(lengths) <= 8
    if not whole or not all(type(n) is int and n >= 0 for n in lengths):
        raise WireError("a message's kind is no text, or its parts are no lengths")
    at, parts = _LENGTH.size + length, []
    if at + sum(lengths) != len(data):
        raise WireError(f"{kind} has {len(data) - at} bytes of parts; its head says {sum(lengths)}")
    for n in lengths:
        parts.append(data[at : at + n])
        at += n
    return Message(kind, fields, tuple(parts))
