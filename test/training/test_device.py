# SPDX-License-Identifier: Apache-2.0
"""Stages run on a GPU machine. Without one, tensors without numbers tell whether anything stays behind on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_methods import CONFIG, latents, snippets

from flowact_ros.training.main import main as train
from flowact_ros.training.methods.diffusion_forcing import DiffusionForcing
from flowact_ros.training.methods.few_step import FewStep
from flowact_ros.training.methods.vae import VAEMethod
from flowact_ros.training.trainer import moved

META = torch.device("meta")  # shapes without numbers: like a GPU, it refuses tensors of the CPU


def method(name: str, folder: Path):
    if name == "vae":
        material = snippets(folder / "data")
        return VAEMethod(CONFIG, [material], material, batch=2, crop=64)
    material = latents(folder / "data")
    if name == "stage1":
        return DiffusionForcing(CONFIG, [material], material, batch=2, generated=1.0)
    return FewStep(CONFIG, [material], material, batch=2)


@pytest.mark.parametrize("name", ["vae", "stage1", "fewstep"])
def test_a_step_keeps_to_its_device(name, tmp_path):
    stage = method(name, tmp_path)
    stage.module.to(META)
    for seed in range(5):  # batches differ in what they hold
        batch = stage.batch(torch.Generator().manual_seed(seed))
        loss = stage.step(moved(batch, META), 1000)["loss"]
        assert loss.device == META
        loss.backward()
    assert all(p.grad.device == META for p in stage.module.parameters() if p.grad is not None)
    with pytest.raises(RuntimeError):
        stage.step(batch, 1000)  # the check can fail: a batch that stayed behind


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_no_gpu_is_one_clear_line(tmp_path, capsys):
    material = latents(tmp_path / "data")
    argv = ["stage1", "--data", str(material), "--heldout", str(material), "--run", str(tmp_path / "run")]
    assert train([*argv, "--preset", "debug", "--device", "cuda"]) == 1
    error = capsys.readouterr().err.strip()
    assert "cuda" in error and "\n" not in error
