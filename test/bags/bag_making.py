# SPDX-License-Identifier: Apache-2.0
"""Recordings written without a running avatar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer

from flowact_msgs.msg import ChunkRecord, StreamSetup
from flowact_ros.engine import interfaces
from flowact_ros.engine.references import picture_id
from flowact_ros.media.bag_writer import BagWriter
from flowact_ros.media.image import encode_png
from flowact_ros.nodes.bag_types import describe, known_types
from flowact_ros.nodes.convert import to_bytes_field, to_time
from flowact_ros.nodes.engine_messages import record_message

START_NS = 1_000_000_000_000  # stamp of frame 0


def picture(turn: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.roll(np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8), turn, axis=2)


def kind_of(message: Any) -> str:
    return f"{type(message).__module__.split('.')[0]}/msg/{type(message).__name__}"


def record_messages(records: Sequence[interfaces.ChunkRecord]) -> list[tuple[str, int, ChunkRecord]]:
    """(topic, time [ns], message) of records, as the generator sends them."""
    sent = []
    for number, record in enumerate(records):
        message = record_message(record)
        message.header.stamp = to_time(START_NS + record.first_frame * 40_000_000)
        sent.append(("/avatar/chunks", START_NS + number * 400_000_000, message))
    return sent


def setup_messages(pictures: Sequence[np.ndarray]) -> list[tuple[str, int, StreamSetup]]:
    sent = []
    for rgb in pictures:
        message = StreamSetup(node="/avatar/avatar_generator", reference_id=picture_id(rgb))
        message.reference.data = to_bytes_field(encode_png(rgb))
        sent.append(("/avatar/stream_setup", START_NS, message))
    return sent


def write(path: Path, sent: Sequence[tuple[str, int, Any]], **options: Any) -> None:
    """By our own writer: mcap, definitions included."""
    writer, topics = BagWriter(path, reserve=0, **options), set()
    for topic, time_ns, message in sent:
        if topic not in topics:
            definition, digest = describe(kind_of(message))
            writer.add_topic(topic, kind_of(message), definition, digest, depth=256, latched=True, reliable=True)
            topics.add(topic)
        writer.write(topic, time_ns, serialize_message(message))
    writer.close()


def write_recording(path: Path, records: Sequence[interfaces.ChunkRecord], pictures: Sequence[np.ndarray]) -> None:
    write(path, [*setup_messages(pictures), *record_messages(records)])


def write_foreign(path: Path, sent: Sequence[tuple[str, int, Any]], storage: StoragePlugin) -> None:
    """By the rosbag2 layout, as `ros2 bag record` makes it."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {}
        for topic, time_ns, message in sent:
            if topic not in connections:
                describe(kind_of(message))
                connections[topic] = writer.add_connection(topic, kind_of(message), typestore=known_types())
            writer.write(connections[topic], time_ns, serialize_message(message))
