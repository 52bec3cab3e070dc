# SPDX-License-Identifier: Apache-2.0
"""The program of every rank but the first, started by `ranks.Ranks`.

python -m flowact_ros.engine.parallel.rank '{"rank": 1, …}'
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys

import torch

from flowact_ros.engine.interfaces import EngineError
from flowact_ros.engine.parallel.decoder import decode
from flowact_ros.engine.parallel.ranks import Layout, join_as
from flowact_ros.engine.parallel.split import follow
from flowact_ros.engine.pipeline import build_pipeline


def main(told: str) -> int:
    """0 when rank 0 had it end; 1, with one line, when another rank is gone; 2 when its networks cannot be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; rank 0 says when this one is to end
    values = json.loads(told)
    rank, layout = values["rank"], Layout(tuple(values["devices"]), values["decoder"])
    try:
        pipeline = build_pipeline(device=layout.device(rank), **values["arguments"])
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        print(f"flowact: rank {rank}, on {layout.device(rank)}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    denoises = rank < len(layout.devices)
    model = pipeline.denoiser
    if not denoises:
        del pipeline.denoiser, pipeline.order, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    try:
        denoiser, decoder = join_as(layout, rank, values["port"], values["timeout_s"])
        if denoiser is not None:
            follow(model, denoiser)
        if decoder is not None:
            decode(pipeline, decoder, rank)
    except (EngineError, ConnectionError, RuntimeError) as error:
        print(f"flowact: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # torch.distributed's threads may wait for ranks that are gone
