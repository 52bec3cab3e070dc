# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 recordings (mcap and sqlite3) read without ROS, by the definitions of messages that they hold themselves.

A recording that was cut off (no metadata.yaml, an mcap file without its end) is read as far as its last whole record.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from flowact_ros.media.errors import MediaError

FILES = (".mcap", ".db3")
MAGIC = b"\x89MCAP0\r\n"
_IDL_SEPARATOR = "=" * 80 + "\n"


class BagError(MediaError):
    """A recording that cannot be read or written: one line."""


@dataclass(frozen=True)
class BagMessage:
    """topic: absolute name; time_ns: when it was recorded; kind: such as "std_msgs/msg/Bool"; data: its CDR bytes."""

    topic: str
    time_ns: int
    kind: str
    data: bytes


class Bag:
    """An open recording; a context manager. Raises BagError where it cannot be read."""

    def __init__(self, path: str | os.PathLike[str], definitions: Mapping[str, str] | None = None) -> None:
        """path: a folder, or one of its files; definitions: texts of .msg files by type, for recordings without any."""
        self.path = Path(path)
        self.remarks: list[str] = []  # on what was damaged
        self._stack = ExitStack()
        try:
            self._sources = self._whole() or [self._open(file) for file in self._files()]
            self.types = self._typestore(definitions or {})
        except BagError:
            self._stack.close()
            raise
        except Exception as error:  # what reads damaged bytes raises anything
            self._stack.close()
            raise BagError(f"{self.path} cannot be read as a recording ({_reason(error)})") from None

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def topics(self) -> dict[str, str]:
        """Kinds of messages by absolute topic name."""
        return {connection.topic: connection.msgtype for source in self._sources for connection in source.connections}

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Messages of these topics in the order of the recording. Raises BagError where the file is damaged."""
        for source in self._sources:
            wanted = [connection for connection in source.connections if connection.topic in topics]
            if not wanted:
                continue
            # The library refuses files without an index unless their times never run backwards; ours are in order.
            scanned = isinstance(source, McapReader)
            try:
                found = source.messages_scan(wanted) if scanned else source.messages(connections=wanted)
                for connection, time_ns, data in found:
                    yield BagMessage(connection.topic, time_ns, connection.msgtype, bytes(data))
            except Exception as error:  # as above
                raise BagError(f"{self.path} is damaged ({_reason(error)})") from None

    def decoded(self, message: BagMessage) -> Any:
        """The message, with the fields that its sender knew. Raises BagError for bytes that are no such message."""
        try:
            return self.types.deserialize_cdr(message.data, message.kind)
        except Exception as error:  # as above
            raise BagError(f"a message on {message.topic} is no {message.kind} ({_reason(error)})") from None

    def _whole(self) -> list[Reader]:
        """A folder by its metadata.yaml; nothing where it is a file, or was damaged or not closed."""
        if not (self.path / "metadata.yaml").is_file():
            return []
        try:
            return [self._opened(self.path)]
        except Exception as error:  # as above
            self.remarks.append(f"it is damaged, or was not closed ({_reason(error)})")
            return []

    def _files(self) -> list[Path]:
        if not self.path.exists():
            raise BagError(f"there is no recording {self.path}")
        if self.path.is_file():
            if self.path.suffix not in FILES:
                raise BagError(f"{self.path} is no recording: a folder, an .mcap or a .db3 file is needed")
            return [self.path]
        files = sorted((p for p in self.path.iterdir() if p.suffix in FILES), key=lambda p: (len(p.name), p.name))
        if not files and self.remarks:
            raise BagError(f"{self.path} cannot be read as a recording: {self.remarks[-1]}")
        if not files:
            raise BagError(f"{self.path} is no recording: it holds neither metadata.yaml nor an .mcap or .db3 file")
        if not self.remarks:
            self.remarks.append("it was not closed: metadata.yaml is missing")
        return files

    def _open(self, path: Path) -> Reader | McapReader:
        """A file; of an mcap file whose end is missing or damaged, what is whole."""
        try:
            return self._opened(path)
        except Exception:  # as above; what is wrong is said when it is read from its beginning
            if path.suffix != ".mcap":
                raise
            return self._open_cut(path)

    def _opened(self, path: Path) -> Reader:
        reader = Reader(path)
        reader.open()
        self._stack.callback(reader.close)
        return reader

    def _open_cut(self, path: Path) -> McapReader:
        first, end = whole_records(path)
        size = path.stat().st_size
        lost = f", its last {size - end} bytes are not readable" if size > end else ""
        self.remarks.append(f"{path.name} was cut off, or its index is damaged{lost}")
        reader = McapReader(path)
        reader.bio = path.open("rb")
        self._stack.callback(reader.bio.close)
        reader.data_start, reader.data_end = first, end
        reader.meta_scan()
        return reader

    def _typestore(self, definitions: Mapping[str, str]) -> Typestore:
        connections = [connection for source in self._sources for connection in source.connections]
        described = [c for c in connections if c.msgdef.format != MessageDefinitionFormat.NONE]
        if described:
            store = get_typestore(Stores.EMPTY)
            for connection in described:
                store.register(_types_of(connection))
            return store
        store = get_typestore(Stores.ROS2_JAZZY)
        for kind, text in definitions.items():
            store.register(get_types_from_msg(text, kind))
        return store


def _types_of(connection: Connection) -> Any:
    text = connection.msgdef.data
    if connection.msgdef.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(text, connection.msgtype)
    parts = [text]
    if text.startswith(f"{_IDL_SEPARATOR}IDL: "):
        parts = [part.split("\n", 1)[1] for part in text.split(_IDL_SEPARATOR)[1:]]
    return {name: fields for part in parts for name, fields in get_types_from_idl(part).items()}


def whole_records(path: Path) -> tuple[int, int]:
    """(where the first record behind the header begins, where the last whole one ends) of an mcap file [bytes].

    Raises BagError for a file that does not begin as one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BagError(f"{path} is no mcap file: it does not begin as one")
        first = end = 0
        while True:
            head = file.read(9)  # a byte that tells the kind, and the length
            if len(head) < 9 or head[0] == 0x02 or head == MAGIC + b"\x01":  # the footer ends the records
                break
            after = file.tell() + struct.unpack("<Q", head[1:])[0]
            if after > size:
                break
            first, end = first or after, after
            file.seek(after)
    if not first:
        raise BagError(f"{path} holds nothing: it was cut off right at its beginning")
    return first, end


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
