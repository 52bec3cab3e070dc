# SPDX-License-Identifier: Apache-2.0
"""The live stream's figures from the session alone, in this process, without ROS."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from flowact_ros.engine.runtime import keep_freed_memory, spare_the_collector
from flowact_ros.evaluation.bench_table import result_table
from flowact_ros.evaluation.load import (
    BenchError,
    Driver,
    babble,
    cpu_seconds,
    percentiles,
    process_age,
    progress,
    resident_mb,
    script,
)
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

CHUNK_S = 0.48


def engine_only(args: argparse.Namespace) -> dict[str, Any]:
    """The table's figures from a `Session` in this process; frames are taken as they leave."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
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
    spare_the_collector()
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
    return result_table(
        args,
        driver.times,
        mode="engine only",
        load_before=load_before,
        character=name,
        real_time_factor=(figures.real_time_factor_median, figures.real_time_factor_p95),
        load=figures.load_median,
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
            "engine_ttff_s": percentiles(list(figures.ttff_s)),
            "engine_core_ms_per_chunk": round(figures.core_ms_per_chunk, 1),
        },
    )


def _pipeline(args: argparse.Namespace) -> Any:
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.models.checkpoint import RANDOM

    weights = RANDOM if args.random_weights else args.weights or None
    drawn = {"draw_every": args.draw_every}
    return build_pipeline(args.preset, args.device, weights=weights, runtime=args.runtime, overrides=drawn)


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
