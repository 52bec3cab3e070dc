# SPDX-License-Identifier: Apache-2.0
"""Characters encoded beforehand: taken when they belong to the VAE at hand, never otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.pipeline import LEAST_PSNR, build_pipeline
from flowact_ros.engine.references import picture_id
from flowact_ros.engine.shelf import NAME, load_shelf, save_shelf
from flowact_ros.models.checkpoint import weights_dir


def test_what_was_put_comes_back_while_the_vae_is_the_same(tmp_path: Path, caplog) -> None:
    (tmp_path / "vae.json").write_text("{}\n")
    assert load_shelf(tmp_path) == {}
    latent = torch.randn(8, 4, 4).bfloat16()
    save_shelf(tmp_path, {"picture-1": latent})
    assert torch.equal(load_shelf(tmp_path)["picture-1"], latent)
    (tmp_path / "vae.json").write_text('{"steps": 1}\n')
    with caplog.at_level(logging.WARNING):
        assert load_shelf(tmp_path) == {}
    assert "belongs to another VAE" in caplog.text


def test_a_damaged_shelf_is_said_and_passed_over(tmp_path: Path, caplog) -> None:
    (tmp_path / "vae.json").write_text("{}\n")
    save_shelf(tmp_path, {"picture-1": torch.zeros(8, 4, 4)})
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        assert load_shelf(tmp_path) == {}
    assert "cannot be read" in caplog.text


def test_the_shipped_shelf_holds_the_shipped_characters_as_the_shipped_vae_draws_them() -> None:
    pictures = {picture_id(load_character(name)): load_character(name) for name in list_characters()}
    assert set(load_shelf(weights_dir() / "avatar_cpu")) == set(pictures)
    pipeline = build_pipeline("avatar_cpu", dtype="float32")
    for rgb in list(pictures.values())[::5]:
        reference = pipeline.load_reference(rgb)
        with torch.inference_mode():
            shown = pipeline.vae.decode_rgb(reference.latent.unsqueeze(1))[0][0, -1].numpy()
        error = np.square(shown.astype(float) - rgb).mean()
        assert 10 * np.log10(255**2 / error) > LEAST_PSNR + 8
