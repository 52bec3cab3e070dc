# SPDX-License-Identifier: Apache-2.0
"""`flowact serve`: a fleet of avatars for robots without a GPU, on Ray Serve.

flowact serve                                               # two replicas on this machine's processor, loopback only
flowact serve --device cuda --replicas 1 --max-replicas 4 --streams 8 --batch 8 --host 0.0.0.0
flowact serve --cluster auto                                # on a Ray cluster that runs already (ray start)

A robot connects with `python -m flowact_ros.nodes.remote_avatar --ros-args -p url:=ws://HOST:8630`, and has the topics
of the avatar. Beyond the loopback interface robots need the token that is printed, in FLOWACT_FLEET_TOKEN.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from typing import Any

from flowact_ros.fleet.access import choose_token
from flowact_ros.fleet.cluster import AUTO, check_cluster, prepare_to_join
from flowact_ros.fleet.wire import TOKEN_VARIABLE

PORT = 8630


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="flowact serve", description=__doc__, formatter_class=raw)
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda: each replica has a share of it (default: cpu)")
    parser.add_argument("--weights", default="", metavar="DIR", help="of the networks (default: the shipped ones)")
    parser.add_argument("--precision", default="auto", help="of the denoiser (default: auto)")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="robots a replica takes (default: 1)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="of them computed together (default: 1)")
    parser.add_argument("--replicas", type=int, default=2, metavar="N", help="that are always there (default: 2)")
    parser.add_argument("--max-replicas", type=int, default=0, metavar="N", help="when robots need more of them")
    parser.add_argument("--cpus", type=float, default=1.0, metavar="N", help="processors of a replica (default: 1)")
    parser.add_argument("--gpus", type=float, metavar="N", help="of a replica (default: 1 with --device cuda)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help=f"(default: {PORT})")
    there = f"join the Ray cluster at HOST:PORT instead of starting Ray; {AUTO}: the one of this machine"
    parser.add_argument("--cluster", metavar="ADDRESS", help=there)
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 ended by a signal, 1 failed, 2 a command line that cannot be carried out."""
    options = _parser().parse_args(argv)
    try:
        token = _check(options)
    except ValueError as error:
        print(f"flowact serve: {error}", file=sys.stderr)
        return 2
    ended = threading.Event()
    _end_by_signals(ended)
    what = f"joins the cluster at {options.cluster}, starts" if options.cluster else "starts Ray and"
    print(f"flowact serve: {what} {options.replicas} replicas; that takes a while", file=sys.stderr, flush=True)
    try:
        up(options, token)
    except Exception as error:  # Ray's are of many classes
        print(f"flowact serve: {' '.join(str(error).split())[:600]}", file=sys.stderr)
        down(joined=bool(options.cluster))
        return 1
    _end_by_signals(ended)  # once more: Ray has put handlers of its own in their place, which abort
    print(f"ws://{options.host}:{options.port}: {options.replicas} replicas of {options.preset}", flush=True)
    if token:
        print(f"robots need {TOKEN_VARIABLE}={token}", flush=True)
    ended.wait()
    down(joined=bool(options.cluster))
    return 0


def _end_by_signals(ended: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())


def _check(options: argparse.Namespace) -> str:
    """The token of the fleet, "" where none is needed. Raises ValueError."""
    for name, least in (("streams", 1), ("replicas", 1), ("max_replicas", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name.replace('_', '-')}: {getattr(options, name)} is less than {least}")
    if options.max_replicas and options.max_replicas < options.replicas:
        raise ValueError(f"--max-replicas {options.max_replicas} is less than --replicas {options.replicas}")
    if not 1 <= options.port <= 65_535:
        raise ValueError(f"--port: {options.port} is not 1 … 65535")
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("fastapi") is None:
        raise ValueError("Ray Serve is not installed: scripts/setup --extras fleet, or pip install 'ray[serve]'")
    if options.cluster:
        check_cluster(options.cluster)
    from flowact_ros.models.config import ConfigError, preset
    from flowact_ros.models.precision import automatic, check_device, check_precision

    try:
        preset(options.preset)
    except ConfigError as error:
        raise ValueError(f"--preset: {error}") from None
    if not options.cluster:
        check_device(options.device)
        check_precision(options.precision, options.device)
    if options.batch != 1:
        from flowact_ros.engine.streams.batched import check_batch

        check_batch(options.batch, automatic(options.device) if options.precision == "auto" else options.precision)
    return choose_token(options.host)


def up(options: argparse.Namespace, token: str) -> None:
    """Starts Ray, unless a cluster is named, and the deployment; robots may connect then. Raises Ray's errors."""
    if options.cluster:
        prepare_to_join()
    import ray
    from ray import serve

    from flowact_ros.fleet.deployment import APPLICATION, Settings, application

    # Ray has its workers stand back for everything else on the machine (nice 15); these have frames to make in time.
    os.environ.setdefault("RAY_worker_niceness", "0")
    gpus = options.gpus if options.gpus is not None else float(options.device.startswith("cuda"))
    settings = Settings(
        preset=options.preset, device=options.device, weights=options.weights, precision=options.precision,
        streams=options.streams, batch=options.batch, cpus=options.cpus, gpus=gpus, token=token,
    )  # fmt: skip
    ray.init(**_place(options))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": options.host, "port": options.port})
    most = options.max_replicas or options.replicas
    serve.run(application(settings, options.replicas, most), name=APPLICATION, route_prefix="/")


def _place(options: argparse.Namespace) -> dict[str, Any]:
    """Of `ray.init`: a cluster, or this machine by itself. Ray's own ports ask for its token, which it makes itself."""
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if options.cluster:
        return told | {"address": options.cluster}
    # Replicas mostly wait for each other's steps on a small machine: Ray is not to refuse what the owner asks for.
    most = max(options.replicas, options.max_replicas)
    enough = max(os.cpu_count() or 1, round(most * options.cpus + 0.5))
    here = {"num_cpus": enough, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return told | here | {"address": "local"}  # without one Ray joins a cluster that runs here, or did


def down(*, joined: bool) -> None:
    """Ends what `up` started. joined: a cluster that was there, which stays, as do other applications of its Serve."""
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    if not ray.is_initialized():
        return
    others = False
    if joined:
        from flowact_ros.fleet.deployment import APPLICATION

        with contextlib.suppress(RayServeException):  # it had not started
            serve.delete(APPLICATION)
            others = bool(serve.status().applications)
    if not others:
        serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
