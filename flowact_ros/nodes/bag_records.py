# SPDX-License-Identifier: Apache-2.0
"""The streams of a recording: their records in order, with the pictures and parameters that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowact_msgs.msg import ChunkRecord, StreamSetup
from flowact_ros.engine import interfaces
from flowact_ros.media.bag import Bag, BagError
from flowact_ros.media.errors import MediaError
from flowact_ros.media.image import decode_png
from flowact_ros.nodes import topics
from flowact_ros.nodes.bag_types import own_definitions
from flowact_ros.nodes.convert import NANOSECONDS, ConversionError, from_time
from flowact_ros.nodes.engine_messages import record_of
from flowact_ros.timebase import FRAME_RATE

RECORD, SETUP = "flowact_msgs/msg/ChunkRecord", "flowact_msgs/msg/StreamSetup"


@dataclass(eq=False)
class Stream:
    """Consecutive records of one stream: a generator that starts anew, or records that are missing, begin another.

    start_ns: [ns] stamp of frame 0, None if no record has one.
    """

    topic: str
    records: list[interfaces.ChunkRecord] = field(default_factory=list)
    start_ns: int | None = None
    missing: int = 0  # records between the stream before it and this one

    @property
    def provenance(self) -> interfaces.Provenance | None:
        return self.records[0].provenance


@dataclass(eq=False)
class Recorded:
    """pictures: uint8 [H, W, 3] by reference id; parameters: of the generator, as text; remarks: on what is damaged."""

    streams: list[Stream]
    pictures: dict[str, np.ndarray]
    parameters: dict[str, str]
    controls: list[str]
    remarks: list[str]


def open_bag(path: str) -> Bag:
    """A recording, also one without definitions of messages. Raises BagError."""
    return Bag(path, own_definitions())


def read_records(bag: Bag, namespace: str = "") -> Recorded:
    """The streams of one generator. namespace: of which one, where several were recorded.

    Raises BagError for a recording without records, of several generators, or of records of another version.
    """
    topic = topic_of(bag, RECORD, topics.CHUNKS, namespace)
    check_version(bag, RECORD, ChunkRecord)
    recorded = Recorded(_streams(bag, topic), {}, {}, [], bag.remarks)
    if not recorded.streams:
        raise BagError(f"{bag.path} holds no records: {topic} is there, but nothing was recorded of it")
    setup = topic.removesuffix(topics.CHUNKS) + topics.SETUP
    if bag.topics.get(setup) == SETUP:
        check_version(bag, SETUP, StreamSetup)
        for message in bag.messages([setup]):
            _add_setup(recorded, bag.decoded(message))
    return recorded


def topic_of(bag: Bag, kind: str, name: str, namespace: str) -> str:
    """The topic `name` of a message type, of the only namespace that has it. Raises BagError."""
    found = [topic for topic, k in bag.topics.items() if k == kind and topic.endswith(f"/{name}")]
    if namespace:
        wanted = f"/{namespace.strip('/')}/{name}"
        if wanted not in found:
            raise BagError(f"{bag.path} has no {wanted}: there are {', '.join(sorted(found)) or 'none'}")
        return wanted
    if not found:
        there = ", ".join(sorted(bag.topics)) or "nothing"
        raise BagError(
            f"{bag.path} holds no records ({kind} on a topic …/{name}): record with `flowact record`, or with "
            f"`ros2 bag record` that topic too; there are {there}"
        )
    if len(found) > 1:
        raise BagError(f"{bag.path} has records of several avatars, {', '.join(sorted(found))}: choose by --namespace")
    return found[0]


def check_version(bag: Bag, kind: str, ours: Any) -> None:
    """Raises BagError where a type that was recorded is not the one that this version has."""
    recorded = {name: str(node) for name, node in bag.types.fielddefs[kind][1]}
    lacking = [name for name in ours.get_fields_and_field_types() if name not in recorded]
    if lacking:
        raise BagError(
            f"{bag.path} was recorded by another version: its {kind} has no {', '.join(lacking)}; replay it with the "
            f"version that recorded it"
        )


def _streams(bag: Bag, topic: str) -> list[Stream]:
    """In the order in which they begin. Records of two generators that share a topic by mistake are told apart."""
    streams: list[Stream] = []
    newest: Stream | None = None  # the one that got the last record
    try:
        for message in bag.messages([topic]):
            decoded = bag.decoded(message)
            record = record_of(decoded)
            if any(_is_last(stream, record) for stream in streams):
                continue  # kept for late subscribers, and received twice
            stream = next((stream for stream in reversed(streams) if _follows(stream, record)), None)
            if stream is None:
                before = newest.records[-1].step if newest is not None else record.step
                stream = Stream(topic, missing=max(0, record.step - before - 1))
                streams.append(stream)
            stream.records.append(record)
            newest = stream
            stamp_ns = from_time(decoded.header.stamp)
            if stamp_ns and stream.start_ns is None:
                stream.start_ns = stamp_ns - record.first_frame * NANOSECONDS // FRAME_RATE
    except (ConversionError, BagError) as error:
        # What came before it is whole.
        bag.remarks.append(f"it is read up to step {newest.records[-1].step if newest is not None else 0}: {error}")
    return streams


def _follows(stream: Stream, record: interfaces.ChunkRecord) -> bool:
    last = stream.records[-1]
    return record.step == last.step + 1 and (record.seed, record.provenance) == (last.seed, last.provenance)


def _is_last(stream: Stream, record: interfaces.ChunkRecord) -> bool:
    last = stream.records[-1]
    return (record.step, record.first_frame) == (last.step, last.first_frame) and np.array_equal(record.pcm, last.pcm)


def _add_setup(recorded: Recorded, message: Any) -> None:
    recorded.controls = list(message.controls)
    recorded.parameters = dict(zip(message.parameter_names, message.parameter_values))
    try:
        recorded.pictures[message.reference_id] = decode_png(bytes(message.reference.data))
    except MediaError as error:
        recorded.remarks.append(f"the picture of {message.reference_id!r} is damaged: {error}")
