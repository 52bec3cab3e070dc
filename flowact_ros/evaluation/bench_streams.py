# SPDX-License-Identifier: Apache-2.0
"""`flowact bench streams`: how many streams of a preset one device keeps up with.

    flowact bench streams                                        # the embedded model on this CPU
    flowact bench streams --workers 2 --counts 1 2 3 4
    flowact bench streams --precision float32 --batch 4          # does it pay to compute four together?
    flowact bench streams --device cuda --preset avatar_cpu --batch 16 --counts 1 16 32 64

N silent streams make step after step, as the avatars of `flowact up --namespace A B …` do: `--workers` threads take up
to `--batch` of them at a time. A turn is one step of each, 0.48 s of media. They fit while a turn takes no more than
0.9 of that; the rest is for onsets and interruptions, which have steps made again. Nothing else should run meanwhile:
what was running at the start is stated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from flowact_ros.engine.metrics import CHUNK_S
from flowact_ros.engine.runtime import keep_freed_memory
from flowact_ros.engine.streams.budget import MOST, SHARE, Trial
from flowact_ros.engine.streams.lockstep import Lockstep
from flowact_ros.evaluation.load import progress

CORES_A_WORKER = 2
WARM_TURNS = 5  # memory is full then
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact bench streams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--weights", default="", metavar="DIR", help="folder (default: the shipped ones), or random")
    parser.add_argument("--precision", default="auto", help="of the denoiser (default: auto)")
    parser.add_argument("--runtime", default="auto", help="what computes the networks (default: auto)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="steps computed together (default: 1)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that make steps (default: one a pair of cores, one a GPU)"
    )
    parser.add_argument(
        "--counts", type=int, nargs="+", default=list(COUNTS), metavar="N",
        help="numbers of streams, from small to large, until they do not fit (default: 1 2 3 4 6 8 …)",
    )  # fmt: skip
    parser.add_argument("--turns", type=int, default=12, metavar="N", help="timed turns of each number (default: 12)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    args = _parser().parse_args(argv)
    try:
        _check(args)
    except ValueError as error:
        print(f"flowact bench streams: {error}", file=sys.stderr)
        return 2
    try:
        result = measure(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact bench streams: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1)) if args.json else show(result)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options out of range."""
    limits = (("workers", args.workers, 1, 64), ("batch", args.batch, 1, 64), ("turns", args.turns, 2, 1000))
    for name, value, least, most in (*limits, *(("counts", n, 1, MOST) for n in args.counts)):
        if value is not None and not least <= value <= most:
            raise ValueError(f"--{name}: {value} is not {least} … {most}")
    if args.counts != sorted(set(args.counts)):
        raise ValueError(f"--counts: {' '.join(map(str, args.counts))} do not rise")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One object: the options, the machine, `fits`, and a row for each number of streams until they do not fit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
    load_before = os.getloadavg()[0]
    import torch

    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.engine.references import load_reference
    from flowact_ros.engine.streams.batched import batched
    from flowact_ros.evaluation.bench_engine import _picture

    on_cpu = args.device == "cpu"
    cores = len(os.sched_getaffinity(0))
    workers = args.workers or (max(1, cores // CORES_A_WORKER) if on_cpu else 1)
    torch.set_num_threads(1)
    single = build_pipeline(
        args.preset, args.device, weights=args.weights or None, runtime=args.runtime, precision=args.precision
    )
    single.runtime.beside = workers
    pipeline = batched(single, args.batch)
    reference = load_reference(pipeline, *_picture("", pipeline.height))
    rows: list[dict[str, Any]] = []
    trials: list[Trial] = []
    with progress() as tell, Turns(workers, args.batch) as turns:
        for number, count in enumerate(args.counts):
            while len(trials) < count:
                trials.append(Trial(pipeline, reference, len(trials)))
            for _ in range(WARM_TURNS):
                turns(trials)
            seconds = [turns(trials) for _ in range(args.turns)]
            tell((number + 1) / len(args.counts))
            rows.append(row(count, seconds))
            if not rows[-1]["fits"]:
                break
    fitting = [each["streams"] for each in rows if each["fits"]]
    return {
        "preset": args.preset,
        "device": args.device,
        "precision": pipeline.provenance.precision,
        "runtime": pipeline.provenance.runtime,
        "batch": args.batch,
        "workers": workers,
        "fits": max(fitting, default=0),
        "more_may_fit": bool(rows) and rows[-1]["fits"],  # it ended before they did not
        "rows": rows,
        "machine": {"processor": pipeline.provenance.processor, "cores": cores, "load_before": round(load_before, 2)},
    }


def row(streams: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Of turns that took so long: one step of each stream, and whether they keep up."""
    median = statistics.median(seconds)
    return {
        "streams": streams,
        "turn_ms": round(1e3 * median, 1),
        "turn_ms_slowest": round(1e3 * max(seconds), 1),
        "device_load": round(median / CHUNK_S, 3),
        "fps_each": round(min(25.0, 25.0 * CHUNK_S / median), 1),
        "fits": median <= SHARE * CHUNK_S,
    }


class Turns:
    """Has one step of each stream made, by `workers` threads in rounds of up to `batch`."""

    def __init__(self, workers: int, batch: int) -> None:
        self._batch, self._own = batch, threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="flowact-turn")

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True)

    def __call__(self, steps: Sequence[Callable[[], object]]) -> float:
        """Seconds until all are made."""
        began = time.monotonic()
        rounds = [steps[i : i + self._batch] for i in range(0, len(steps), self._batch)]
        for _ in self._pool.map(self._round, rounds):
            continue
        return time.monotonic() - began

    def _round(self, steps: Sequence[Callable[[], object]]) -> None:
        if len(steps) == 1:
            steps[0]()
            return
        if not hasattr(self._own, "lockstep"):
            self._own.lockstep = Lockstep(self._batch)
        for result in self._own.lockstep.run(steps):
            if isinstance(result, BaseException):
                raise result


def show(result: dict[str, Any]) -> None:
    """The table."""
    title = "{preset} on {device}, {precision}; workers: {workers}, batch: {batch}".format(**result)
    table = Table(title=title, title_justify="left")
    for column in ("streams", "a step of each [ms]", "slowest [ms]", "device load", "fps each", "fits"):
        table.add_column(column, justify="right")
    for each in result["rows"]:
        table.add_row(
            str(each["streams"]), f"{each['turn_ms']:.1f}", f"{each['turn_ms_slowest']:.1f}",
            f"{each['device_load']:.2f}", f"{each['fps_each']:.1f}", "yes" if each["fits"] else "no",
        )  # fmt: skip
    console = Console()
    console.print(table)
    more = " (or more: no larger number was tried)" if result["more_may_fit"] else ""
    machine = result["machine"]
    console.print(
        f"streams that fit: {result['fits']}{more}, a turn in at most {SHARE:.0%} of {CHUNK_S} s\n"
        f"{machine['processor']}, {machine['cores']} cores, load before: {machine['load_before']}"
    )
