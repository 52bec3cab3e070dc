# SPDX-License-Identifier: Apache-2.0
"""Which runtime should run the networks? The same denoiser evaluation and decoded latent in several of them.

    .venv/bin/python benchmarks/backends.py                        # all, about 5 minutes, a Markdown table
    .venv/bin/python benchmarks/backends.py --only eager openvino  # rows whose name has one of these

Every row is a process of its own: OpenMP reads its settings once. A chunk of 480 ms is three evaluations and three
latents; conditions, memory and reading the sound come on top, alike for all. `cold` is from networks in memory to
the first results (export, compile, load), `again` the same with everything cached that the backend can keep. `error`
is against eager float32: of the predicted latents (relative RMS) and of the frames (levels, RMS). torch.compile needs
a C++ compiler, the rows of onnxruntime and openvino need these packages (and onnxscript): without them a row says why
it is missing. Nothing else should run meanwhile; `others` says how many cores did (in the row 1+1 its own other half).
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = {  # name: (backend, dtype, threads)
    "eager bf16, 1 thread": ("eager", "bfloat16", 1),
    "eager bf16, 2 threads, serial": ("eager", "bfloat16", 2),
    "eager bf16, 1+1 (two processes)": ("1+1", "bfloat16", 1),
    "eager f32, 1 thread": ("eager", "float32", 1),
    "eager f32, 2 threads, serial": ("eager", "float32", 2),
    "torch.compile bf16, 1 thread": ("compile", "bfloat16", 1),
    "torch.compile bf16, 2 threads": ("compile", "bfloat16", 2),
    "onnxruntime f32, 1 thread": ("onnxruntime", "float32", 1),
    "onnxruntime f32, 2 threads": ("onnxruntime", "float32", 2),
    "openvino bf16, 1 thread": ("openvino", "bfloat16", 1),
    "openvino bf16, 2 threads": ("openvino", "bfloat16", 2),
}
NEEDS = {"onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
COLUMNS = (
    "backend",
    "evaluation, ms",
    "latent, ms",
    "chunk, ms (of real time)",
    "core-ms",
    "cold, s",
    "again, s",
    "error",
    "others",
)
CHUNK = 3  # latents, and evaluations of the denoiser
CHUNK_MS = 480.0
PARTS = ("denoiser", "decoder")
Runner = Callable[[], tuple[Any, ...]]


# ---------------------------------------------------------------- the networks as functions of tensors


def networks(preset: str, dtype: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """{part: (module, inputs)} in float32 or bfloat16, with the memory as full as in a stream that runs."""
    import numpy as np
    import torch
    from flowact_ros.models.mmdit import Context
    from flowact_ros.models.vae import VAE
    from torch import Tensor, nn

    from flowact_ros.engine.characters import list_characters, load_character
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.models.checkpoint import load_weights, weights_dir

    class Evaluation(nn.Module):
        def __init__(self, model: nn.Module, context: Context) -> None:
            super().__init__()
            self.model, self.window = model, context.window

        def forward(
            self, noisy: Tensor, sigma: Tensor, still: Tensor, condition: Tensor, vec: Tensor, *past: Tensor
        ):
            pairs = list(zip(past[::2], past[1::2]))
            context = Context(still, self.model.place, condition, vec, self.window, pairs)
            return (self.model.predict(context, noisy, sigma)[0],)

    class Decoding(nn.Module):
        def __init__(self, vae: nn.Module) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, latents: Tensor, past32: Tensor, past16: Tensor):
            state = {"decoder.32": past32, "decoder.16": past16}
            pictures, state = self.vae.decode_rgb(latents, state)
            return pictures, state["decoder.32"], state["decoder.16"]

    pipeline = build_pipeline(preset, dtype="float32")
    size = pipeline.config.height
    picture = (
        load_character(list_characters()[0]) if preset != "debug" else np.full((size, size, 3), 90, np.uint8)
    )
    reference = pipeline.load_reference(picture)
    state = pipeline.start(reference, 0)
    samples = pipeline.context_samples + CHUNK * 3840 + pipeline.lookahead_samples
    sound = (0.05 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    for _ in range(pipeline.config.memory.long_term + 1):
        chunk = pipeline.denoise(state, sound, CHUNK, "speaking")
        state = pipeline.advance(state, chunk)
    with torch.inference_mode():
        context = state.memory.bank.context(pipeline.denoiser, chunk.condition)
    noisy = chunk.latents + 0.3 * torch.randn(chunk.latents.shape, generator=torch.Generator().manual_seed(0))
    latent = reference.latent[:, None] + chunk.latents[:, :1]
    with torch.inference_mode():
        settled = pipeline.vae.decode_rgb(reference.latent[:, None])[1]
    pasts = [tensor for pair in context.past for tensor in pair]
    given = {
        "denoiser": (
            noisy,
            torch.full((1, CHUNK), 0.5),
            context.still,
            context.condition,
            context.vec,
            *pasts,
        ),
        "decoder": (latent, *(settled[f"decoder.{stride}"] for stride in (32, 16))),
    }
    vae = VAE(pipeline.config.vae)  # as it is: the pipeline's own has other convolutions (models/winograd.py)
    if preset != "debug":
        load_weights(weights_dir() / preset / "vae.safetensors", vae, kind="vae", config=vae.config)
    modules = {"denoiser": Evaluation(pipeline.denoiser, context), "decoder": Decoding(vae)}
    kind = getattr(torch, dtype)
    out = {}
    for part, module in modules.items():
        # out of inference mode, which exporters do not know; the noise level stays float32
        inputs = tuple(t.clone() if t.dim() == 2 else t.clone().to(kind) for t in given[part])
        out[part] = (module.to(kind).eval(), inputs)
    return out


# ---------------------------------------------------------------- backends: module and inputs -> what runs it


def eager(module: Any, inputs: tuple[Any, ...], kept: Path, threads: int, dtype: str) -> Runner:
    import torch

    def run() -> tuple[Any, ...]:
        with torch.inference_mode():
            return module(*inputs)

    return run


def compiled(module: Any, inputs: tuple[Any, ...], kept: Path, threads: int, dtype: str) -> Runner:
    import torch

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kept.parent / "inductor")
    return eager(torch.compile(module, dynamic=False), inputs, kept, threads, dtype)


def exported(module: Any, inputs: tuple[Any, ...], kept: Path) -> Path:
    """The ONNX file of a float32 module, made if it is not kept already."""
    import torch

    path = kept.with_suffix(".onnx")
    if not path.exists():
        with torch.no_grad():
            torch.onnx.export(module, inputs, path, dynamo=True, verbose=False)
    return path


def onnxruntime(module: Any, inputs: tuple[Any, ...], kept: Path, threads: int, dtype: str) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(
        str(exported(module, inputs, kept)), options, providers=["CPUExecutionProvider"]
    )
    feed = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), inputs)}
    return lambda: tuple(session.run(None, feed))


def openvino(module: Any, inputs: tuple[Any, ...], kept: Path, threads: int, dtype: str) -> Runner:
    import openvino as ov
    import torch

    core, path = ov.Core(), kept.with_suffix(".xml")
    if not path.exists():
        with torch.no_grad():
            ov.save_model(ov.convert_model(torch.export.export(module, inputs)), path, compress_to_fp16=False)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "CACHE_DIR": str(kept.parent / "openvino"),
    }
    request = core.compile_model(path, "CPU", settings).create_infer_request()
    feed = [tensor.numpy() for tensor in inputs]
    return lambda: tuple(request.infer(feed, share_inputs=True).values())


BACKENDS = {
    "eager": eager,
    "1+1": eager,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


# ---------------------------------------------------------------- one row, in a process of its own


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """Prepares the parts, tells that it is ready, waits for a line, and times them."""
    import numpy as np
    import torch

    from flowact_ros.engine.runtime import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(order["threads"])
    foreign = order["backend"] in ("onnxruntime", "openvino")  # they take float32 and choose for themselves
    exact = networks(order["preset"], "float32")
    given = exact if foreign or order["dtype"] == "float32" else networks(order["preset"], order["dtype"])
    truth = {
        part: eager(*copy.copy(exact[part]), Path(), 1, "float32")()[0].float() for part in order["parts"]
    }
    began = time.perf_counter()
    runners, first = {}, {}
    for part in order["parts"]:
        kept = Path(order["kept"]) / part
        runners[part] = BACKENDS[order["backend"]](*given[part], kept, order["threads"], order["dtype"])
        first[part] = torch.as_tensor(
            np.asarray(runners[part]()[0].float() if not foreign else runners[part]()[0])
        )
    result: dict[str, Any] = {"cold": time.perf_counter() - began}
    for part, found in first.items():
        wrong = (found.float() - truth[part]).square().mean().sqrt()
        if part == "denoiser":
            wrong = wrong / truth[part].square().mean().sqrt().clamp_min(1e-9)
        result[f"{part}_error"] = float(wrong)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    total, own = processor_seconds(), used()
    started = time.perf_counter()
    for part in order["parts"]:
        result[part], result[f"{part}_cpu"] = timed(runners[part], order["seconds"] / len(order["parts"]))
    elapsed = time.perf_counter() - started
    result["others"] = max(0.0, processor_seconds() - total - (used() - own)) / elapsed
    return result


def timed(run: Runner, seconds: float) -> tuple[float, float]:
    """Median wall and mean processor milliseconds of a call, for about `seconds`."""
    for _ in range(3):
        run()
    walls, began, core = [], time.perf_counter(), used()
    while time.perf_counter() < began + seconds or len(walls) < 5:
        start = time.perf_counter()
        run()
        walls.append(1e3 * (time.perf_counter() - start))
    return sorted(walls)[len(walls) // 2], 1e3 * (used() - core) / len(walls)


def used() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def processor_seconds() -> float:
    """Busy seconds of all cores since the start of the machine."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- the table


