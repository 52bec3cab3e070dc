# SPDX-License-Identifier: Apache-2.0
"""The live stream's figures with every node and a page client running, as robots have it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flowact_ros.evaluation.bench_table import lips_at_rest, result_table
from flowact_ros.evaluation.load import BenchError, Times, percentiles, progress, script

PROGRAM = "flowact_ros.nodes.benchmark"  # only nodes/ knows ROS: it runs as a program of its own


def with_nodes(args: argparse.Namespace) -> dict[str, Any]:
    """Runs `nodes/benchmark.py`, which starts every node and watches the topics, and makes the same table of it."""
    with tempfile.TemporaryDirectory(prefix="flowact-bench-") as folder:
        return _with_nodes(args, folder)


def _with_nodes(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    order = {
        "items": [vars(item) for item in script(args.seed, args.full, args.seconds)],
        "wav": args.wav,
        "preset": args.preset,
        "device": args.device,
        "weights": args.weights,
        "threads": args.threads,
        "character": _named(args),
        "page": args.page,
        "seed": args.seed,
        "draw_every": args.draw_every,
        "keep": folder,
    }
    answer = run_program(PROGRAM, order)
    times = Times(**answer.pop("times"))
    kept = answer["extra"].pop("kept")
    if args.preset != "debug":  # random weights draw no lips
        answer["extra"]["lips_rest_s"] = percentiles(lips_at_rest(kept, order["character"]))
    return result_table(args, times, mode="all nodes", load_before=load_before, **answer)


def run_program(program: str, order: dict[str, Any]) -> dict[str, Any]:
    """Has a module of nodes/ do what `order` says, with a progress bar; what it saw. Raises BenchError."""
    starter = Path(__file__).parents[1] / "launcher" / "start_node.py"  # not `-m`: it imports from the current folder
    command = [sys.executable, str(starter), program]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    answer: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        with progress() as tell:
            for line in process.stdout:
                record = json.loads(line)
                if "done" in record:
                    tell(record["done"])
                else:
                    answer = record
        process.wait(60)
    except BrokenPipeError:
        process.wait(60)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
    if "error" in answer:
        raise BenchError(answer["error"])
    if not answer:
        raise BenchError(f"the nodes' benchmark ended with exit code {process.returncode} and said nothing")
    return answer


def _named(args: argparse.Namespace) -> str:
    """The character asked for, or the first shipped one."""
    from flowact_ros.engine.characters import list_characters

    return args.character or next(iter(list_characters()), "")
