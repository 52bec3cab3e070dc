# SPDX-License-Identifier: Apache-2.0
"""The parts of the benchmark, each a function of a `Setting` that returns what goes into the JSON object."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.memory_need import NotEnoughMemory
from flowact_ros.evaluation.bench_networks import peer
from flowact_ros.evaluation.bench_networks.clock import Clock
from flowact_ros.evaluation.bench_networks.prepare import as_engine, compiled
from flowact_ros.evaluation.bench_networks.stream import Stream, built, sound
from flowact_ros.evaluation.bench_networks.work import Start, Work, denoiser, operations
from flowact_ros.evaluation.load import resident_mb
from flowact_ros.models.config import ModelConfig
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

RESOLUTIONS = {"480p": (832, 480), "720p": (1280, 704), "1080p": (1920, 1088)}  # multiples of the VAE's stride
SMALL_RESOLUTIONS = {"1x": (128, 128), "2x": (256, 128)}  # of a preset that draws less than 480p
LONG_TERMS = (0, 1, 3, 7)  # entries of the long-term memory
PEER_OF = ("avatar_1b", "avatar_spatial_debug")  # presets that the peer, of like size or cut down, is compared with


class NotMeasured(Exception):
    """A part that says nothing about this preset or device: the message says why."""


@dataclass(frozen=True)
class Setting:
    """What is measured, and with what. runtime: the name of one; rates: of `ceilings`, {} before they are known."""

    config: ModelConfig
    device: torch.device
    precision: str
    runtime: str
    clock: Clock
    rates: dict[str, Any]

    @property
    def plain(self) -> str:
        """The precision of a denoiser that nothing was done to."""
        return "bfloat16" if self.device.type == "cuda" else "float32"

    def stream(self, precision: str, overrides: dict[str, Any]) -> Stream:
        pipeline = built(self.config.name, str(self.device), precision, self.runtime, overrides)
        pipeline.prepare()
        return Stream.begin(pipeline)


def frames_of(config: ModelConfig) -> int:
    return config.schedule.chunk_latents * FRAMES_PER_LATENT


def free(device: torch.device) -> None:
    """Gives what the part before has left to the next one."""
    gc.collect()
    if device.type == "cuda":
        torch._dynamo.reset()  # compiled blocks hold their networks
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def memory_gb(device: torch.device) -> float:
    """The most that was taken from a card since `free`; on a CPU what the process holds now."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 1e9, 3)
    return round(resident_mb() * (1 << 20) / 1e9, 3)


def share_of_rate(setting: Setting, counted: dict[str, int], seconds: float, precision: str) -> float | None:
    """The time that the counted operations take at the measured rates ÷ the time that they took.

    None for a precision whose products have no measured rate.
    """
    rates = setting.rates
    other = rates.get({"fp8": "bfloat16"}.get(precision, precision))
    fp8 = rates.get("fp8")
    if not other or (counted["fp8"] and not fp8):
        return None
    least = counted["other"] / other + (counted["fp8"] / fp8 if counted["fp8"] else 0.0)
    return round(least / seconds, 4)


