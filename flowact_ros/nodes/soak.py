# SPDX-License-Identifier: Apache-2.0
"""Runs all nodes for long, speaks through them, makes faults and watches: the far side of `flowact soak`.

A program of its own, as nodes/benchmark.py: an order on stdin, `{"done": 0..1}` and at the end what was seen on stdout.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

from flowact_ros.evaluation.load import resident_mb
from flowact_ros.evaluation.soak_plan import BY_NAME, SETTLE_S
from flowact_ros.kiosk.listener import listen
from flowact_ros.launcher.environment import log_folder
from flowact_ros.launcher.log_file import file_log
from flowact_ros.launcher.supervisor import Supervisor, SupervisorError
from flowact_ros.nodes.benchmark import FIRST_S, NAMESPACE, START_S, specs, speech, spin
from flowact_ros.nodes.benchmark_program import run_order, tell
from flowact_ros.nodes.soak_faults import MAKERS, Scene
from flowact_ros.nodes.soak_watch import Pages, Speaker, Watch

SAMPLE_S = 2.0  # between two looks at the memory of the processes
STEP_S = 0.5


def measure(order: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    """Starts the nodes, speaks, makes the faults of the order, returns what was seen. Raises SupervisorError."""
    pcm = speech("")
    rclpy.init(args=[])
    node = rclpy.create_node("flowact_soak", namespace=NAMESPACE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    watch = Watch(node)
    spinning = threading.Thread(target=spin, args=(executor,), daemon=True)
    spinning.start()
    log = Log()
    supervisor = Supervisor(_specs(order), environment=environ, log=log)
    pages: Pages | None = None
    speaker: Speaker | None = None
    try:
        supervisor.start()
        supervisor.wait_active(START_S)
        if not watch.first.wait(FIRST_S):
            raise SupervisorError(f"no frame came within {FIRST_S:.0f} s; see {log.path}")
        pages = Pages(str(supervisor.fact("kiosk_bridge", "url")))
        speaker = Speaker(watch, pcm)
        return _run(order, Scene(supervisor, watch, pages, speaker, environ), log)
    finally:
        if speaker is not None:
            speaker.end()
        if pages is not None:
            pages.end()
        supervisor.stop()
        log.close()
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
        spinning.join(2.0)


def _specs(order: dict[str, Any]) -> list[Any]:
    """Those of the benchmark; the page's port stays the same when its node is started again, as on a robot."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    return [
        replace(spec, parameters={**spec.parameters, "port": port}) if spec.name == "kiosk_bridge" else spec
        for spec in specs(order)
    ]


class Log:
    """The nodes' log in a file, and how many warnings and errors a node said since."""

    def __init__(self) -> None:
        self.path = log_folder(os.environ) / f"flowact-soak-{time.strftime('%Y%m%d-%H%M%S')}.log"
        self._write, self._file = file_log(self.path, None)
        self._notable: list[tuple[float, str]] = []

    def __call__(self, line: str) -> None:
        self._write(line)
        if "[WARN]" in line or "[ERROR]" in line:
            self._notable.append((time.monotonic(), line.partition("|")[0].strip()))

    def lines(self, node: str, since: float) -> int:
        return sum(at >= since and name == node for at, name in self._notable)

    def close(self) -> None:
        self._file.close()


def _run(order: dict[str, Any], scene: Scene, log: Log) -> dict[str, Any]:
    began = time.monotonic()
    end = began + order["seconds"]
    memory: dict[str, list[tuple[float, int, float]]] = {name: [] for name in scene.names}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            for name in scene.names:
                pid = scene.supervisor.pid(name)
                if pid is not None:
                    memory[name].append((time.monotonic() - began, pid, resident_mb(pid)))

    sampler = threading.Thread(target=sample, name="memory", daemon=True)
    sampler.start()
    made: list[dict[str, Any]] = []

    def wait(until: float) -> None:
        while (now := time.monotonic()) < until:
            time.sleep(min(STEP_S, until - now))
            scene.check()
            tell({"done": min(1.0, (now - began) / order["seconds"])})

    for fault in order["faults"]:
        at = max(began + fault["at_s"], time.monotonic())
        if at + BY_NAME[fault["kind"]].lasts_s > end:
            break  # what came before took longer than planned
        wait(at)
        made.append(_make(fault["kind"], scene, log, wait, began))
    wait(end)
    ended.set()
    sampler.join(SAMPLE_S + 1.0)
    watch = scene.watch
    return {
        "seconds": time.monotonic() - began,
        "frames": [(t - began, index) for t, index in list(watch.frames) if t >= began],
        "faults": made,
        "memory": memory,
        "repeated": watch.repeated,
        "underruns": watch.underruns,
        "skew_s": watch.skew_s,
        "sentences": len(scene.speaker.said),
        "sentences_heard": sum(name in watch.heard for name in scene.speaker.said),
        "log": str(log.path),
    }


def _make(name: str, scene: Scene, log: Log, wait: Any, began: float) -> dict[str, Any]:
    """One fault, and what came of it; returns once things have settled."""
    kind = BY_NAME[name]
    before = {node: scene.supervisor.restarts(node) for node in scene.names}
    at = time.monotonic()
    made = MAKERS[name](scene)
    until = time.monotonic()
    wait(until + SETTLE_S)
    after = {node: scene.supervisor.restarts(node) for node in scene.names}
    own = kind.target if kind.restarts else ""
    return {
        "kind": name,
        "at": (made.at or at) - began,
        "until": until - began,
        "recovered_s": made.recovered_s,
        "restarted": [node for node in scene.names if node != own and after[node] > before[node]],
        "lines": log.lines("avatar_generator", at),
        "skew_s": scene.watch.skew_s,
    }


def main() -> int:
    return run_order(measure)


if __name__ == "__main__":
    sys.exit(main())
