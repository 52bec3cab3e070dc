# SPDX-License-Identifier: Apache-2.0
"""`flowact bench`: speed, latency and memory of the live stream.

    flowact bench                  # all nodes and one page client, about 3 minutes
    flowact bench --full --json    # 5 minutes, more than 50 onsets
    flowact bench --engine-only    # the session alone in one process, without ROS

Nothing else should run on the machine meanwhile; what was running at the start is stated. Latencies are taken where
frames leave (engine) or arrive at a subscriber (nodes), which is 80 ms before they are to be seen.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowact_ros.evaluation.bench_table import lips_at_rest, show
from flowact_ros.evaluation.load import (
    Driver,
    babble,
    cpu_seconds,
    gaps,
    percentiles,
    resident_mb,
    script,
    slope_mb_per_hour,
)
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

NODES_PROGRAM = "flowact_ros.nodes.benchmark"  # only nodes/ knows ROS: it runs as a program of its own
CHUNK_S = 0.48


class BenchError(RuntimeError):
    """The benchmark cannot be carried out: one line."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--full", action="store_true", help="5 minutes instead of under 3")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop after about N seconds")
    parser.add_argument("--engine-only", action="store_true", help="the session alone, without ROS")
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--weights", default="", metavar="DIR", help="folder of weights (default: the shipped ones)"
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="with --engine-only: speed needs no training"
    )
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2, help="threads of the model (default: 2)")
    parser.add_argument("--character", default="", help="named character (default: the first shipped one)")
    parser.add_argument(
        "--wav", default="", metavar="FILE", help="what is said (default: the shipped sentence)"
    )
    parser.add_argument(
        "--page",
        choices=("socket", "none"),
        default="socket",
        help="the page's client: its WebSocket, or none",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    args = _parser().parse_args(argv)
    try:
        if not 1 <= args.threads <= 64:
            raise ValueError(f"--threads is {args.threads}; it must lie in 1 .. 64")
        if args.seconds is not None and not 5 <= args.seconds <= 3600:
            raise ValueError(f"--seconds is {args.seconds:g}; it must lie in 5 .. 3600")
        if args.random_weights and not args.engine_only:
            raise ValueError("--random-weights goes with --engine-only")
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


# ---------------------------------------------------------------- the session alone


def engine_only(args: argparse.Namespace) -> dict[str, Any]:
    """The table's figures from a `Session` in this process; frames are taken as they leave."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    began = time.monotonic() - process_age()
    load_before = os.getloadavg()[0]
    import torch

    from flowact_ros.engine.session import Session

    torch.set_num_threads(args.threads)
    pipeline = _pipeline(args)
    picture, name = _picture(args.character, pipeline.height)
    speech = _speech(args.wav)
    reference = pipeline.load_reference(picture)
    warm = Session(pipeline, reference)
    for _, _ in zip(range(24), warm.frames(realtime=False), strict=False):
        pass
    warm.close()
    session = Session(pipeline, reference, seed=args.seed)
    items = script(args.seed, args.full, args.seconds)
    with progress() as tell, session:
        driver = Driver(
            items,
            speech,
            lambda pcm, uid, first, last: session.push_audio(
                pcm, SAMPLE_RATE, utterance_id=uid, first_sample=first, last=last
            ),
            lambda: (session.interrupt(), None)[1],
            tell,
        )
        first_frame_s, arrivals, memory, used = 0.0, [], [], 0.0
        for frame in session.frames():
            now = time.monotonic()
            if not arrivals:
                first_frame_s, used = now - began, cpu_seconds()
                driver.start()
            arrivals.append(now)
            driver.saw(frame.utterance_id)
            if frame.index % FRAME_RATE == 0:
                memory.append((now, resident_mb()))
            if driver.done:
                break
        used = cpu_seconds() - used
        figures = session.metrics()
    if driver.error is not None:
        raise BenchError(f"the script failed: {driver.error}")
    return _result(
        args,
        driver,
        mode="engine only",
        load_before=load_before,
        character=name,
        real_time_factor=(figures.real_time_factor_median, figures.real_time_factor_p95),
        repeated=figures.repeated,
        dropped=figures.dropped,
        frames=figures.frames,
        arrivals=arrivals,
        memory=memory,
        first_frame_s=first_frame_s,
        step_ms=dict(figures.step_ms),
        core_ms=1e3 * used / max(1e-9, (arrivals[-1] - arrivals[0]) / CHUNK_S),
        size=(pipeline.width, pipeline.height),
        extra={
            "rewinds": figures.rewinds,
            "underruns": figures.underruns,
            "av_skew_s": round(figures.av_skew_s, 4),
            "identity": figures.identity,
            "engine_ttff_s": percentiles(list(figures.ttff_s)),
            "engine_core_ms_per_chunk": round(figures.core_ms_per_chunk, 1),
        },
    )


def _pipeline(args: argparse.Namespace) -> Any:
    from flowact_ros.engine.pipeline import AvatarPipeline, best_dtype, build_pipeline

    if not args.random_weights:
        return build_pipeline(args.preset, args.device, weights=args.weights or None, dtype=args.dtype)
    import torch

    from flowact_ros.models.audio_encoder import EmbeddedAudioEncoder
    from flowact_ros.models.config import preset
    from flowact_ros.models.mmdit import MMDiT
    from flowact_ros.models.text_encoder import EmbeddedTextEncoder
    from flowact_ros.models.vae import VAE

    config = preset(args.preset)
    kind = best_dtype(args.device) if args.dtype == "auto" else getattr(torch, args.dtype)
    parts = VAE(config.vae), MMDiT(config), EmbeddedAudioEncoder(), EmbeddedTextEncoder()
    return AvatarPipeline(config, *parts, device=args.device, dtype=kind, check_references=False)


def _picture(name: str, size: int) -> tuple[Any, str]:
    from flowact_ros.engine.characters import list_characters, load_character

    names = list_characters()
    if name or names:
        return load_character(name or names[0]), name or names[0]
    import numpy as np

    ramp = np.linspace(60, 200, max(size, 64), dtype=np.float32)
    grey = np.repeat((0.5 * (ramp[:, None] + ramp[None, :])).astype(np.uint8)[..., None], 3, 2)
    return grey, "a grey picture"


def _speech(path: str) -> Any:
    if not path:
        return babble(20.0)
    from flowact_ros.media.resample import resample
    from flowact_ros.media.wav import read_audio

    pcm, rate = read_audio(path)
    return resample(pcm, rate, SAMPLE_RATE)


def _named(args: argparse.Namespace) -> str:
    """The character asked for, or the first shipped one."""
    from flowact_ros.engine.characters import list_characters

    return args.character or next(iter(list_characters()), "")


# ---------------------------------------------------------------- all nodes


def with_nodes(args: argparse.Namespace) -> dict[str, Any]:
    """Runs `nodes/benchmark.py`, which starts every node and watches the topics, and makes the same table of it."""
    with tempfile.TemporaryDirectory(prefix="flowact-bench-") as folder:
        return _with_nodes(args, folder)


def _with_nodes(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    items = [vars(item) for item in script(args.seed, args.full, args.seconds)]
    order = {
        "items": items,
        "wav": args.wav,
        "preset": args.preset,
        "device": args.device,
        "weights": args.weights,
        "threads": args.threads,
        "character": _named(args),
        "page": args.page,
        "seed": args.seed,
        "keep": folder,
    }
    command = [sys.executable, "-m", NODES_PROGRAM]
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
    times = answer.pop("times")
    kept = answer["extra"].pop("kept")
    if args.preset != "debug":  # random weights draw no lips
        answer["extra"]["lips_rest_s"] = percentiles(lips_at_rest(kept, answer["character"]))
    watched = type("Watched", (), {"times": type("Times", (), times)(), "items": items})()
    return _result(args, watched, mode="all nodes", load_before=load_before, **answer)


# ---------------------------------------------------------------- the table


def _result(
    args: argparse.Namespace,
    driver: Any,
    *,
    mode: str,
    load_before: float,
    character: str,
    real_time_factor: tuple[float, float],
    repeated: int,
    dropped: int,
    frames: int,
    arrivals: list[float],
    memory: list[tuple[float, float]],
    first_frame_s: float,
    step_ms: dict[str, float],
    core_ms: float,
    size: tuple[int, int],
    extra: dict[str, Any],
) -> dict[str, Any]:
    from flowact_ros.evaluation.report import machine

    times = driver.times
    seconds = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return {
        "mode": mode,
        "preset": args.preset,
        "device": args.device,
        "weights": "random" if args.random_weights or args.preset == "debug" else args.weights or "shipped",
        "character": character,
        "size": list(size),
        "machine": {**machine(), "threads": args.threads, "load_before": round(load_before, 2)},
        "seconds": round(seconds, 1),
        "real_time_factor": {"median": round(real_time_factor[0], 3), "p95": round(real_time_factor[1], 3)},
        "ttff_s": percentiles(times.ttff),
        "ttff_live_s": percentiles(times.ttff_live),
        "barge_in_s": percentiles(times.barge_in),
        "onsets": {
            "fast": len(times.ttff),
            "live": len(times.ttff_live),
            "cut": len(times.barge_in),
            "lost": times.lost,
        },
        "repeated_frames": repeated,
        "dropped_frames": dropped,
        "frames": frames,
        "fps": round((len(arrivals) - 1) / seconds, 2) if seconds else 0.0,
        "arrival_gap_s": gaps(arrivals),
        "rss_mb": round(memory[-1][1], 1) if memory else 0.0,
        "rss_slope_mb_per_hour": round(slope_mb_per_hour(memory), 1),
        "first_frame_s": round(first_frame_s, 2),
        "step_ms": {name: round(value, 1) for name, value in step_ms.items()},
        "core_ms_per_chunk": round(core_ms, 1),
        **extra,
    }


def process_age() -> float:
    """Seconds since this process was started."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, up - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


class progress:
    """A bar on stderr where that is a terminal. Gives `tell(done)`, `done` in 0 .. 1."""

    def __enter__(self) -> Callable[[float], None]:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self.bar.start()
        task = self.bar.add_task("speaking and being interrupted", total=1.0)
        return lambda done: self.bar.update(task, completed=done)

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


if __name__ == "__main__":
    raise SystemExit(main())
