# SPDX-License-Identifier: Apache-2.0
"""`flowact data prepare --cluster`: the same preparation, clip by clip, by workers of a Ray cluster (extra `cluster`).

A worker is a process with the networks loaded once; Ray Data gives it the next clip when it is done with one. It does
what one process does, with the same function, and writes shots into the same folder, which all machines must see under
the same path, as they must the clips. `footage.json` is written here alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from flowact_ros.data.footage import LOCAL, Made, Preparation
from flowact_ros.media.errors import MediaError


@dataclass(frozen=True)
class Cluster:
    """address: of a running Ray cluster ("auto": of this machine's), or `LOCAL`; workers: processes side by side;
    threads: of each.
    """

    address: str
    workers: int
    threads: int


class Worker:
    """One process. make: gives the preparation, with networks of its own."""

    def __init__(self, make: Callable[[], Preparation], threads: int) -> None:
        torch.set_num_threads(threads)
        self.preparation = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """A clip's path -> what was made of it, as JSON, or why nothing was."""
        clip = str(row["clip"])
        try:
            return {"clip": clip, "made": json.dumps(asdict(self.preparation.make(Path(clip)))), "error": ""}
        except MediaError as error:
            return {"clip": clip, "made": "", "error": str(error)}


def made_on(
    cluster: Cluster, clips: Sequence[Path], make: Callable[[], Preparation]
) -> Iterator[tuple[Path, Made | MediaError]]:
    """Each clip with what was made of it, as they are done.

    Raises RuntimeError, one line, for a cluster that does not start or answer, and for a worker that failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray
    import ray.data

    here = cluster.address == LOCAL
    options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False}
    if here:
        # Without an address Ray joins a cluster that runs here, or did.
        options |= {"address": "local", "num_cpus": cluster.workers * cluster.threads, "include_dashboard": False}
    else:
        options |= {"address": cluster.address}
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises its base class for a node that does not start
        raise RuntimeError(f"Ray at {cluster.address} does not answer: {' '.join(str(error).split())}") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # not its execution plans
        rows = ray.data.from_items(
            [{"clip": str(clip.resolve())} for clip in clips], override_num_blocks=len(clips)
        )  # a clip a block: each is told when it is done
        done = rows.map(
            Worker, fn_constructor_args=(make, cluster.threads), num_cpus=cluster.threads,
            compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(clips))),
        )  # fmt: skip
        for row in done.iter_rows():
            found = MediaError(row["error"]) if row["error"] else Made(**json.loads(row["made"]))
            yield Path(row["clip"]), found
    except ray.exceptions.RayError as error:
        raise RuntimeError(str(error).strip().splitlines()[-1]) from None
    finally:
        ray.shutdown()
