# SPDX-License-Identifier: Apache-2.0
"""The self-forcing variant: whose memory is the model's own, when it is made anew, and that a run can be resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from motions import performances
from torch import Tensor

from flowact_ros.models.codec.motion import normalise
from flowact_ros.models.config import debug
from flowact_ros.training.main import main as train
from flowact_ros.training.stages.adaptation import Adaptation
from flowact_ros.training.stages.self_forcing import SelfForcing
from flowact_ros.training.trainer import Trainer, TrainerConfig


def stage(folder: Path, **options: object) -> Adaptation:
    torch.manual_seed(0)
    variant = SelfForcing(**{"share": 0.5, "refresh": 2, "clips": 2, **options})  # type: ignore[arg-type]
    return Adaptation(debug(), [folder], folder, batch=8, windows=2, self_forcing=variant)


def trained(folder: Path, run: Path, *stops: int) -> dict:
    for stop in stops:
        config = TrainerConfig(
            run=run, steps=stop, learning_rate=5e-3, warmup=0, floor=1.0, optimizer="adamw", bf16=False,
            sheet_every=10**9,
        )  # fmt: skip
        Trainer(stage(folder), config).run()
    return torch.load(run / "state.pt", weights_only=True)


def drawn(method: Adaptation, seed: int) -> object:
    return method.batch(torch.Generator().manual_seed(seed), 0)


def test_without_a_share_batches_are_what_they_were(tmp_path: Path) -> None:
    data = performances(tmp_path / "data")
    off, early = stage(data, share=0.0), stage(data)  # nothing was generated yet
    assert early.due(2) and not off.due(2)
    for seed in range(5):
        a, b = drawn(off, seed), drawn(early, seed)
        assert torch.equal(a.motion, b.motion) and torch.equal(a.disturbance, b.disturbance)
    assert len(off.generated.clips) == 0


def test_a_share_of_the_rows_remembers_what_the_model_made(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"))
    generated = method.generated
    generated.clips, generated.errors = np.array([1, 3]), torch.full((2, 150, 40), 100.0)
    batches = [drawn(method, seed) for seed in range(30)]
    own = torch.cat([(b.disturbance > 50).flatten(1).float().mean(1) for b in batches])
    assert set(own.tolist()) == {0.0, 1.0}  # all of a row's memory or none
    assert float(own.mean()) == pytest.approx(0.5, abs=0.1)
    assert all(float(b.motion.abs().max()) < 50 for b in batches)  # what is to be predicted stays the truth


def test_what_is_made_lies_between_truth_and_the_model(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"), noise=0.05, steps=1)
    generated = method.generated
    with torch.no_grad():
        generated.make(method.module, 2, torch.Generator().manual_seed(0))  # which predicts zero everywhere
    truth = generated.errors[:, 1:145]
    assert len(generated.clips) == 2 and generated.generation == 1 and not generated.due(3)
    assert torch.equal(generated.errors[:, 0], torch.zeros(2, 40))
    assert torch.equal(generated.errors[:, 145:], torch.zeros(2, 5, 40))  # no whole chunk
    true = normalise(torch.from_numpy(method.data.data.controls[generated.clips].astype(np.float32)))
    torch.testing.assert_close(truth, -true[:, 1:145], atol=1e-5, rtol=1e-5)


def test_it_is_made_anew_and_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    data = performances(tmp_path / "data")
    whole, cut = trained(data, tmp_path / "whole", 5), trained(data, tmp_path / "cut", 3, 5)
    assert whole["method"]["generation"] == 2 and float(whole["method"]["errors"].abs().max()) > 0

    def tensors(state: dict) -> list[Tensor]:
        return [*state["module"].values(), *state["ema"].values(), state["method"]["errors"]]

    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(cut)))
    plain = trained(data, tmp_path / "one", 2)
    assert plain["method"]["generation"] == 0  # the first steps see the truth


def test_options_are_checked_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(performances(tmp_path / "data"))
    run = tmp_path / "run"
    options = ["motion", "--preset", "debug", "--run", str(run), "--data", data, "--heldout", data]
    for option, value, says in (
        ("", "1.5", "--self-forcing is 1.5; it must lie in 0.0 .. 1.0"),
        ("-noise", "0", "--self-forcing-noise is 0.0; it must lie in 0.05 .. 1.0"),
        ("-steps", "0", "--self-forcing-steps is 0; it must lie in 1 .. 50"),
        ("-refresh", "0", "--self-forcing-refresh is 0; it must lie in 1 .. 1000000"),
        ("-clips", "0", "--self-forcing-clips is 0; it must lie in 1 .. 100000"),
    ):
        assert train([*options, f"--self-forcing{option}", value]) == 2
        assert says in capsys.readouterr().err
    more = ["--self-forcing", "0.5", "--self-forcing-refresh", "1", "--steps", "2", "--batch", "2"]
    assert train([*options, *more]) == 0
    about = torch.load(run / "state.pt", weights_only=True)["slices"][0]["self_forcing"]
    assert about == {"share": 0.5, "noise": 0.3, "steps": 2, "refresh": 1, "clips": 64}
