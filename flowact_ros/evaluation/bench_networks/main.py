# SPDX-License-Identifier: Apache-2.0
"""`flowact bench networks`: how fast a preset's networks are on a device, beside what the device can do.

    flowact bench networks --device cuda --preset avatar_1b            # or: flowact bench --device cuda --preset …
    flowact bench networks --device cuda --preset avatar_14b --precision fp8 --json
    flowact bench networks --device cuda --preset avatar_1b --parts ceilings step peer --minutes 3 --out bench.json
    flowact bench networks --device cuda --preset avatar_1b --parts step --profile profile/
    flowact bench networks --preset avatar_spatial_debug               # the same code, in seconds, on any CPU

Weights are random. The figures are of networks alone, in one process; `flowact bench live --device cuda` starts all
nodes, with the generator on the card. Nothing else should run on machine or card meanwhile.

The first part is always the device's ceilings. Times of a card are taken by its own events, those of a CPU by the
clock. An evaluation is one forward pass on a chunk of three latents under a full memory; a chunk is all of its
evaluations and its commit to memory; a whole step is what the engine makes of sound in the host's memory until
pictures lie there and memory is written. The share of the matrix rate is the time that the counted operations take at
the measured rates ÷ that of an evaluation. The peer is a rollout of the kind of Self-Forcing, of 1.3 B parameters.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowact_ros.engine.memory_need import NotEnoughMemory
from flowact_ros.engine.runtime.base import RUNTIMES, choose
from flowact_ros.evaluation.bench_networks import parts
from flowact_ros.evaluation.bench_networks.ceilings import ceilings
from flowact_ros.evaluation.bench_networks.clock import Clock
from flowact_ros.evaluation.bench_networks.kernels import kernels
from flowact_ros.evaluation.bench_networks.profile import profile
from flowact_ros.evaluation.bench_networks.results import Results, device_facts
from flowact_ros.evaluation.bench_networks.streams import streams
from flowact_ros.evaluation.bench_networks.table import show
from flowact_ros.models.config import ConfigError, preset
from flowact_ros.models.precision import PRECISIONS, check_device, check_precision

PARTS = ("step", "fp8", "peer", "ttff", "streams", "kernels", "resolution", "memory")  # in this order
STREAMS = (1, 2, 4, 8, 16, 32, 64)
CEILING_S = 0.5  # that each of ten is timed: a large product takes milliseconds


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    out = argparse.ArgumentParser(prog="flowact bench networks", description=__doc__, formatter_class=raw)
    out.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    out.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    out.add_argument("--precision", default="auto", choices=PRECISIONS, help="of the denoiser (default: auto)")
    out.add_argument("--runtime", default="auto", choices=RUNTIMES, help="what runs it (default: auto)")
    out.add_argument("--parts", nargs="+", choices=("ceilings", *PARTS), metavar="PART", default=list(PARTS),
                     help=f"which parts, of: {', '.join(PARTS)} (default: all)")  # fmt: skip
    out.add_argument("--streams", nargs="+", type=int, default=list(STREAMS), metavar="N",
                     help="streams of a batch, until they no longer keep up (default: 1 2 4 … 64)")  # fmt: skip
    out.add_argument("--seconds", type=float, default=2.0, metavar="S",
                     help="each figure is timed so long, 0 (see that it runs) to 60")  # fmt: skip
    out.add_argument("--minutes", type=float, metavar="M", help="begin no part after so long")
    out.add_argument("--profile", type=Path, metavar="FOLDER", help="a trace of a step, and its slowest operators")
    out.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    out.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object there after each part as well")
    return out


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    args = parser().parse_args(argv)
    try:
        setting = _setting(args)
    except (ValueError, ConfigError) as error:
        print(f"flowact bench networks: {error}", file=sys.stderr)
        return 2
    results = Results({"preset": args.preset}, args.out)
    try:
        done = measure(setting, args, results)
    except (RuntimeError, OSError) as error:
        print(f"flowact bench networks: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if args.json:
        print(results.json())
    else:
        show(results.record)
    return 0 if done else 1


def _setting(args: argparse.Namespace) -> parts.Setting:
    """Raises ValueError or ConfigError, one line, for what cannot be."""
    if not 0 <= args.seconds <= 60:
        raise ValueError(f"--seconds is {args.seconds:g}; it must lie in 0 .. 60")
    if args.minutes is not None and not 0 < args.minutes <= 600:
        raise ValueError(f"--minutes is {args.minutes:g}; it must lie in 0 .. 600")
    if min(args.streams) < 1 or sorted(set(args.streams)) != args.streams:
        raise ValueError(f"--streams is {' '.join(map(str, args.streams))}; use rising numbers from 1 on")
    if args.out is not None and not args.out.resolve().parent.is_dir():
        raise ValueError(f"--out: there is no folder {args.out.resolve().parent}")
    config = preset(args.preset)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        build = "this torch is built for CPUs alone" if torch.version.cuda is None else "no card or driver was found"
        raise ValueError(f"device {args.device} cannot be used: {build}; --device cpu runs the same code, slowly")
    check_device(args.device)
    check_precision(args.precision, args.device)
    choose(args.runtime, args.device)
    device = torch.device(args.device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {args.device} is not timed here; use cpu or cuda")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return parts.Setting(config, device, args.precision, args.runtime, Clock(device, args.seconds), {})


def measure(setting: parts.Setting, args: argparse.Namespace, results: Results) -> bool:
    """Run the parts that were asked for, in their order; False if one of them failed."""
    began, config, failed = time.monotonic(), setting.config, False
    results.record |= {
        "picture": [config.video.width, config.video.height] if config.video else [config.renderer.size] * 2,
        "latent": list(config.dit.latent_shape),
        "chunk_frames": parts.frames_of(config),
        "machine": device_facts(setting.device),
    }
    rates = ceilings(Clock(setting.device, min(CEILING_S, setting.clock.seconds)))
    setting.rates.update(rates)
    results.add("ceilings", rates)
    todo: dict[str, Callable[[], Any]] = {
        "step": lambda: parts.step(setting),
        "fp8": lambda: parts.fp8(setting, results.record.get("step", {})),
        "peer": lambda: parts.against_peer(setting),
        "ttff": lambda: parts.ttff(setting),
        "streams": lambda: streams(setting, tuple(args.streams)),
        "kernels": lambda: kernels(setting),
        "resolution": lambda: parts.resolutions(setting),
        "memory": lambda: parts.memories(setting),
    }
    for name in PARTS:
        if name not in args.parts:
            continue
        if args.minutes is not None and time.monotonic() - began > 60 * args.minutes:
            results.leave_out(name, f"the {args.minutes:g} minutes were over")
            continue
        try:
            results.add(name, todo[name]())
        except parts.NotMeasured as reason:
            results.leave_out(name, str(reason))
        except (torch.OutOfMemoryError, NotEnoughMemory) as error:
            parts.free(setting.device)
            results.leave_out(name, f"out of memory: {str(error).splitlines()[0]}")
        except (RuntimeError, ValueError) as error:  # the parts after it are still worth having
            failed = True
            parts.free(setting.device)
            results.leave_out(name, f"failed: {type(error).__name__}: {error}")
    if args.profile is not None:
        results.add("profile", [str(path) for path in profile(setting, args.profile)])
    results.add("seconds", round(time.monotonic() - began, 1))
    return not failed


if __name__ == "__main__":
    raise SystemExit(main())
