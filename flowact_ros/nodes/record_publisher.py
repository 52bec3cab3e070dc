# SPDX-License-Identifier: Apache-2.0
"""What every step used and drew, onto `chunks`, and the pictures and parameters that belong to it, onto `stream_setup`:
handed over by the engine's thread, published by the executor."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import yaml

from flowact_msgs.msg import ChunkRecord, StreamSetup
from flowact_ros.media.image import encode_png
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import to_bytes_field, to_time
from flowact_ros.nodes.engine_messages import record_message
from flowact_ros.nodes.frame_publisher import FRAME_ID

if TYPE_CHECKING:
    from flowact_ros.engine import interfaces
    from flowact_ros.nodes.base import FlowactNode

WAITING = 256  # records: 40 s of the smallest steps


class RecordPublisher:
    """Publishes the records of one session, in order and none twice."""

    def __init__(self, node: FlowactNode, controls: Sequence[str]) -> None:
        """controls: names of the motion's columns."""
        self._node, self._controls = node, list(controls)
        self._publisher = node.add_publisher(ChunkRecord, topics.CHUNKS)
        self._setups = node.add_publisher(StreamSetup, topics.SETUP)
        self._records: queue.Queue[interfaces.ChunkRecord] = queue.Queue(WAITING)
        self._pictures: queue.Queue[StreamSetup] = queue.Queue()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="reference-png")
        node.add_entity(lambda: self._encoder.shutdown(wait=True))

    def take(self, record: interfaces.ChunkRecord) -> None:
        """Engine thread: only hands over."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._node.report("chunk records are lost: the executor does not keep up")

    def take_reference(self, reference: interfaces.Reference) -> None:
        """Engine thread: the records from now on show this character. Its picture is compressed by another thread."""
        self._encoder.submit(self._node.guard(self._compress, "the reference's picture"), reference)

    def _compress(self, reference: interfaces.Reference) -> None:
        message = StreamSetup(controls=self._controls, reference_id=reference.id)
        message.reference.format = "png"
        message.reference.data = to_bytes_field(encode_png(reference.rgb))
        self._pictures.put(message)

    def publish(self, stamp_ns: Callable[[int], int]) -> None:
        """Executor: publishes what was handed over. stamp_ns(frame): when a frame is to be seen, [ns]."""
        while not self._pictures.empty():
            self._publish_setup(self._pictures.get_nowait())
        while not self._records.empty():
            record = self._records.get_nowait()
            message = record_message(record)
            message.header.stamp = to_time(stamp_ns(record.first_frame))
            message.header.frame_id = FRAME_ID
            self._publisher.publish(message)

    def _publish_setup(self, message: StreamSetup) -> None:
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = FRAME_ID
        message.node = self._node.get_fully_qualified_name()
        parameters = self._node.get_parameters_by_prefix("")
        values = {name: parameter.value for name, parameter in parameters.items()}
        message.parameter_names = list(values)
        message.parameter_values = [yaml.safe_dump(value).removesuffix("\n...\n").strip() for value in values.values()]
        self._setups.publish(message)
