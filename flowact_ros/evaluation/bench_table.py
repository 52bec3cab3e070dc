# SPDX-License-Identifier: Apache-2.0
"""The live stream's figures with their targets, and the one that needs eyes: when the lips came to rest."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from flowact_ros.evaluation.load import Times, gaps, percentiles, slope_mb_per_hour
from flowact_ros.vocabulary import DRAW_EVERY

REST_PX = 3.0  # lines of a 512 canvas
REST_S = 0.5  # so long they are shut before a sentence that is cut off counts as ended
DRAWN = dict(zip(DRAW_EVERY, ("", ", every second frame drawn", ", every fourth frame drawn"), strict=True))
SLOPE_S = 1800.0  # [s] of a run, from which on the rise of memory is judged


def result_table(
    args: argparse.Namespace,
    times: Times,
    *,
    mode: str,
    load_before: float,
    character: str,
    real_time_factor: tuple[float, float],
    load: float,
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
    """What `flowact bench --json` prints. arrivals: [s] of frames; memory: (seconds, MB); size: (width, height)."""
    import torch

    from flowact_ros.evaluation.report import machine

    vectors = torch.backends.cpu.get_cpu_capability()  # "AVX512", "AVX2", ...
    seconds = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return {
        "mode": mode,
        "preset": args.preset,
        "device": args.device,
        "weights": "random" if args.random_weights or args.preset == "debug" else args.weights or "shipped",
        "character": character,
        "size": list(size),
        "draw_every": args.draw_every,
        "machine": {
            **machine(),
            "vectors": vectors,
            "threads": args.threads,
            "load_before": round(load_before, 2),
        },
        "seconds": round(seconds, 1),
        "real_time_factor": {"median": round(real_time_factor[0], 3), "p95": round(real_time_factor[1], 3)},
        "load": round(load, 3),
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


def show(result: dict[str, Any]) -> None:
    """The table of the live stream with its targets."""
    from flowact_ros.evaluation.report import Report

    def number(*path: str) -> float:
        value: Any = result
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return float("nan") if value is None else float(value)

    width, height = result["size"]
    onsets = result["onsets"]
    report = Report(
        f"flowact bench: {result['mode']}, {result['preset']}, {width} x {height}, {result['seconds']:.0f} s"
        + DRAWN[result["draw_every"]]
    )
    add = report.add
    add("fps", "frames a second", number("fps"), least=24.9, digits=2)
    median, p95 = (0.45, 0.65) if result["machine"]["vectors"] == "AVX512" else (0.70, 0.95)
    add("rtf", "real-time factor, median", number("real_time_factor", "median"), most=median)
    add("rtf95", "real-time factor, p95", number("real_time_factor", "p95"), most=p95)
    add("load", "whole steps, memory included ÷ media time, median", number("load"))
    add("core", "processor time a chunk of 480 ms", number("core_ms_per_chunk"), "ms", digits=0)
    add("repeated", "frames repeated", number("repeated_frames"), most=0, digits=0)
    add("dropped", "frames dropped", number("dropped_frames"), most=0, digits=0)
    add(
        "ttff",
        f"first frame of speech that comes at once, p95 of {onsets['fast']}",
        number("ttff_s", "p95"),
        "s",
        most=0.5,
    )
    add(
        "live",
        f"first frame of live speech, p95 of {onsets['live']}",
        number("ttff_live_s", "p95"),
        "s",
        most=0.8,
    )
    add("barge", f"interruption, p95 of {onsets['cut']}", number("barge_in_s", "p95"), "s", most=0.5)
    if "lips_rest_s" in result:
        add(
            "rest",
            "interruption to lips at rest at the page, p95",
            number("lips_rest_s", "p95"),
            "s",
            most=0.5,
            digits=3,
        )
    add("first", "process start to first frame", number("first_frame_s"), "s", most=4.0, digits=1)
    add("rss", "memory of the generator", number("rss_mb"), "MB", most=800, digits=0)
    long = result["seconds"] >= SLOPE_S  # the slope of a shorter run says little
    slope = number("rss_slope_mb_per_hour")
    add("slope", "its rise, second half of the run", slope, "MB/h", most=5.0 if long else None, digits=0)
    if "image_publish_ms" in result:
        add("fill", "Image filled", number("image_fill_ms"), "ms", most=0.3, digits=2)
        add("publish", "Image published", number("image_publish_ms"), "ms", most=2.0, digits=2)
    if "page_skew_ms" in result:
        add(
            "skew",
            "picture against sound at the page, p95",
            number("page_skew_ms", "p95"),
            "ms",
            most=40,
            digits=0,
        )
    report.facts = {
        "medians": f"ttff {number('ttff_s', 'p50'):.3f} s, live {number('ttff_live_s', 'p50'):.3f} s, "
        f"interruption {number('barge_in_s', 'p50'):.3f} s",
        "step_ms": ", ".join(f"{name} {value:.0f}" for name, value in result["step_ms"].items()),
        "utterances_lost": onsets["lost"],
        "weights": f"{result['weights']}, character: {result['character']}",
        "machine": ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
    }
    late, every = number("real_time_factor", "p95") > 1, result["draw_every"]
    if late and every < max(DRAW_EVERY) and result["device"] == "cpu":
        report.facts["advice"] = f"frames come late: --draw-every {2 * every} halves the drawing (docs/tuning.md)"
    for key in ("page", "processes"):
        if key in result:
            report.facts[key] = str(result[key])
    report.show()


def lips_at_rest(kept: list[tuple[int, float, str]], character: str) -> list[float]:
    """Seconds from each interruption to the first picture at the page from which on the lips rest for REST_S.

    kept: (interruption, seconds after it, JPEG file), in order; character: the shipped one that they show. Openings
    are read from the pixels; at rest means within REST_PX lines of what the mouth shows in the last third of the kept
    time. A smile a second later is no speech. A mouth that never moved, or never rests, gives no value.
    """
    import torch

    from flowact_ros.engine.characters import load_character
    from flowact_ros.evaluation import rig_readout
    from flowact_ros.media.image import read_image

    readout, _ = rig_readout.load_readout()
    reference = torch.from_numpy(load_character(character)).permute(2, 0, 1)
    out = []
    for number in sorted({cut for cut, _, _ in kept}):
        rows = [(after, path) for cut, after, path in kept if cut == number]
        after = np.array([a for a, _ in rows])
        if after[-1] < 1.2:
            continue  # the next interruption came too soon
        pictures = torch.stack([torch.from_numpy(read_image(path)).permute(2, 0, 1) for _, path in rows])
        opening = 512 * rig_readout.read(readout, pictures, reference)[:, rig_readout.column("opening")]
        rest = float(np.median(opening[after > 1.0]))
        out += first_rest(after, opening > rest + REST_PX)
    return out


def first_rest(after: np.ndarray, open_: np.ndarray) -> list[float]:
    """The first of the times `[N]` in seconds, after an open mouth, at which one begins to be shut for REST_S; or none.

    open_: bool `[N]`, a picture each
    """
    changes = np.flatnonzero(np.diff(open_.astype(np.int8)))
    for shut in changes[~open_[changes + 1]] + 1:
        opens = np.flatnonzero(open_[shut:])
        until = after[shut + opens[0]] if len(opens) else np.inf
        if until - after[shut] >= REST_S:
            return [float(after[shut])]
    return []
