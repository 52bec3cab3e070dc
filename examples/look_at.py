# SPDX-License-Identifier: Apache-2.0
"""Has a running avatar look at a place for some seconds; then its eyes come back.

    python examples/look_at.py 1.0 0.0                    the middle of the screen's right edge, for 3 s
    python examples/look_at.py -0.4 0.1 0.8 --seconds 5   a person: metres left, above and before the screen's middle
"""

import argparse
import sys
import time

import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.utilities import remove_ros_args


def main() -> int:
    parser = argparse.ArgumentParser(description="Have an avatar look at a place.")
    parser.add_argument("x", type=float, help="to the right as the viewer sees it")
    parser.add_argument("y", type=float, help="up")
    parser.add_argument("z", type=float, nargs="?", help="[m] out of the screen; with it x and y are metres, too")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long (default: 3)")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("look_at", namespace="avatar")
    points = node.create_publisher(PointStamped, "look_at", 10)
    deadline = time.monotonic() + 30.0
    while not points.get_subscription_count():
        if time.monotonic() > deadline:
            print(f"look_at: nobody listens on {points.topic_name}: is an avatar running?", file=sys.stderr)
            return 1
        time.sleep(0.1)
    point = PointStamped()
    # Without a depth, x and y are halves of the screen from its middle; with one, all are metres from there.
    point.header.frame_id = "screen" if options.z is not None else "screen_normalized"
    point.point.x, point.point.y, point.point.z = options.x, options.y, options.z or 0.0
    end = time.monotonic() + options.seconds
    while rclpy.ok() and time.monotonic() < end:  # a tracker of persons would send a new place each time
        point.header.stamp = node.get_clock().now().to_msg()
        points.publish(point)
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
