# SPDX-License-Identifier: Apache-2.0
"""The denoiser's stages on latents of pictures: the same stage, batches and memory as on motion, and real steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_latents import SET, latents, small
from motions import performances

from flowact_ros.models.checkpoint import load_weights
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.training.main import main as train
from flowact_ros.training.stages.adaptation import Adaptation
from flowact_ros.training.stages.self_forcing import SelfForcing
from flowact_ros.training.trainer import Trainer, TrainerConfig


def stage(folder: Path, **options: object) -> Adaptation:
    torch.manual_seed(0)
    return Adaptation(small(), [folder], folder, batch=2, windows=2, **options)  # type: ignore[arg-type]


def test_batches_are_latents_under_the_still_before_them(tmp_path: Path) -> None:
    method = stage(latents(tmp_path / "data"))
    data = method.data.data
    assert len(data) == 3 and method.data.pace.shape == (32,)
    assert float(method.data.pace[0]) > 5 * float(method.data.pace[1])  # the channel that follows the sound
    kinds = set()
    for seed in range(12):
        batch = method.batch(torch.Generator().manual_seed(seed), 0)
        count = sum(batch.sizes)
        assert batch.motion.shape == (2, count, 16, 32) and batch.reference.shape == (2, 16, 32)
        assert batch.condition.audio.shape == (2, count, 4, 384) and batch.condition.text.shape == (2, count, 1, 384)
        for row in range(2):
            found = (torch.from_numpy(data.latents).float() == batch.motion[row, 0]).all(-1).all(-1).nonzero()
            (clip, at) = found[0].tolist()
            assert torch.equal(batch.motion[row], torch.from_numpy(data.latents[clip, at : at + count]).float())
            reference = batch.reference[row].half().numpy()
            if batch.history == 0:  # a stream begins where its picture is
                kinds.add("start")
                assert np.array_equal(reference, data.stills[clip, at - 1])
            elif np.array_equal(reference, data.neutral[clip]):
                kinds.add("neutral")
            else:
                kinds.add("still")
                assert any(np.array_equal(reference, other) for other in data.stills[clip])
    assert kinds == {"start", "neutral", "still"}


def test_a_resumed_run_equals_an_unbroken_one_with_memory_of_its_own(tmp_path: Path) -> None:
    data = latents(tmp_path / "data")

    def trained(run: Path, *stops: int) -> dict:
        for stop in stops:
            method = stage(data, self_forcing=SelfForcing(share=1.0, refresh=1, clips=2))
            config = TrainerConfig(
                run=run, steps=stop, learning_rate=5e-3, warmup=0, floor=1.0, optimizer="adamw", bf16=False,
                sheet_every=10**9,
            )  # fmt: skip
            Trainer(method, config).run()
        return torch.load(run / "state.pt", weights_only=True)

    whole, cut = trained(tmp_path / "whole", 2), trained(tmp_path / "cut", 1, 2)
    errors = whole["method"]["errors"]
    assert errors.shape == (2, 24, 16, 32) and float(errors[:, 1:22].abs().min()) > 0
    assert not errors[:, 0].any() and not errors[:, 22:].any()  # the picture, and no whole chunk
    assert torch.equal(errors, cut["method"]["errors"])
    assert all(torch.equal(whole["module"][name], cut["module"][name]) for name in whole["module"])


def test_the_command_trains_evaluates_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = latents(tmp_path / "data"), tmp_path / "run"
    options = ["--run", str(run), *SET]
    material = ["--data", str(data), "--heldout", str(data)]
    assert train(["motion", *options, *material, "--steps", "2", "--batch", "2", "--no-bf16"]) == 0
    about = torch.load(run / "state.pt", weights_only=True)["slices"][0]
    assert about["data"] == ["data: 3 clips from number 0, heard by embedded"] and len(about["vae"]) == 16
    capsys.readouterr()
    assert train(["motion", *options, *material, "--evaluate", "1"]) == 0
    heading = capsys.readouterr().out.splitlines()[0].split()
    assert heading[:2] == ["r", "spread"] and "appearance_end" in heading
    assert train(["export-motion", *options, "--out", str(tmp_path / "out")]) == 0
    model = DiT(small())
    card = load_weights(
        tmp_path / "out" / "denoiser.safetensors", model, kind=KIND, config=small().denoiser_contract()
    )
    assert card["steps"] == 2 and card["slices"][0]["vae"] == about["vae"]
    phase = ["distill", *SET, *material, "--phase", "matching", "--teacher", str(run), "--run", str(tmp_path / "dmd")]
    assert train([*phase, "--steps", "2", "--ratio", "1", "--batch", "2", "--no-bf16"]) == 0
    state = torch.load(tmp_path / "dmd" / "state.pt", weights_only=True)
    assert state["iteration"] == 2 and state["best"] < float("inf")  # judged by what the student's latents do


def test_a_sheet_shows_pictures_and_figures_tell_who_it_is(tmp_path: Path) -> None:
    method = stage(latents(tmp_path / "data"))
    with torch.no_grad():
        row = method.sheet(method.module.eval(), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert row["speed"] == pytest.approx(0, abs=1e-3)  # an untrained network predicts nothing
    truth = torch.from_numpy(method.data.data.latents).float()
    same = method.data.figures(truth, truth, 3)
    assert same["appearance"] == pytest.approx(1) and same["appearance_end"] > 0.9 and same["r"] == pytest.approx(1)
    assert abs(same["appearance_other"]) < 0.2 and method.data.spread_error(same) == pytest.approx(0)
    other = method.data.figures(truth.roll(1, 0), truth, 3)
    assert other["appearance"] == pytest.approx(same["appearance_other"])
    assert method.data.spread_error(method.data.figures(0.5 * truth, truth, 3)) > 0.5


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = latents(tmp_path / "data"), str(tmp_path / "run")
    for material, heldout, says in (
        (performances(tmp_path / "motion"), data, "holds motion, which an embedded preset learns"),
        (latents(tmp_path / "other", seed=1), data, "make both with the same VAE"),
        (latents(tmp_path / "short", length=20), data, "clips of 20 latents are too short, 21 and what shows before"),
    ):
        assert train(["motion", *SET, "--run", run, "--data", str(material), "--heldout", str(heldout)]) == 1
        told = capsys.readouterr().err
        assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1, told
    assert train(["motion", "--preset", "debug", "--run", run, "--data", str(data), "--heldout", str(data)]) == 1
    assert "holds latents, which a spatial preset learns" in capsys.readouterr().err
