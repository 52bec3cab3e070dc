# SPDX-License-Identifier: Apache-2.0
"""A subscriber of the frames as any program's, for `flowact soak` to kill: says `sees` when the first one has come."""

from __future__ import annotations

import sys

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from flowact_ros.nodes import topics


def main() -> int:
    rclpy.init(args=[])
    node = Node("soak_watcher", namespace=sys.argv[1])
    seen: list[int] = []

    def see(message: Image) -> None:
        if not seen:
            print("sees", flush=True)
        seen[:] = [message.width]

    node.create_subscription(Image, topics.IMAGE, see, topics.IMAGE_WATCH_QOS)
    rclpy.spin(node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
