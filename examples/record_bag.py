# SPDX-License-Identifier: Apache-2.0
"""Records topics of a running avatar as rosbag2 (mcap), with nothing but rclpy and `rosbags`.

    python examples/record_bag.py OUT --seconds 10 motion state captions

`flowact record` does more (all that a replay needs, bounded disk use); this is for a logger of your own.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore


def main() -> int:
    parser = argparse.ArgumentParser(description="Record topics of an avatar.")
    parser.add_argument("out", type=Path)
    parser.add_argument("topics", nargs="*", default=["motion", "state", "captions"])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    if options.out.exists():
        parser.error(f"{options.out} is there already")
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in Path(get_package_share_directory("flowact_msgs")).glob("msg/*.msg"):
        store.register(get_types_from_msg(file.read_text(), f"flowact_msgs/msg/{file.stem}"))
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("record_bag", namespace="avatar")
    with Writer(options.out, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        counts = dict.fromkeys(map(node.resolve_topic_name, options.topics), 0)
        waiting, end = set(counts), time.monotonic() + options.seconds
        while time.monotonic() < end:
            kinds = dict(node.get_topic_names_and_types())
            for topic in [name for name in waiting & set(kinds) if node.count_publishers(name)]:
                package, _, name = kinds[topic][0].split("/")
                kind = getattr(importlib.import_module(f"{package}.msg"), name)
                writer = bag.add_connection(topic, kinds[topic][0], typestore=store)

                def keep(data: bytes, writer=writer, topic=topic) -> None:
                    counts[topic] += 1
                    bag.write(writer, node.get_clock().now().nanoseconds, data)

                theirs = node.get_publishers_info_by_topic(topic)[0].qos_profile  # what is latched was sent before
                qos = QoSProfile(depth=50, durability=theirs.durability, reliability=theirs.reliability)
                node.create_subscription(kind, topic, keep, qos, raw=True)
                waiting.discard(topic)
            rclpy.spin_once(node, timeout_sec=0.1)
    print(f"{options.out}: " + ", ".join(f"{count} of {topic}" for topic, count in counts.items()))
    return int(not all(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
