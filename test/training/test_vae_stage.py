# SPDX-License-Identifier: Apache-2.0
"""The spatial codec's stage: clips of one character in motion, a loss that falls, runs that go on, unit latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.models.checkpoint import load_weights
from flowact_ros.models.codec.motion import RIG, neutral
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import preset, video_of
from flowact_ros.training import main as training
from flowact_ros.training.stages import renderer_data, vae

VIDEO = video_of(preset("avatar_spatial_debug"))


class Movement:
    """In place of performances, whose speech takes seconds to make: a head that turns while a mouth opens."""

    def __init__(self, *_: object, **__: object) -> None:
        self.controls = neutral(40)
        for name, most in (("head_yaw", 0.2), ("jaw", 0.6)):
            column = [control.name for control in RIG].index(name)
            self.controls[:, column] = torch.linspace(0, most, 40)

    def stretch(self, rng: np.random.Generator, frames: int) -> torch.Tensor:
        start = int(rng.integers(40 - frames + 1))
        return self.controls[start : start + frames]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "Motions", Movement)
    monkeypatch.setattr(vae, "HELDOUT", range(7_000_000, 7_000_002))
    monkeypatch.setattr(vae, "MEASURED", 4)


def test_a_clip_shows_one_character_in_motion() -> None:
    clip, weight = vae.draw_clip(np.random.default_rng(0), Movement(), VIDEO, renderer_data.Cast(range(10)))
    assert clip.shape == (12, 3, 128, 128) and weight.shape == (12, 1, 128, 128)
    assert -1 <= clip.min() and clip.max() <= 1 and {1.0, 6.0} <= set(weight.unique().tolist())
    moved = (clip[-1] - clip[0]).abs().mean(0)
    assert moved.mean() > 0.01 and moved[:8].mean() < moved.mean()  # the head, not what is behind it


def test_wide_pictures_are_the_middle_rows_of_square_ones() -> None:
    wide = video_of(preset("avatar_1b"))
    clip, _ = vae.draw_clip(np.random.default_rng(0), Movement(), wide, renderer_data.Cast(range(10)))
    assert clip.shape == (12, 3, 480, 832)


def test_the_loss_falls(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = vae.VAEStage(VideoVAE(VIDEO.vae), VIDEO, clips=1)
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    optimizer, losses = torch.optim.AdamW(stage.module.parameters(), 2e-3), []
    for step in range(15):
        loss = stage.step(batch, step)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        figures = stage.sheet(stage.module, tmp_path / "sheet.png")
    assert set(figures) == {"psnr", "psnr_eyes", "psnr_mouth"} and (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_run_goes_on_and_is_exported_with_latents_of_unit_size(tmp_path: Path) -> None:
    for name, slices in (("a", (2,)), ("b", (1, 2))):
        for steps in slices:
            options = ["--run", str(tmp_path / name), "--batch", "1", "--warmup", "1", "--no-bf16"]
            monkey = ["--steps", "2"] if steps == 2 else ["--steps", "2", "--minutes", "0"]
            assert training.main(["vae", *options, *monkey]) == 0
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in "ab")
    assert a["iteration"] == b["iteration"] == 2
    assert all(torch.equal(a["ema"][key], b["ema"][key]) for key in a["ema"])
    assert training.main(["export-vae", "--run", str(tmp_path / "a"), "--out", str(tmp_path)]) == 0
    made = VideoVAE(VIDEO.vae)
    card = load_weights(tmp_path / "vae.safetensors", made, kind="vae", config=VIDEO)
    assert card["steps"] == 2 and card["stages"][-1]["name"] == "vae"
    clip, _ = vae.draw_clip(np.random.default_rng(11), Movement(), VIDEO, renderer_data.Cast())
    with torch.no_grad():
        latents, _ = made.encode(clip[None])
    assert 0.3 < float(latents.std()) < 3


def test_a_preset_of_motion_has_no_vae(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["vae", "--run", str(tmp_path), "--preset", "avatar_cpu"]) == 1
    assert "avatar_cpu denoises motion and has no VAE; those that have one are" in capsys.readouterr().err
