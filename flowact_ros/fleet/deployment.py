# SPDX-License-Identifier: Apache-2.0
"""The fleet on Ray Serve: every replica is a process with one set of networks and a stream a robot.

Ray places replicas on processors and GPUs, routes robots to those with room, adds replicas when streams need them,
asks each for its health and replaces the ones that are not well. A stream's own state travels with its robot
(`client`), so nothing has to be moved between replicas.

Annotations are no strings here: FastAPI reads those of methods after Ray has packed the class, and would not know them.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any

# The robots are our own; a server that tells others about itself is not (docs/security.md).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from fastapi import FastAPI, WebSocket  # noqa: E402
from ray import serve  # noqa: E402

from flowact_ros.fleet.replica import Replica  # noqa: E402
from flowact_ros.fleet.wire import PATH  # noqa: E402

APPLICATION = "flowact"
HEALTH_S = 2.0  # how often a replica is asked
HEALTH_TIMEOUT_S = 10.0  # a busy processor answers late; a stuck engine says so itself
DRAIN_S = 5.0  # for a replica that is taken away: its robots move on by themselves

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@dataclass(frozen=True)
class Settings:
    """Of every replica. weights: a folder, "" for the shipped ones, or random; streams: at once; batch: of them that
    are computed together; cpus, gpus: of Ray's resources."""

    preset: str = "avatar_cpu"
    device: str = "cpu"
    weights: str = ""
    precision: str = "auto"
    streams: int = 1
    batch: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    token: str = ""
    jpeg_quality: int = 85


@serve.deployment
@serve.ingress(app)
class Avatars:
    """One replica."""

    def __init__(self, settings: dict[str, Any]) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from flowact_ros.engine.characters import list_characters, load_character
        from flowact_ros.engine.pipeline import build_pipeline
        from flowact_ros.engine.references import load_reference
        from flowact_ros.engine.streams.batched import batched

        told = Settings(**settings)
        pipeline = build_pipeline(
            told.preset, told.device, weights=told.weights or None, precision=told.precision
        )
        pipeline = batched(pipeline, told.batch)
        pipeline.prepare()
        first = list_characters()[0]
        reference = load_reference(pipeline, load_character(first), first)
        self.replica = Replica(
            pipeline, most=told.streams, batch=told.batch, token=told.token,
            jpeg_quality=told.jpeg_quality, reference=reference,
        )  # fmt: skip

    @app.websocket(PATH)
    async def stream(self, socket: WebSocket) -> None:
        await self.replica.handle(socket)

    @app.get("/healthz")
    async def healthz(self) -> dict[str, Any]:
        """Of one replica, whichever answers: its process and how many robots it has."""
        return {"pid": os.getpid(), "streams": self.replica.load}

    def check_health(self) -> None:
        """Asked by Ray; a replica that raises is replaced."""
        self.replica.check()


def application(settings: Settings, replicas: int, most: int) -> serve.Application:
    """replicas: that are always there; most: as many as there may be when streams need them."""
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if most > replicas:
        # One more as soon as nine tenths of the places are taken; one less after minutes in which they were not.
        scaling = {
            "autoscaling_config": {
                "min_replicas": replicas, "max_replicas": most, "target_ongoing_requests": 0.9 * settings.streams,
                "upscale_delay_s": 1.0, "downscale_delay_s": 300.0,
            }
        }  # fmt: skip
    return Avatars.options(
        max_ongoing_requests=settings.streams,
        max_queued_requests=settings.streams,  # robots that wait for a replica; the others hear at once that it is full
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=1.0,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        **scaling,
    ).bind(asdict(settings))
