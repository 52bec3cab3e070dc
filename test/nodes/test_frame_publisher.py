# SPDX-License-Identifier: Apache-2.0
"""What a stream puts on its topics, whatever becomes of a single picture."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.clock import Clock

from flowact_ros.nodes import frame_publisher, topics
from flowact_ros.nodes.frame_publisher import FramePublisher
from flowact_ros.timebase import SAMPLES_PER_FRAME

BROKEN = 3  # this picture cannot be encoded


class Topic:
    """A publisher that somebody listens to."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.publish = self.messages.append

    def get_subscription_count(self) -> int:
        return 1


class Node:
    """What FramePublisher uses of a node."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.reported: list[str] = []

    def add_publisher(self, kind: type, name: str) -> Topic:
        return self.topics.setdefault(name, Topic())

    def guard(self, callback: Any, context: str) -> Any:
        def guarded(*args: Any) -> None:
            try:
                callback(*args)
            except Exception as error:
                self.reported.append(f"{context}: {error}")

        return guarded

    def now_ns(self) -> int:
        return time.time_ns()

    def get_clock(self) -> Clock:
        return Clock()


class Session:
    """Frames as fast as they are taken, until `close`: as many as fill the queue of pictures several times over."""

    waiting = None

    def __init__(self, count: int) -> None:
        self._count = count

    def frames(self) -> Any:
        for index in range(self._count):
            yield SimpleNamespace(
                index=index, pts=index / 25, audio=np.zeros(SAMPLES_PER_FRAME, np.float32), utterance_id="",
                motion=np.zeros(0, np.float32), rgb=np.zeros((16, 16, 3), np.uint8), behaviour="idle", speaking=False,
            )  # fmt: skip
            time.sleep(0.001)


def jpeg_of(frame: Any) -> bytes:
    if frame.index == BROKEN:
        raise RuntimeError("no memory for this picture")
    return b"\xff\xd8%d" % frame.index


@pytest.mark.parametrize("fails", ["encoding", "publishing"])
def test_a_picture_that_fails_is_not_the_last_one(fails: str) -> None:
    node, ends = Node(), []
    count = 8 * frame_publisher.JPEG_QUEUE
    publisher = FramePublisher(
        node, Session(count), controls=(), encoding="S16LE", jpeg_quality=85, on_frame=lambda frame: None,
        on_end=ends.append, jpeg_of=jpeg_of if fails == "encoding" else lambda frame: b"\xff\xd8",
    )  # fmt: skip
    compressed = node.topics[topics.COMPRESSED]
    if fails == "publishing":
        sent = compressed.messages

        def publish(message: Any) -> None:
            if len(sent) == BROKEN and not node.reported:
                raise RuntimeError("no memory for this picture")
            sent.append(message)

        compressed.publish = publish
    publisher.start()
    publisher.join()
    assert ends == [None]  # a thread that encodes no more would keep the stream from its end
    assert node.reported == ["JPEG: no memory for this picture"]
    assert (
        len(compressed.messages) + publisher.jpegs_dropped == count - 1 and len(compressed.messages) > BROKEN
    )
