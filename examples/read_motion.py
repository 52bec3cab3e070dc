# SPDX-License-Identifier: Apache-2.0
"""Reads what a running avatar's face does, 25 times a second, as CSV: for servo heads, 3-D faces and studies.

    python examples/read_motion.py head_yaw head_pitch jaw > motion.csv
    python examples/read_motion.py --frames 250 > all.csv        all controls for ten seconds

Columns: the frame's index, its presentation time [s], and the controls, in the units of docs/motion.md. The stamp lies
80 ms ahead: a servo that is told now moves when the screen does.
"""

import argparse
import csv
import sys
import time

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.utilities import remove_ros_args

from flowact_msgs.msg import Motion

PATIENCE_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Read an avatar's motion as CSV.")
    parser.add_argument("controls", nargs="*", metavar="CONTROL", help="such as head_yaw, jaw (default: all)")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="end after N frames (default: never)")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("read_motion", namespace="avatar")
    received: list[Motion] = []
    node.create_subscription(Motion, "motion", received.append, 50)
    table = csv.writer(sys.stdout)
    written, heard = 0, time.monotonic()
    while not 0 < options.frames <= written:
        rclpy.spin_once(node, timeout_sec=0.5)
        if time.monotonic() - heard > PATIENCE_S:
            print(f"read_motion: nothing on {node.resolve_topic_name('motion')} for {PATIENCE_S:g} s", file=sys.stderr)
            return 1
        for motion in received:
            value = dict(zip(motion.names, motion.values))
            controls = options.controls or motion.names
            if unknown := sorted(set(controls) - set(value)):
                print(f"read_motion: no control {', '.join(unknown)}: one of {', '.join(value)}", file=sys.stderr)
                return 2
            if not written:
                table.writerow(["frame", "stamp", *controls])
            stamp = f"{motion.header.stamp.sec}.{motion.header.stamp.nanosec // 1_000_000:03d}"
            table.writerow([motion.frame, stamp, *(f"{value[name]:.4f}" for name in controls)])
            written, heard = written + 1, time.monotonic()
        received.clear()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.exit(130)