def measure(row: str, preset: str, seconds: float, kept: str) -> dict[str, Any]:
    """Figures of one row; {"missing": why} when its backend cannot run here."""
    backend, dtype, threads = ROWS[row]
    lacking = [name for name in NEEDS.get(backend, ()) if importlib.util.find_spec(name) is None]
    if lacking:
        return {"missing": f"{', '.join(lacking)} is not installed"}
    order = {
        "backend": backend,
        "dtype": dtype,
        "threads": threads,
        "preset": preset,
        "seconds": seconds,
        "kept": kept,
    }
    groups = [[part] for part in PARTS] if backend == "1+1" else [list(PARTS)]
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environ.setdefault("OMP_WAIT_POLICY", "passive")
    children = []
    for parts in groups:
        command = [sys.executable, __file__, "--worker", json.dumps({**order, "parts": parts})]
        child = subprocess.Popen(
            command,
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        children.append(child)
    result: dict[str, Any] = {}
    try:
        ready = all([answer(child) for child in children])  # noqa: C419 - every one is waited for
        for child in children:
            child.stdin.write("go\n" if ready else "")  # type: ignore[union-attr]
            child.stdin.close()  # type: ignore[union-attr]
        for child in children:
            found = answer(child)
            words = (child.stderr.read() if not found and child.stderr else "").strip().splitlines() or [
                "no word"
            ]
            result.update(found or {"missing": f"it failed: {words[-1][:200]}"})
    finally:
        for child in children:
            child.kill()
            child.wait()
    return result


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The next JSON line of a worker; {} if it ended. What libraries print is passed over."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("{"):
            return json.loads(line)
    return {}


def line(row: str, r: dict[str, Any], again: dict[str, Any]) -> str:
    if "missing" in r:
        return f"| {row} | {r['missing']} |"
    both = [CHUNK * r[part] for part in PARTS]
    chunk = max(both) if ROWS[row][0] == "1+1" else sum(both)
    cells = [
        f"{r['denoiser']:.1f}",
        f"{r['decoder']:.1f}",
        f"{chunk:.0f} ({chunk / CHUNK_MS:.2f})",
        f"{CHUNK * sum(r[f'{part}_cpu'] for part in PARTS):.0f}",
        f"{r['cold']:.1f}",
        f"{again['cold']:.1f}" if "cold" in again else "—",
        f"{100 * r['denoiser_error']:.2f} %, {r['decoder_error']:.2f}",
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
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing a row (default: 3)")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(json.loads(args.worker))), flush=True)
        return 0
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for row in ROWS:
        if args.only and not any(part in row for part in args.only):
            continue
        with tempfile.TemporaryDirectory(prefix="flowact-backends-") as kept:
            found = measure(row, args.preset, args.seconds, kept)
            cached = ROWS[row][0] not in ("eager", "1+1") and "missing" not in found
            again = measure(row, args.preset, 0.1, kept) if cached else {}
        print(line(row, found, again), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
