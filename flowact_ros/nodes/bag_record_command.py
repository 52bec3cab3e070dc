# SPDX-License-Identifier: Apache-2.0
"""The command line of `flowact record`."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys

from flowact_ros.launcher import environment
from flowact_ros.media.bag import BagError
from flowact_ros.nodes.bag_profiles import PROFILES, REPLAY
from flowact_ros.nodes.bag_recorder import RecordOptions, record

EXAMPLES = """examples:
  flowact record talk                          until Ctrl-C: all that `flowact replay talk` needs
  flowact record talk --seconds 60
  flowact record day --profile watch --max-size 4G
  flowact record lab --profile all --namespace robot1/avatar"""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
LEAST_SIZE = 10_000_000  # [bytes] of --max-size


def size_of(text: str) -> int:
    """"4G", "500M" -> bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    size = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < LEAST_SIZE:
        raise ValueError(f"{text!r} is no size of 10M or more, such as 500M or 4G")
    return size


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="flowact record",
        description="Records a running avatar into a rosbag2 recording (mcap). It may begin at any time: the stream's "
        "history reaches back to a keyframe, from which a replay can start.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="N", help="end after N seconds (default: Ctrl-C)")
    parser.add_argument(
        "--profile", choices=PROFILES, default=REPLAY,
        help="replay: what a replay needs; watch: compressed images, sound, text, state, motion, metrics; all: "
        "everything in the namespace, raw images too (default: replay)",
    )  # fmt: skip
    parser.add_argument("--max-size", metavar="SIZE", help="end at this size, such as 4G (default: the disk's room)")
    parser.add_argument("--namespace", default="avatar", help="of the avatar (default: avatar)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="wait so long for the avatar")
    options = parser.parse_args(arguments)
    try:
        if not 0 <= options.seconds < math.inf:
            raise ValueError(f"--seconds: {options.seconds:g} is not 0 or more")
        if not 0 < options.timeout < math.inf:
            raise ValueError(f"--timeout: {options.timeout:g} is not above 0")
        try:
            most = None if options.max_size is None else size_of(options.max_size)
        except ValueError as error:
            raise ValueError(f"--max-size: {error}") from None
        namespace = environment.checked_namespace(options.namespace)
        environment.check(os.environ)
        return record(
            RecordOptions(
                options.out, options.seconds, options.profile, namespace, most=most, timeout_s=options.timeout
            )
        )
    except (ValueError, BagError, environment.EnvironmentProblem) as error:
        print(f"flowact record: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
