# SPDX-License-Identifier: Apache-2.0
"""How many live streams the device keeps up with when all of them are computed in one batch, and by how much."""

from __future__ import annotations

from typing import Any

import torch

from flowact_ros.engine.streams.batched import LARGEST, batched, check_batch
from flowact_ros.engine.streams.budget import Trial
from flowact_ros.evaluation.bench_networks.parts import Setting, free, memory_gb
from flowact_ros.evaluation.bench_networks.stream import Stream
from flowact_ros.evaluation.bench_streams import WARM_TURNS, Turns, row

TURNS = 12  # timed; 2 where no time is given


def streams(setting: Setting, counts: tuple[int, ...]) -> dict[str, Any]:
    """Turns of `counts` streams, as `flowact bench streams` makes them, in batches of that size, until they do not fit.

    at_25_fps: the largest number that does; a tenth of the time is left for steps that are made again
    """
    free(setting.device)
    stream = setting.stream(setting.precision, {})
    curve: list[dict[str, Any]] = []
    for count in (n for n in counts if n <= LARGEST):
        try:
            check_batch(count, stream.pipeline.provenance.precision)
        except ValueError as reason:
            curve.append({"streams": count, "not_measured": str(reason)})
            break
        try:
            curve.append({**_turns(setting, stream, count), "memory_gb": memory_gb(setting.device)})
        except torch.OutOfMemoryError:
            curve.append({"streams": count, "not_measured": "out of memory"})
            break
        if not curve[-1]["fits"]:
            break
    fitting = [each["streams"] for each in curve if each.get("fits")]
    return {"at_25_fps": max(fitting, default=0), "curve": curve}


def _turns(setting: Setting, stream: Stream, count: int) -> dict[str, Any]:
    pipeline = batched(stream.pipeline, count)
    trials = [Trial(pipeline, stream.reference, seed) for seed in range(count)]
    timed = TURNS if setting.clock.seconds > 0 else 2
    with Turns(1, count) as turns:
        for _ in range(WARM_TURNS):
            turns(trials)
        return row(count, [turns(trials) for _ in range(timed)])
