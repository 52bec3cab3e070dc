# SPDX-License-Identifier: Apache-2.0
"""One model for all generators of a process: its weights are loaded once, its time is shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowact_ros.nodes.generator_params import PARAMETERS
from flowact_ros.nodes.generator_pipeline import build
from flowact_ros.nodes.params import Param, ParameterError, Params

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Reference
    from flowact_ros.engine.session_config import SessionConfig
    from flowact_ros.engine.streams.host import Streams

CORES_A_WORKER = 2  # a step's networks and its renderer run beside each other
GPU_BATCH = 8  # steps that are computed together on a GPU, unless somebody chooses

SHARED_PARAMETERS = (
    Param(
        "batch",
        0,
        "Steps of several streams that are computed together; 1: each by itself; 0: 8 on a GPU, else 1",
        range=(0, 64),
    ),
    Param("workers", 0, "Threads that make steps; 0: one a GPU, or one for each pair of CPU cores", range=(0, 64)),
    Param("max_streams", 0, "Most streams that are let in; 0: as many as fit by what was measured", range=(0, 256)),
)
#: What makes the model: the same for all that share one.
MODEL_PARAMETERS = tuple(
    param.name
    for param in (*PARAMETERS, *SHARED_PARAMETERS)
    if param.name
    in (
        *("preset", "device", "weights_dir", "schedule", "runtime", "precision", "threads", "audio_backend"),
        *("audio_path", "text_backend", "text_path", "engine_config", "batch", "workers", "max_streams"),
        *("devices", "decoder_device", "draw_every"),
    )
)


class Lease:
    """A model that is used: the stream's settings, and the device on which steps are made."""

    def __init__(self, made_for: dict[str, object], config: SessionConfig, streams: Streams) -> None:
        self.made_for, self.config, self.streams = made_for, config, streams
        self.users = 0


class SharedModel:
    """Made for the first generator that takes it, freed when the last one has given it back. Thread-safe."""

    def __init__(self, free: Callable[[], None]) -> None:
        """free: called when a model was forgotten"""
        self._free = free
        self._lock = threading.RLock()
        self._current: Lease | None = None

    def take(self, params: Params, tell: Callable[[str], None]) -> Lease:
        """To be given back. Raises ParameterError where `params` ask for another model than the one that is used, and
        what `generator_pipeline.build` raises.
        """
        wanted = {name: params[name] for name in MODEL_PARAMETERS}
        with self._lock:
            if self._current is None:
                self._current = Lease(wanted, *make(params, tell))
            for name, value in wanted.items():
                if value != self._current.made_for[name]:
                    raise ParameterError(
                        f"parameter {name}: {value!r} is not {self._current.made_for[name]!r}, with which the other "
                        f"avatars of this process share their model; give all the same, or start this one by itself"
                    )
            self._current.users += 1
            return self._current

    def measure(self, lease: Lease, reference: Reference, tell: Callable[[str], None]) -> None:
        """What a step costs, once, before the first stream."""
        budget = lease.streams.budget
        with self._lock:
            if not budget.known:
                lease.streams.measure(reference)
                tell(f"one model for all avatars of this process: {budget.fits} fit, by the time of their steps")

    def give_back(self, lease: Lease) -> None:
        """By one that took it; its session is closed."""
        with self._lock:
            lease.users -= 1
            if lease.users == 0:
                lease.streams.close()
                self.abandon(lease)
                self._free()

    def abandon(self, lease: Lease) -> None:
        """Whoever takes a model from now on gets another one: this one's device is lost."""
        with self._lock:
            if self._current is lease:
                self._current = None


def make(params: Params, tell: Callable[[str], None]) -> tuple[SessionConfig, Streams]:
    """The stream's settings, and a device with the networks. Raises what `generator_pipeline.build` raises."""
    import torch

    from flowact_ros.engine.streams.batched import batched
    from flowact_ros.engine.streams.host import Streams

    device = params["device"]
    on_cpu = torch.device(device).type == "cpu"
    across = params["devices"] or params["decoder_device"]  # networks of several processes have no batches
    if across and params["batch"] > 1:
        raise ParameterError(f"parameter batch: {params['batch']} does not go with devices or decoder_device; use 1")
    batch = params["batch"] or (1 if on_cpu or across else GPU_BATCH)
    cores = len(os.sched_getaffinity(0))
    workers = params["workers"] or (max(1, cores // CORES_A_WORKER) if on_cpu else 1)
    torch.set_num_threads(params["threads"] or 1)
    config, pipeline = build(params)
    pipeline.runtime.beside = workers
    if batch == 1:
        pipeline.prepare(tell)
    else:
        pipeline = batched(pipeline, batch, tell)
        pipeline.prepare_codec()
    return config, Streams(pipeline, batch=batch, workers=workers, limit=params["max_streams"], name=device)
