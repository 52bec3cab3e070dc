# SPDX-License-Identifier: Apache-2.0
"""Several processes train like one: the same loss and weights, shards that are resumed, a file that is exported."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from motions import performances

from flowact_ros.models.config import debug
from flowact_ros.training.export import export_denoiser
from flowact_ros.training.main import main as train
from flowact_ros.training.state_files import load
from flowact_ros.training.trainer import Trainer, TrainerConfig
from flowact_ros.training.world import World

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo, over which processes on CPUs talk",
)


def options(data: Path, run: Path, steps: int) -> list[str]:
    own = ["--self-forcing", "0.5", "--self-forcing-refresh", "5", "--self-forcing-clips", "2"]
    places = ["--data", str(data), "--heldout", str(data), "--run", str(run)]
    plain = ["--preset", "debug", "--no-bf16", "--batch", "2", "--warmup", "0", "--optimizer", "adamw"]
    return ["motion", *plain, *places, *own, "--steps", str(steps)]


def together(data: Path, run: Path, steps: int) -> list[str]:
    """Two processes with the environment that torchrun gives; returns what they wrote to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, "-m", "flowact_ros.training.main", *options(data, run, steps)]
    processes = [
        subprocess.Popen(
            command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    try:
        return [process.communicate()[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


def loss(run: Path) -> float:
    with (run / "log.csv").open(encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["loss"])


@pytest.mark.slow
def test_two_processes_train_like_one_and_go_on_from_their_shards(tmp_path: Path) -> None:
    data = performances(tmp_path / "data")
    one, two = tmp_path / "one", tmp_path / "two"
    for steps in (10, 12):
        assert train([*options(data, one, steps), "--accumulate", "2"]) == 0
        told = together(data, two, steps)
        states = [torch.load(run / "state.pt", weights_only=True) for run in (one, two)]
        assert [state["iteration"] for state in states] == [steps, steps], told
        for name, value in states[0]["ema"].items():
            torch.testing.assert_close(states[1]["ema"][name], value, rtol=1e-4, atol=1e-5)
        assert states[1]["method"]["generation"] == (steps - 1) // 5
    assert loss(two) == pytest.approx(loss(one), rel=1e-5)
    assert [path.name for path in two.glob("shards-*")] == ["shards-12"]
    assert export_denoiser(debug(), two, tmp_path / "out").is_file()
    assert train(options(data, two, 14)) == 0  # shards know no number of processes


def test_what_several_processes_cannot_do_is_told_in_a_line(tmp_path: Path) -> None:
    config = TrainerConfig(run=tmp_path / "run", steps=1, learning_rate=1e-3, optimizer="muon")
    with pytest.raises(ValueError, match="--optimizer is muon; several processes train with adamw"):
        Trainer(None, config, World(0, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="was trained by one process; go on with one"):
        load(tmp_path, {"module": {}, "optimizer": None}, {}, World(0, 2))
    with pytest.raises(ValueError, match="shards-3 is no distributed checkpoint"):
        load(tmp_path, {"shards": "shards-3"}, {}, World())
