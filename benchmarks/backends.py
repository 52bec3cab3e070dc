# SPDX-License-Identifier: Apache-2.0
"""Which runtime should compute the renderer? The same latents drawn by several of them.

    .venv/bin/python benchmarks/backends.py                        # all, about 2 minutes, a Markdown table
    .venv/bin/python benchmarks/backends.py --only eager openvino  # rows whose name has one of these

Every row is a process of its own: thread pools are made once. `cold` is from networks in memory to the first frames
(export, compile, load); `error` is against eager float32, in levels of 255: RMS and greatest. onnxruntime (with
onnxscript) and openvino need these packages: without them a row says so. Nothing else should run meanwhile; `others`
says how many cores did.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = {  # name: (backend, precision, threads)
    "eager f32, 1 thread": ("eager", "f32", 1),
    "eager f32, 2 threads": ("eager", "f32", 2),
    "openvino f32, 1 thread": ("openvino", "f32", 1),
    "openvino f32, 2 threads": ("openvino", "f32", 2),
    "openvino bf16, 1 thread": ("openvino", "bf16", 1),
    "openvino bf16, 2 threads": ("openvino", "bf16", 2),
    "onnxruntime f32, 1 thread": ("onnxruntime", "f32", 1),
    "onnxruntime f32, 2 threads": ("onnxruntime", "f32", 2),
}
NEEDS = {"onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
COLUMNS = ("backend", "frame, ms", "chunk, ms (of real time)", "core-ms a chunk", "cold, s", "error", "others")
CHUNK = 3  # latents
CHUNK_MS = 480.0
LATENTS = 8  # that are drawn in turn


# ---------------------------------------------------------------- backends: `models.codec.live.Compile`


def compiler(backend: str, precision: str, threads: int, folder: Path) -> Any:
    """What makes a graph of a module and examples of its inputs."""
    import numpy as np
    import torch

    from flowact_ros.models.codec.live import eager

    def openvino(module: Any, example: tuple[Any, ...]) -> Any:
        import openvino as ov

        with torch.inference_mode():
            graph = ov.convert_model(module.eval(), example_input=example, input=[tuple(x.shape) for x in example])
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        request = ov.Core().compile_model(graph, "CPU", options).create_infer_request()
        outputs = range(len(graph.outputs))

        def begin(*inputs: Any) -> Any:
            request.start_async([np.ascontiguousarray(x.numpy()) for x in inputs])

            def wait() -> tuple[Any, ...]:
                request.wait()
                return tuple(request.get_output_tensor(i).data.copy() for i in outputs)

            return wait

        return begin

    def onnxruntime(module: Any, example: tuple[Any, ...]) -> Any:
        import onnxruntime as ort

        path = folder / f"{type(module).__name__}.onnx"
        with torch.no_grad():
            torch.onnx.export(module, tuple(x.clone() for x in example), path, dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def begin(*inputs: Any) -> Any:
            feed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, inputs, strict=True)}
            return lambda: tuple(session.run(None, feed))

        return begin

    return {"eager": eager, "openvino": openvino, "onnxruntime": onnxruntime}[backend]


# ---------------------------------------------------------------- one row, in a process of its own


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """Draws the latents once, compares them with the eager ones, and times them."""
    import numpy as np
    import torch

    from flowact_ros.engine.characters import list_characters, load_character
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.engine.runtime import keep_freed_memory
    from flowact_ros.models.codec.live import LiveCodec
    from flowact_ros.models.codec.motion import CONTROLS
    from flowact_ros.timebase import FRAMES_PER_LATENT

    keep_freed_memory()
    torch.set_num_threads(order["threads"])
    pipeline = build_pipeline(order["preset"], runtime="eager")
    who = pipeline.load_reference(load_character(list_characters()[0])).appearance
    drawn = torch.randn(LATENTS, 1, CONTROLS, generator=torch.Generator().manual_seed(0))
    motions = list(0.5 * drawn.expand(-1, FRAMES_PER_LATENT, -1))
    truth = [pipeline.codec.render(who, motion).astype(np.float32) for motion in motions]
    began = time.perf_counter()
    compile = compiler(order["backend"], order["precision"], order["threads"], Path(order["folder"]))
    codec = LiveCodec(pipeline.codec.renderer, compile)
    codec.render(who, motions[0])
    cold = time.perf_counter() - began
    wrong = np.stack([codec.render(who, m) - t for m, t in zip(motions, truth, strict=True)])

    walls, core, total = [], used(), processor_seconds()
    began = time.perf_counter()
    while time.perf_counter() < began + order["seconds"] or len(walls) < LATENTS:
        start = time.perf_counter()
        codec.render(who, motions[len(walls) % LATENTS])
        walls.append(1e3 * (time.perf_counter() - start))
    elapsed, core = time.perf_counter() - began, used() - core
    return {
        "latent": sorted(walls)[len(walls) // 2],
        "core": 1e3 * core / len(walls),
        "cold": cold,
        "rms": float(np.sqrt(np.square(wrong).mean())),
        "greatest": float(np.abs(wrong).max()),
        "others": max(0.0, processor_seconds() - total - core) / elapsed,
    }


def used() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def processor_seconds() -> float:
    """Busy seconds of all cores since the start of the machine."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- the table


def measure(row: str, preset: str, seconds: float) -> dict[str, Any]:
    """Figures of one row; {"missing": why} when its backend cannot run here."""
    backend, precision, threads = ROWS[row]
    lacking = [name for name in NEEDS.get(backend, ()) if importlib.util.find_spec(name) is None]
    if lacking:
        return {"missing": f"{', '.join(lacking)} is not installed"}
    with tempfile.TemporaryDirectory(prefix="flowact-backends-") as folder:
        order = {"backend": backend, "precision": precision, "threads": threads, "preset": preset}
        command = [sys.executable, __file__, "--worker", json.dumps({**order, "seconds": seconds, "folder": folder})]
        environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        environ.setdefault("OMP_WAIT_POLICY", "passive")
        done = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]  # libraries print, too
    if done.returncode or not found:
        words = done.stderr.strip().splitlines() or ["no word"]
        return {"missing": f"it failed: {words[-1][:200]}"}
    return json.loads(found[-1])


def line(row: str, r: dict[str, Any]) -> str:
    if "missing" in r:
        return f"| {row} | {r['missing']} |"
    chunk = CHUNK * r["latent"]
    cells = [
        f"{r['latent'] / 4:.1f}",
        f"{chunk:.0f} ({chunk / CHUNK_MS:.2f})",
        f"{CHUNK * r['core']:.0f}",
        f"{r['cold']:.1f}",
        f"{r['rms']:.2f}, {r['greatest']:.0f}",
        f"{r['others']:.2f}",
    ]
    return f"| {row} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="avatar_cpu", help="sizes and weights (default: avatar_cpu)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="rows whose name has one of these parts"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing a row (default: 5)")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(json.loads(args.worker))), flush=True)
        return 0
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for row in ROWS:
        if not args.only or any(part in row for part in args.only):
            print(line(row, measure(row, args.preset, args.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
