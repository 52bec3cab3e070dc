# SPDX-License-Identifier: Apache-2.0
"""Points of `look_at` in the screen's frame, as places on the screen; see docs/motion.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geometry_msgs.msg import PointStamped

from flowact_ros.nodes.convert import ConversionError

SCREEN = "screen"  # x to the right as the viewer sees it, y up, z out of the screen to the viewer [m]; from its middle
NORMALIZED = "screen_normalized"  # x, y in halves of the screen: 1 is its right and its upper edge; z is not looked at


@dataclass(frozen=True)
class Screen:
    """The screen [m], as a window: the character's eyes seem to be `eye_depth` behind the middle of it."""

    width: float
    height: float
    eye_depth: float

    def place(self, message: PointStamped) -> tuple[float, float]:
        """Where the line from the eyes to the point passes the screen, in halves of it from its middle.

        Raises ConversionError for a point in another frame, and for one that is not finite.
        """
        point, frame = message.point, message.header.frame_id
        if not all(math.isfinite(value) for value in (point.x, point.y, point.z)):
            raise ConversionError(f"the point is ({point.x}, {point.y}, {point.z}): finite numbers are needed")
        if frame == NORMALIZED:
            return point.x, point.y
        if frame not in ("", SCREEN):
            raise ConversionError(
                f"the point is in the frame {frame!r}: must be {SCREEN!r} [m], {NORMALIZED!r} or empty; transform it"
            )
        # A point behind the screen is seen where it lies: the eyes would have to turn round for one behind them.
        nearness = self.eye_depth / (self.eye_depth + max(point.z, 0.0))
        return point.x * nearness / (self.width / 2), point.y * nearness / (self.height / 2)
