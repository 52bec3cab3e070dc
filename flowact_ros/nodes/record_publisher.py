# SPDX-License-Identifier: Apache-2.0
"""What every step used, onto `chunks`: handed over by the engine's thread, published by the executor."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowact_msgs.msg import ChunkRecord
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import to_time
from flowact_ros.nodes.engine_messages import record_message
from flowact_ros.nodes.frame_publisher import FRAME_ID

if TYPE_CHECKING:
    from flowact_ros.engine import interfaces
    from flowact_ros.nodes.base import FlowactNode

WAITING = 256  # records: 40 s of the smallest steps


class RecordPublisher:
    """Publishes the records of one session, in order and none twice."""

    def __init__(self, node: FlowactNode) -> None:
        self._node = node
        self._publisher = node.add_publisher(ChunkRecord, topics.CHUNKS)
        self._records: queue.Queue[interfaces.ChunkRecord] = queue.Queue(WAITING)

    def take(self, record: interfaces.ChunkRecord) -> None:
        """Engine thread: only hands over."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._node.report("chunk records are lost: the executor does not keep up")

    def publish(self, stamp_ns: Callable[[int], int]) -> None:
        """Executor: publishes what was handed over. stamp_ns(frame): when a frame is to be seen, [ns]."""
        while not self._records.empty():
            record = self._records.get_nowait()
            message = record_message(record)
            message.header.stamp = to_time(stamp_ns(record.first_frame))
            message.header.frame_id = FRAME_ID
            self._publisher.publish(message)
