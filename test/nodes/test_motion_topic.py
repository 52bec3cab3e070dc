# SPDX-License-Identifier: Apache-2.0
"""Motion of every published frame, and a look that is told, of a running generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped
from ros_harness import FRAME_NS, Watcher, from_time, stamps

from flowact_ros.models.codec.motion import CONTROL_NAMES, RIG
from flowact_ros.nodes import topics

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]


@pytest.fixture
def moving(avatar: Any) -> Iterator[Watcher]:
    watcher = Watcher("/avatar", (topics.MOTION, topics.AUDIO, topics.CHUNKS, topics.DIAGNOSTICS))
    watcher.until(lambda: len(watcher.seen[topics.MOTION]) > 20, "motion")
    yield watcher
    watcher.close()


def test_every_frame_has_its_motion(moving: Watcher) -> None:
    moving.until(lambda: len(moving.seen[topics.MOTION]) > 60, "motion")
    seen = list(moving.seen[topics.MOTION])
    frames = [message.frame for message in seen]
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert set(np.diff(stamps(seen))) == {FRAME_NS}
    sound = {message.sequence: from_time(message.header.stamp) for message in moving.seen[topics.AUDIO]}
    both = [message for message in seen if message.frame in sound]
    assert len(both) > 40 and all(from_time(m.header.stamp) == sound[m.frame] for m in both)
    assert all(tuple(message.names) == CONTROL_NAMES for message in seen)
    values = np.array([message.values for message in seen])
    low, high = (np.array([getattr(c, name) for c in RIG]) for name in ("low", "high"))
    assert ((values >= low - 1e-5) & (values <= high + 1e-5)).all()


def gaze(watcher: Watcher) -> float:
    return watcher.seen[topics.MOTION][-1].values[CONTROL_NAMES.index("gaze_x")]


def test_it_looks_where_it_is_told_and_records_it(moving: Watcher) -> None:
    publisher = moving.publisher(PointStamped, topics.LOOK_AT)
    point = PointStamped()
    point.header.frame_id, point.point.x = "screen", 0.26  # the right edge of the default screen
    before = gaze(moving)
    publisher.publish(point)
    moving.until(lambda: gaze(moving) > before + 0.3, "a look to the right")
    moving.until(lambda: any(m.looks for m in moving.seen[topics.CHUNKS]), "its record")
    looks = [(m.look_x, m.look_y) for m in moving.seen[topics.CHUNKS] if m.looks]
    assert set(looks) == {(1.0, 0.0)}
    moving.until(lambda: not moving.seen[topics.CHUNKS][-1].looks, "the time-out")
    moving.until(lambda: abs(gaze(moving) - before) < 0.2, "the look back")


def test_a_point_in_another_frame_is_told(moving: Watcher) -> None:
    publisher = moving.publisher(PointStamped, topics.LOOK_AT)
    point = PointStamped()
    point.header.frame_id = "base_link"
    publisher.publish(point)

    def told() -> bool:
        said = [status.message for array in moving.seen[topics.DIAGNOSTICS] for status in array.status]
        return any("a message on 'look_at'" in text and "'base_link'" in text for text in said)

    moving.until(told, "a word about the frame")
