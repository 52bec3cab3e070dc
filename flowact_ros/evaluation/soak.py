# SPDX-License-Identifier: Apache-2.0
"""`flowact soak`: does the avatar run for hours, and what becomes of it when something breaks?

    flowact soak --minutes 60                 # all nodes and a page's client: frames lost, rise of memory
    flowact soak --minutes 60 --chaos         # the same, while nodes are killed and paused, topics flooded, pages cut
    flowact soak --minutes 3 --chaos --seed 7 --json

Faults come in rounds, every kind once, in an order that the seed decides. In runs of 15 minutes and more no process is
killed after the first quarter, so that the rise of its memory can be told. Exit status 1: a target was missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from flowact_ros.engine.runtime import best_threads
from flowact_ros.evaluation.bench_nodes import run_program
from flowact_ros.evaluation.soak_plan import KINDS, plan
from flowact_ros.evaluation.soak_report import figures, show
from flowact_ros.vocabulary import DRAW_EVERY

PROGRAM = "flowact_ros.nodes.soak"  # only nodes/ knows ROS: it runs as a program of its own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, metavar="N", help="0.5 to 1440 (default: 3)")
    parser.add_argument("--chaos", action="store_true", help="make faults meanwhile")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FAULT",
        choices=[kind.name for kind in KINDS],
        help="with --chaos, this kind of fault (repeatable): " + ", ".join(kind.name for kind in KINDS),
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults' order (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--character", default="", help="named character (default: the first shipped one)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the model (default: the avatar's own choice)")
    parser.add_argument(
        "--draw-every", type=int, default=1, choices=DRAW_EVERY, metavar="N", help="draw every N-th frame (1, 2, 4)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all targets met, 1 failed or a target missed, 2 bad command line."""
    args = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        order = make_order(args)
    except ValueError as error:
        print(f"flowact soak: {error}", file=sys.stderr)
        return 2
    try:
        report = figures(order, run_program(PROGRAM, order))
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact soak: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(report.json())
    else:
        show(report)
    return 1 if any(figure.met is False for figure in report.figures) else 0


def make_order(args: argparse.Namespace) -> dict[str, Any]:
    """What the program that knows ROS is to do. Raises ValueError for options that cannot be."""
    if not 0.5 <= args.minutes <= 1440:
        raise ValueError(f"--minutes is {args.minutes:g}; it must lie in 0.5 .. 1440")
    if args.threads is not None and not 1 <= args.threads <= 64:
        raise ValueError(f"--threads is {args.threads}; it must lie in 1 .. 64")
    if args.only and not args.chaos:
        raise ValueError("--only goes with --chaos")
    seconds = 60 * args.minutes
    faults = plan(seconds, args.seed, args.only) if args.chaos else []
    return {
        "seconds": seconds,
        "faults": [vars(fault) for fault in faults],
        "seed": args.seed,
        "preset": args.preset,
        "device": args.device,
        "character": args.character,
        "threads": args.threads or best_threads(),
        "weights": "",
        "draw_every": args.draw_every,
        "load_before": os.getloadavg()[0],
    }


if __name__ == "__main__":
    raise SystemExit(main())
