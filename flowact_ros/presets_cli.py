# SPDX-License-Identifier: Apache-2.0
"""`flowact presets`: how large the models are, what a chunk of 480 ms costs, and the memory that they need.

    flowact presets
    flowact presets --json
    flowact presets --load avatar_1b --device cuda --weights DIR     # or --weights random, for how long it takes

Counted on torch's meta device: no weight is made, so the largest takes seconds too. `--load` makes one preset ready for
its first frame and says how long that took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.memory_need import free_memory, gigabytes, held_memory, need_of
from flowact_ros.models.config import PRESETS, ModelConfig, preset
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT


@dataclass(frozen=True)
class Size:
    """Of a preset: parameters of its denoiser, floating-point operations of all evaluations of a chunk under a full
    memory and of its commit, the shape of a latent (tokens and channels), and of spatial presets the bytes that a GPU
    needs for a stream, in bfloat16 and without the encoders of sound and text."""

    name: str
    parameters: int
    flops_per_chunk: int
    evaluations: int
    latent: tuple[int, int]
    gpu_bytes: int | None


def size_of(config: ModelConfig) -> Size:
    """Count one preset."""
    with torch.device("meta"):
        model = DiT(config).to("meta").eval().requires_grad_(False)
        latents = torch.empty(1, config.schedule.chunk_latents, *config.dit.latent_shape)
    condition = _condition(config)
    bank = MemoryBank.start(model, latents[:, 0]).commit(model, latents, condition)
    bank = replace(bank, entries=bank.entries * (config.memory.long_term + 1))  # full: all are of one size
    predict, level = bank.predictor(model, condition), latents.new_empty(latents.shape[:2])
    evaluation = _operations(lambda: predict(latents, level))
    commit = _operations(lambda: bank.commit(model, latents, condition))
    return Size(
        name=config.name,
        parameters=sum(p.numel() for p in model.parameters()),
        flops_per_chunk=config.schedule.steps * evaluation + commit,
        evaluations=config.schedule.steps,
        latent=config.dit.latent_shape,
        gpu_bytes=need_of(config, "bfloat16", "cuda").total("cuda") if config.video else None,
    )


def _operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _condition(config: ModelConfig) -> Condition:
    slots, dit = config.schedule.chunk_latents, config.dit
    with torch.device("meta"):
        return Condition(
            torch.empty(1, slots, FRAMES_PER_LATENT, dit.audio_dim),
            torch.empty(1, slots, dit.text_tokens, dit.text_dim),
        )


def loaded(name: str, device: str, weights: str, precision: str) -> dict[str, Any]:
    """Make a preset ready for its first frame: {name, device, load_s, prepare_s, gigabytes, free_gigabytes}.

    gigabytes: taken by this process meanwhile; free_gigabytes: what is left of the device; each None where it is not
    known. Raises what `build_pipeline` raises.
    """
    from flowact_ros.engine.pipeline import build_pipeline

    before, began = held_memory(device), time.monotonic()
    pipeline = build_pipeline(name, device, weights=weights or None, precision=precision)
    built = time.monotonic()
    pipeline.prepare(lambda line: print(line, file=sys.stderr))
    ready, held, left = time.monotonic(), held_memory(device), free_memory(device)
    taken = None if before is None or held is None else round((held - before) / 1e9, 2)
    return {
        "name": name,
        "device": device,
        "precision": pipeline.provenance.denoiser,
        "load_s": round(built - began, 2),
        "prepare_s": round(ready - built, 2),
        "gigabytes": taken,
        "free_gigabytes": None if left is None else round(left / 1e9, 2),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 after one line on why a preset cannot be loaded."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="flowact presets", description=__doc__, formatter_class=raw)
    parser.add_argument("--json", action="store_true", help="one list of objects; with --load one object")
    parser.add_argument("--load", metavar="PRESET", choices=PRESETS, help="make this one ready, and time it")
    parser.add_argument("--device", default="cpu", help="with --load: cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--weights", default="", metavar="DIR", help="with --load: its folder, or random")
    parser.add_argument("--precision", default="auto", help="with --load: of the denoiser (default: auto)")
    options = parser.parse_args(argv)
    if options.load:
        return _load(options)
    sizes = [size_of(preset(name)) for name in PRESETS]
    if options.json:
        print(json.dumps([asdict(size) for size in sizes]))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    counted = "weights", "steps", "op/chunk", "op/s", "latent", "GPU"
    for title in ("preset", *counted):
        table.add_column(title, justify="left" if title == "preset" else "right", no_wrap=True)
    for size in sizes:
        chunk_s = preset(size.name).schedule.chunk_latents * FRAMES_PER_LATENT / FRAME_RATE
        table.add_row(
            size.name, _scaled(size.parameters), str(size.evaluations), _scaled(size.flops_per_chunk),
            _scaled(size.flops_per_chunk / chunk_s), " x ".join(map(str, size.latent)),
            "" if size.gpu_bytes is None else gigabytes(size.gpu_bytes),
        )  # fmt: skip
    Console().print(table)
    return 0


def _scaled(number: float) -> str:
    """Three digits and a prefix: 14.2 G."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {prefix}"
    return f"{number / 1e6:.2g} M"


def _load(options: argparse.Namespace) -> int:
    try:
        figures = loaded(options.load, options.device, options.weights, options.precision)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact presets: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(figures))
        return 0
    taken = "" if figures["gigabytes"] is None else f", {figures['gigabytes']:.2f} GB taken"
    what = f"{figures['name']} on {figures['device']} in {figures['precision']}"
    print(f"{what}: loaded in {figures['load_s']:.1f} s, ready {figures['prepare_s']:.1f} s later{taken}")
    return 0
