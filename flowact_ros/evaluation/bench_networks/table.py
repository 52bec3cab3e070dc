# SPDX-License-Identifier: Apache-2.0
"""The figures with their targets."""

from __future__ import annotations

from typing import Any

from flowact_ros.evaluation.report import Report

STREAMS = {"avatar_1b": 8, "avatar_cpu": 64}  # at 25 fps each, on one card
FPS = {"avatar_14b": 30}


def show(result: dict[str, Any]) -> None:
    """Print the table. Targets are of cards: a CPU's figures stand without."""
    report(result).show()


def report(result: dict[str, Any]) -> Report:
    machine = result["machine"]
    card = "gpu" in machine
    name, (width, height) = result["preset"], result["picture"]
    out = Report(f"flowact bench networks: {name}, {width} x {height}, {machine.get('gpu') or machine['cpu']}")

    def target(value: float | None) -> float | None:
        return value if card else None

    rates = result["ceilings"]
    for kind in ("float32", "bfloat16", "fp8"):
        if rates[kind]:
            out.add(f"ceilings.{kind}", f"ceiling: {kind} products", rates[kind] / 1e12, "TFLOP/s", digits=2)
    out.add("ceilings.copy", "ceiling: copies, read and written", rates["copy_bytes"] / 1e9, "GB/s", digits=1)
    for key in ("step", "fp8"):
        if key in result:
            _step(out, key, result[key], target, name)
    if "fp8" in result:
        over = f"fp8 over {result['fp8']['over']}, whole step"
        least = target(1.25 if name == "avatar_14b" else None)
        out.add("fp8.speedup", over, result["fp8"]["speedup"], "x", least=least, digits=2)
    if "peer" in result:
        rows = result["peer"]
        for key in ("peer", "peer_at_our_latents", "ours_at_peer_latents", "ours"):
            what = f"{key.replace('_', ' ')}: {rows[key]['latent'][0]} tokens a latent, without decoder"
            out.add(f"peer.{key}.fps", what, rows[key]["denoiser_fps"], "fps", digits=1)
            if rows[key]["matrix_share"] is not None:
                share = f"{key.replace('_', ' ')}: share of the matrix rate, an evaluation"
                out.add(f"peer.{key}.share", share, rows[key]["matrix_share"])
        for key, what, least in (("same_latents", "at its latents", 2), ("own_latents", "each at its own", 5)):
            out.add(f"peer.{key}", f"ours over the peer, {what}", rows[key], "x", least=target(least), digits=2)
    if "ttff" in result:
        out.add("ttff.p95_s", "first frame, in the engine, p95", result["ttff"]["p95_s"], "s", most=target(0.3))
    if "streams" in result:
        least = target(STREAMS.get(name))
        out.add("streams.at_25_fps", "streams at 25 fps each", result["streams"]["at_25_fps"], least=least, digits=0)
        for row in result["streams"]["curve"]:
            _curve(out, f"streams.{row['streams']}", f"{row['streams']} streams in one batch, each", row, "fps_each")
    if "kernels" in result:
        said = result["kernels"]["precision"]
        for key, row in result["kernels"]["evaluation_ms"].items():
            what = f"{said}: an evaluation, between matrices {'compiled torch' if key == 'torch' else f'{key}, Triton'}"
            out.add(f"kernels.{key}", what, row["median"], "ms", digits=3)
    for row in result.get("resolution", []):
        _curve(out, f"resolution.{row['name']}", f"{row['name']}, {row['size'][0]} x {row['size'][1]}", row, "fps")
    for row in result.get("memory", []):
        _curve(out, f"memory.{row['long_term']}", f"long-term memory of {row['long_term']}", row, "fps")
    out.facts = {
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        **{f"{key}: computed by": result[key]["runtime"] for key in ("step", "fp8") if key in result},
        **{f"{part}: not measured": why for part, why in result.get("not_measured", {}).items()},
    }
    if "profile" in result:
        out.facts["profile"] = ", ".join(result["profile"])
    return out


def _step(out: Report, key: str, row: dict[str, Any], target: Any, name: str) -> None:
    said = row["precision"]
    for stage, what in (
        ("evaluation", "an evaluation"),
        ("chunk", f"{row['evaluations']} evaluations and commit"),
        ("encode", "sound encoded"),
        ("decode", "pictures of a chunk, on the host"),
        ("whole", "whole step"),
    ):
        for figure in ("median", "p95"):
            value = row[f"{stage}_ms"][figure]
            out.add(f"{key}.{stage}_{figure}", f"{said}: {what}, {figure}", value, "ms", digits=2)
    out.add(f"{key}.fps", f"{said}: whole steps", row["fps"], "fps", least=target(FPS.get(name)), digits=1)
    if row["matrix_share"] is not None:
        what = f"{said}: share of the matrix rate, an evaluation"
        out.add(f"{key}.share", what, row["matrix_share"], least=target(0.55))
    out.add(f"{key}.memory", f"{said}: memory", row["memory_gb"], "GB", digits=2)
    out.add(f"{key}.ready", f"{said}: loaded, compiled and ready", row["ready_s"], "s", digits=1)


def _curve(out: Report, key: str, what: str, row: dict[str, Any], figure: str) -> None:
    if "not_measured" in row:
        out.add(key, f"{what}: {row['not_measured']}", float("nan"), "fps")
    else:
        out.add(key, what, row[figure], "fps", digits=1)