def step(setting: Setting, precision: str | None = None, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The engine in the middle of a stream. overrides: of the preset."""
    clock, device = setting.clock, setting.device
    free(device)
    made: list[Stream] = []
    overrides = overrides or {}
    ready_s = clock.once(lambda: made.append(setting.stream(precision or setting.precision, overrides)))
    (stream,) = made
    pipeline, config = stream.pipeline, stream.pipeline.config
    size, became = config.schedule.chunk_latents, pipeline.provenance.precision
    pcm = sound(pipeline, size)
    chunk = stream.denoise(stream.full, pcm, size)
    stages = {
        "encode": lambda: pipeline.window(pcm),
        "denoise": lambda: stream.denoise(stream.full, pcm, size),  # sound encoded again: as the stream has it
        "commit": lambda: pipeline.advance(stream.full, chunk),
        "decode": lambda: pipeline.render(stream.reference, chunk),
        "whole": lambda: stream.step(pcm),
    }
    times = {name: clock.times(call) for name, call in stages.items()}
    frames = frames_of(config)
    whole = times["whole"].median
    rollout = rolled_out(setting, Work.begin(pipeline.denoiser, device), became)
    return {
        "precision": became,
        "runtime": pipeline.runtime.version,
        **rollout,
        **{f"{name}_ms": time.record() for name, time in times.items()},
        "fps": round(frames / whole, 2),
        "real_time_factor": round(whole * FRAME_RATE / frames, 4),
        "waits_ms": {name: round(value, 4) for name, value in pipeline.runtime.waits_ms.items()},
        "ready_s": round(ready_s, 3),
        "memory_gb": memory_gb(device),
    }


def rolled_out(setting: Setting, work: Work, precision: str, start: Start = MemoryBank.start) -> dict[str, Any]:
    """The denoiser alone, in the one rollout: an evaluation, and a chunk with its commit."""
    config, clock = work.model.config, setting.clock
    evaluation, chunk = clock.times(work.evaluation()), clock.times(work.chunk)
    counted = operations(config, precision, start)
    return {
        "latent": list(config.dit.latent_shape),
        "evaluations": config.schedule.steps,
        "evaluation_ms": evaluation.record(),
        "chunk_ms": chunk.record(),
        "denoiser_fps": round(frames_of(config) / chunk.median, 2),
        "operations_per_chunk": sum(counted["chunk"].values()),
        "matrix_share": share_of_rate(setting, counted["evaluation"], evaluation.median, precision),
    }


def fp8(setting: Setting, before: dict[str, Any]) -> dict[str, Any]:
    """The step in FP8, and in bfloat16 if `before`, the step as it was measured, was in something else."""
    if setting.rates.get("fp8") is None:
        raise NotMeasured(setting.rates.get("why_no_fp8", "the device's rate of FP8 products is not known"))
    plain = before if before.get("precision") == setting.plain else step(setting, setting.plain)
    rounded = step(setting, "fp8")
    return {
        **rounded,
        "over": plain["precision"],
        "speedup": round(plain["whole_ms"]["median"] / rounded["whole_ms"]["median"], 4),
        "denoiser_speedup": round(plain["chunk_ms"]["median"] / rounded["chunk_ms"]["median"], 4),
    }


def against_peer(setting: Setting) -> dict[str, Any]:
    """The denoiser of the preset beside the peer's, at the peer's latents and at its own: rollouts without decoders."""
    config = setting.config
    if config.name not in PEER_OF:
        raise NotMeasured(f"the peer has the size of {PEER_OF[0]}: it is compared with that preset")
    small = config.name != PEER_OF[0]
    rows = {
        "peer": (peer.peer_at(config, own_latents=True, small=small), peer.start),
        "peer_at_our_latents": (peer.peer_at(config, own_latents=False, small=small), peer.start),
        "ours_at_peer_latents": (peer.ours_at_peer_latents(config), MemoryBank.start),
        "ours": (config, MemoryBank.start),
    }
    out: dict[str, Any] = {}
    for name, (row, start) in rows.items():
        free(setting.device)
        model = denoiser(row, setting.device, setting.plain)
        if start is peer.start:
            work = compiled(model, setting.device, setting.runtime, start)
        else:
            work = as_engine(model, setting.device, setting.runtime)
        out[name] = rolled_out(setting, work, setting.plain, start)
        del model, work
    fps = {name: row["denoiser_fps"] for name, row in out.items()}
    out["same_latents"] = round(fps["ours_at_peer_latents"] / fps["peer"], 3)
    out["own_latents"] = round(fps["ours"] / fps["peer"], 3)
    return out


def ttff(setting: Setting) -> dict[str, Any]:
    """Time to the first frame inside the engine: from sound in the host's memory to a picture there.

    By latents of the first chunk, which may be shorter than the others. What a session adds is when it begins.
    """
    free(setting.device)
    stream = setting.stream(setting.precision, {})
    rows: dict[str, dict[str, float]] = {}
    for latents in sorted({1, setting.config.schedule.chunk_latents}):
        pcm = sound(stream.pipeline, latents)

        def first(pcm=pcm, latents: int = latents) -> None:
            stream.first_frame(pcm, latents)

        times = setting.clock.times(first)
        rows[f"{latents}_latents"] = {"p50_s": round(times.median, 5), "p95_s": round(times.p95, 5)}
    return {**rows, "p95_s": max(row["p95_s"] for row in rows.values())}


def resolutions(setting: Setting) -> list[dict[str, Any]]:
    """The step at sizes of the picture."""
    video = setting.config.video
    if video is None:
        raise NotMeasured(f"preset {setting.config.name} denoises motion, whatever the size of its pictures")
    sizes, stride = SMALL_RESOLUTIONS if video.height < 480 else RESOLUTIONS, video.vae.spatial_stride
    rows = []
    for name, (width, height) in sizes.items():
        grid = [height // stride, width // stride]
        overrides = {"video": {"width": width, "height": height}, "dit": {"grid": grid}}
        rows.append({"name": name, "size": [width, height], **_point(setting, overrides)})
    return rows


def memories(setting: Setting) -> list[dict[str, Any]]:
    """The step under long-term memories of several lengths."""
    return [
        {"long_term": entries, **_point(setting, {"memory": {"long_term": entries}})} for entries in LONG_TERMS
    ]


def _point(setting: Setting, overrides: dict[str, Any]) -> dict[str, Any]:
    """What a curve shows of a changed preset, or that there was no room for it."""
    keys = ("evaluation_ms", "chunk_ms", "decode_ms", "whole_ms", "fps", "matrix_share", "memory_gb")
    try:
        row = step(setting, overrides=overrides)
    except (torch.OutOfMemoryError, NotEnoughMemory) as error:
        free(setting.device)
        return {"not_measured": str(error).splitlines()[0]}
    return {key: row[key] for key in keys}
