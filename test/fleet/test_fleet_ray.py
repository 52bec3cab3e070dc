# SPDX-License-Identifier: Apache-2.0
"""`flowact serve` as a user starts it, on Ray: a replica is killed, one is added for a stream, a cluster is joined."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="the extra fleet is not installed")

from fleet_server import free_port  # noqa: E402

from flowact_ros.fleet.arrival import RemoteFrame  # noqa: E402
from flowact_ros.fleet.client import RemoteSession  # noqa: E402

START_S = 240.0
FRAME_S = 120.0  # for a frame of a robot that is connected

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def fleet(tmp_path: Path, *arguments: str) -> Iterator[str]:
    """Its address, once it runs; ended as a supervisor ends it."""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "flowact_ros.cli", "serve", "--preset", "debug", "--port", str(port)]
    with log.open("wb") as out:
        serve = subprocess.Popen(
            [*command, "--cpus", "0.5", *arguments], stdout=out, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    try:
        began = time.monotonic()
        while b"replicas of debug" not in log.read_bytes():
            assert serve.poll() is None, log.read_text()
            assert time.monotonic() - began < START_S, log.read_text()
            time.sleep(0.2)
        yield f"ws://127.0.0.1:{port}"
    finally:
        serve.send_signal(signal.SIGTERM)
        status = serve.wait(180.0)
    assert status == 0, log.read_text()


def test_a_replica_is_killed_and_its_streams_move(tmp_path: Path) -> None:
    with fleet(tmp_path, "--streams", "2") as url:
        robots = [RemoteSession(url, character=name) for name in ("mia", "nova")]
        frames = [follow(robot) for robot in robots]
        for each in frames:
            each.get(timeout=FRAME_S)
        began = time.monotonic()
        while not all(robot._memory for robot in robots):  # that another server goes on with
            assert time.monotonic() - began < FRAME_S
            time.sleep(0.05)
        dead = robots[0].server
        there = [robot for robot in robots if robot.server == dead]  # one robot, or both
        os.kill(int(dead.rpartition(":")[2]), signal.SIGKILL)
        killed = time.monotonic()
        for robot in there:
            arrived = frames[robots.index(robot)]
            while True:
                at, moves, frame = arrived.get(timeout=FRAME_S)
                if moves:
                    break
            print(f"frames went on after {at - killed:.2f} s")  # what it takes is for a benchmark to say
            assert robot.server != dead and frame.index > 0
        for robot in robots:
            robot.close()


def test_a_replica_is_added_for_a_stream_that_does_not_fit(tmp_path: Path) -> None:
    """One is there, and takes one robot; the second robot's is started when it is needed, and is another process."""
    with fleet(tmp_path, "--replicas", "1", "--max-replicas", "2", "--streams", "1") as url:
        first = RemoteSession(url, character="mia")
        frames = follow(first)
        frames.get(timeout=FRAME_S)
        second = RemoteSession(url, character="nova")
        follow(second).get(timeout=START_S)
        assert second.server and second.server != first.server
        assert frames.get(timeout=FRAME_S)[1] == 0  # the first one has not moved
        first.close()
        second.close()


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_cluster_is_joined_and_left_as_it_was(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it asks for the token that Ray has made for its user, or for none."""
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    port = free_port()
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    start += ["--include-dashboard=false", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    log = tmp_path / "cluster"
    with log.open("wb") as out:
        cluster = subprocess.Popen(
            [*ray, *start], stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "RAY_AUTH_MODE": mode, "RAY_worker_niceness": "0"},
        )  # fmt: skip
    try:
        began = time.monotonic()
        while b"--block" not in log.read_bytes():  # it says that it stays, once all of it runs
            assert cluster.poll() is None, log.read_text()
            assert time.monotonic() - began < START_S, log.read_text()
            time.sleep(0.2)
        with fleet(tmp_path, "--cluster", f"127.0.0.1:{port}", "--replicas", "1") as url:
            robot = RemoteSession(url, character="mia")
            follow(robot).get(timeout=FRAME_S)
            robot.close()
        assert cluster.poll() is None, log.read_text()
    finally:
        os.killpg(cluster.pid, signal.SIGTERM)
        try:
            cluster.wait(30.0)
        except subprocess.TimeoutExpired:
            os.killpg(cluster.pid, signal.SIGKILL)
            cluster.wait()


def follow(robot: RemoteSession) -> queue.Queue[tuple[float, int, RemoteFrame]]:
    """Takes its frames in a thread: when each came, how often the stream had moved by then, and the frame."""
    arrived: queue.Queue[tuple[float, int, RemoteFrame]] = queue.Queue()

    def take() -> None:
        for frame in robot.frames():
            arrived.put((time.monotonic(), robot.moves, frame))

    threading.Thread(target=take, daemon=True).start()
    return arrived
