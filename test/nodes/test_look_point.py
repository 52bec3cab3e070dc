# SPDX-License-Identifier: Apache-2.0
"""Points of `look_at`, in metres before the screen or on it."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import PointStamped

from flowact_ros.nodes.convert import ConversionError
from flowact_ros.nodes.look_point import NORMALIZED, SCREEN, Screen

WINDOW = Screen(width=0.6, height=0.4, eye_depth=0.5)


def point(x: float, y: float, z: float = 0.0, frame: str = SCREEN) -> PointStamped:
    message = PointStamped()
    message.header.frame_id = frame
    message.point.x, message.point.y, message.point.z = x, y, z
    return message


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (point(0.3, 0.0), (1.0, 0.0)),  # the right edge, as the viewer sees it
        (point(0.0, 0.2, frame=""), (0.0, 1.0)),  # the upper edge
        (point(-0.3, -0.2, 0.5), (-0.5, -0.5)),  # as far before the screen as the eyes are behind it
        (point(0.3, 0.0, -2.0), (1.0, 0.0)),  # behind the screen
        (point(0.0, 0.0, 3.0), (0.0, 0.0)),  # the viewer
        (point(-1.5, 0.25, 9.0, NORMALIZED), (-1.5, 0.25)),
    ],
)
def test_places(message: PointStamped, place: tuple[float, float]) -> None:
    assert WINDOW.place(message) == pytest.approx(place)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (point(0.1, 0.1, frame="map"), "the frame 'map': must be 'screen'"),
        (point(float("nan"), 0.1), "finite"),
        (point(0.1, 0.1, float("inf")), "finite"),
        (point(0.1, float("-inf"), 0.0, NORMALIZED), "finite"),
    ],
)
def test_points_that_cannot_be(message: PointStamped, says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        WINDOW.place(message)
    assert "\n" not in str(caught.value)
