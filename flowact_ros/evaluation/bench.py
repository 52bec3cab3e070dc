# SPDX-License-Identifier: Apache-2.0
"""`flowact bench`: speed, latency and memory of the live stream.

    flowact bench                  # all nodes and one page client, about 3 minutes
    flowact bench --full --json    # 5 minutes, more than 50 onsets
    flowact bench --seconds 3600   # the same again and again: does its memory grow?
    flowact bench --page browser   # with a headless Chromium too, which says how far picture and sound are apart
    flowact bench --engine-only    # the session alone in one process, without ROS
    flowact bench hearing          # recorded speech to text: has options of its own
    flowact bench dialogue         # a user who asks and interrupts: has options of its own
    flowact bench networks         # the networks alone, beside what the device can do: has options of its own
    flowact bench streams          # how many avatars one device keeps up with: has options of its own
    flowact bench --device cuda --preset avatar_1b    # the same on a card: networks and ceilings, in one table
    flowact bench live --device cuda                  # all nodes, with the generator on the card

Nothing else should run on the machine meanwhile; what was running at the start is stated. Latencies are taken where
frames leave (engine) or arrive at a subscriber (nodes), which is 80 ms before they are to be seen.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from flowact_ros.engine.runtime import best_threads
from flowact_ros.evaluation.bench_engine import engine_only
from flowact_ros.evaluation.bench_nodes import with_nodes
from flowact_ros.evaluation.bench_table import show
from flowact_ros.vocabulary import DRAW_EVERY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--full", action="store_true", help="5 minutes instead of under 3")
    parser.add_argument("--seconds", type=float, metavar="N", help="about N seconds, 5 to 7200")
    parser.add_argument("--engine-only", action="store_true", help="the session alone, without ROS")
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu; with `live` or --engine-only cuda, too")
    parser.add_argument(
        "--weights", default="", metavar="DIR", help="folder of weights (default: the shipped ones)"
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="with --engine-only: speed needs no training"
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        help="with --engine-only, what computes the renderer: openvino, eager, or auto (default)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the model (default: the avatar's own choice)"
    )
    parser.add_argument("--character", default="", help="named character (default: the first shipped one)")
    parser.add_argument(
        "--wav", default="", metavar="FILE", help="what is said (default: the shipped sentence)"
    )
    parser.add_argument(
        "--page",
        choices=("socket", "browser", "none"),
        default="socket",
        help="the page's client: its WebSocket, or that and a headless Chromium (which needs much of a core), or none",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--draw-every", type=int, default=1, choices=DRAW_EVERY, metavar="N", help="draw every N-th frame (1, 2, 4)"
    )
    return parser


KINDS = {  # benchmarks with options of their own
    "hearing": "flowact_ros.evaluation.bench_hearing",
    "dialogue": "flowact_ros.evaluation.bench_dialogue",
    "networks": "flowact_ros.evaluation.bench_networks.main",
    "streams": "flowact_ros.evaluation.bench_streams",
}


def _kind(arguments: list[str]) -> str:
    """What is measured: one of KINDS or "live". On another device than the CPU it is the networks, whose figures say
    whether it is used well; the live stream there has to be asked for.
    """
    if arguments[:1] and arguments[0] in (*KINDS, "live"):
        return arguments[0]
    about = argparse.ArgumentParser(prog="flowact bench", add_help=False)
    about.add_argument("--device", default="cpu")
    about.add_argument("--engine-only", action="store_true")
    given, _ = about.parse_known_args(arguments)
    return "live" if given.device == "cpu" or given.engine_only else "networks"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    kind = _kind(arguments)
    if arguments[:1] == [kind]:
        arguments = arguments[1:]
    if kind in KINDS:
        return importlib.import_module(KINDS[kind]).main(arguments)
    args = _parser().parse_args(arguments)
    try:
        _check(args)
    except ValueError as error:
        print(f"flowact bench: {error}", file=sys.stderr)
        return 2
    try:
        if args.threads is None:
            args.threads = best_threads()
        result = engine_only(args) if args.engine_only else with_nodes(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options out of range or that do not go together."""
    if args.threads is not None and not 1 <= args.threads <= 64:
        raise ValueError(f"--threads is {args.threads}; it must lie in 1 .. 64")
    if args.seconds is not None and not 5 <= args.seconds <= 7200:
        raise ValueError(f"--seconds is {args.seconds:g}; it must lie in 5 .. 7200")
    if args.random_weights and not args.engine_only:
        raise ValueError("--random-weights goes with --engine-only")
    if args.runtime != "auto" and not args.engine_only:
        raise ValueError("--runtime goes with --engine-only: the avatar's node chooses for itself")


if __name__ == "__main__":
    raise SystemExit(main())
