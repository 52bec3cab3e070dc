# SPDX-License-Identifier: Apache-2.0
"""Tells a running avatar what to do: a behaviour, and words of your own for it.

    python examples/instruct.py thinking "looking up and to the side, a hand at the chin"
    python examples/instruct.py reacting "raising the brows in surprise" --urgent
    python examples/instruct.py idle

A planner that runs beside it (`flowact up`) goes on deciding: leave it out with `--without instruction_planner`.
"""

import argparse
import sys

import rclpy
from rclpy.duration import Duration
from rclpy.utilities import remove_ros_args

from flowact_msgs.msg import AvatarState, Instruction

BEHAVIOURS = ("idle", "listening", "thinking", "speaking", "reacting")  # by number, as in Instruction.msg


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell an avatar what to do.")
    parser.add_argument("behaviour", choices=BEHAVIOURS)
    parser.add_argument("text", nargs="?", default="", help="empty: the behaviour's own wording")
    parser.add_argument("--urgent", action="store_true", help="frames made ahead are made again")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("instruct", namespace="avatar")
    wanted = BEHAVIOURS.index(options.behaviour)
    shown: list[int] = []
    # `state` is latched: the one of now comes at once, then each change.
    latched = rclpy.qos.QoSProfile(depth=1, durability=rclpy.qos.DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(AvatarState, "state", lambda state: shown.append(state.behaviour), latched)
    instructions = node.create_publisher(Instruction, "instruction", 10)
    deadline = node.get_clock().now() + Duration(seconds=30)
    sent = False
    while not (sent and shown and shown[-1] == wanted):
        if node.get_clock().now() > deadline:
            here = f"it shows {BEHAVIOURS[shown[-1]]}" if shown else "is an avatar running?"
            print(f"instruct: not followed on {instructions.topic_name} within 30 s: {here}", file=sys.stderr)
            return 1
        if shown and not sent and instructions.get_subscription_count():
            urgency = Instruction.PRIORITY_URGENT if options.urgent else Instruction.PRIORITY_NORMAL
            instructions.publish(Instruction(behaviour=wanted, text=options.text, priority=urgency))
            sent = True
        rclpy.spin_once(node, timeout_sec=0.1)
    print(f"shown: {options.behaviour}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
