# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 recordings (mcap) written without ROS, within a limit, and whole even when the disk is full."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.rosbag2.storage_mcap import McapWriter

from flowact_ros.media.bag import BagError

RESERVE = 256 << 20  # [bytes] of the disk that are left free for everything else
BALLAST = 8 << 20  # [bytes] set aside, so that a recording can be ended on a disk that others filled
FLUSH_S = 5.0  # what came longer ago is in the file, whatever happens to the process
_NEVER = QosTime(2**31 - 1, 2**32 - 1)  # as rosbag2 writes an unlimited time


class BagFull(BagError):
    """There is no room for more: what was written so far is whole."""


class BagWriter:
    """Writes one recording: a folder with an mcap file and metadata.yaml. Any thread may call it.

    most: [bytes] that it may have (None: what the disk has, but for `reserve`). `write` and `flush` raise BagFull once
    there is no room; `close` makes what came before a whole recording.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        most: int | None = None,
        reserve: int = RESERVE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.messages = 0
        self._most, self._reserve, self._clock = most, reserve, clock
        self._flushed, self._closed_size = clock(), 0
        self._connections: dict[str, Connection] = {}
        self._lock = threading.RLock()
        if self.path.exists():
            raise BagError(f"{self.path} exists already: give another name, recordings are never overwritten")
        if not self.path.absolute().parent.is_dir():
            raise BagError(f"there is no folder {self.path.absolute().parent} for the recording")
        self._check_room(BALLAST)
        self._ballast = self.path / ".ballast"
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
            self._ballast.write_bytes(bytes(BALLAST))
        except (OSError, WriterError) as error:
            shutil.rmtree(self.path, ignore_errors=True)  # it did not exist before
            raise BagError(f"{self.path} cannot be written ({error})") from None
        assert isinstance(self._writer.storage, McapWriter)
        self._storage = self._writer.storage

    @property
    def size(self) -> int:
        """[bytes] of the file, with what is still in memory."""
        if self._writer.storage is None:
            return self._closed_size
        return self._storage.bio.tell() + self._storage.chunk.bio.tell()

    def add_topic(
        self, topic: str, kind: str, definition: str, digest: str, *, depth: int, latched: bool, reliable: bool
    ) -> None:
        """topic: absolute name; kind: such as "std_msgs/msg/Bool"; definition: the text of its .msg file and of those
        that it uses; digest: its RIHS01 hash; the others are its publisher's quality of service."""
        quality = Qos(
            QosHistory.KEEP_LAST,
            depth,
            QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            _NEVER,
            _NEVER,
            QosLiveliness.AUTOMATIC,
            _NEVER,
            False,
        )
        with self._lock:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, msgdef=definition, rihs01=digest, offered_qos_profiles=[quality]
            )

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """The next message of a topic that was added, in CDR. Raises BagFull."""
        with self._lock:
            if self._most is not None and self.size + len(data) > self._most - BALLAST // 8:  # room for the index
                raise BagFull(f"{self.path} has reached its limit of {self._most / 1e6:.0f} MB")
            self._guarded(lambda: self._writer.write(self._connections[topic], time_ns, data))
            self.messages += 1
            if self._clock() - self._flushed >= FLUSH_S:
                self.flush()

    def flush(self) -> None:
        """All that came is in the file now. Raises BagFull."""
        with self._lock:
            self._flushed = self._clock()
            self._check_room(self._storage.chunk.bio.tell())
            self._guarded(self._finish_chunk)

    def close(self) -> None:
        """Ends the recording. Raises BagError if even that cannot be written: what is in the file can still be read."""
        if self._writer.storage is None:
            return
        self._ballast.unlink(missing_ok=True)
        try:
            self._writer.close()
        except OSError as error:
            self._writer.abort()
            raise BagError(
                f"{self.path} could not be ended ({error.strerror}): it can be read as far as it was written"
            ) from None
        self._closed_size = sum(file.stat().st_size for file in self.path.iterdir())

    def discard(self) -> None:
        """Removes a recording into which nothing was written."""
        self._writer.abort()
        shutil.rmtree(self.path, ignore_errors=True)

    def _finish_chunk(self) -> None:
        if self._storage.chunk.bio.tell():
            self._storage.close_chunk()
        self._storage.bio.flush()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Does something that may write. On a full disk the file is made to end with a whole chunk; raises BagFull."""
        file = self._storage.bio
        whole, chunks = file.tell(), len(self._storage.chunks)
        try:
            action()
        except OSError as error:
            self._ballast.unlink(missing_ok=True)
            if len(self._storage.chunks) == chunks:  # the chunk is still in memory: the half that was written goes
                file.seek(whole)  # writes what its buffer holds; the ballast made room for it
                file.truncate()
            else:
                file.flush()
            raise BagFull(f"the disk of {self.path} is full ({error.strerror})") from None

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.path if self.path.exists() else self.path.absolute().parent).free
        if free - needed < self._reserve:
            raise BagFull(
                f"the disk of {self.path} has {free / 1e6:.0f} MB left: {self._reserve / 1e6:.0f} MB of it are not used"
            )
