# SPDX-License-Identifier: Apache-2.0
"""Clips as latents: what is written is what the VAE makes of the pictures, once, and nothing else gets in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_speech import only_fake

from flowact_ros.data import latents, prepare
from flowact_ros.data.clips import make_performance
from flowact_ros.data.latents import describe, load_vae, pictures_of, read_latents, still
from flowact_ros.data.performances import SPEAKING, read_performances
from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.codec.motion import neutral
from flowact_ros.models.codec.video_vae import VideoVAE, to_tokens
from flowact_ros.models.config import preset, video_of

VIDEO = video_of(preset("avatar_spatial_debug"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    only_fake(monkeypatch)
    monkeypatch.setattr(latents, "PER_FILE", 1)


def vae_in(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    vae = VideoVAE(VIDEO.vae)
    torch.nn.init.normal_(vae.encoder.mix32.mix.weight, std=0.02)  # with a past that counts
    save_weights(folder / "vae.safetensors", vae, kind="vae", config=VIDEO, card={})
    return folder


def make(*options: object) -> int:
    return prepare.main(["latents", *(str(option) for option in options)])


def test_what_is_written_is_what_the_vae_makes_of_the_pictures(tmp_path: Path) -> None:
    vae, out = vae_in(tmp_path / "vae"), tmp_path / "out"
    assert make("--vae", vae, "--count", 2, "--seconds", 1.3, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"0000000.npz", "0000001.npz", "vae.safetensors", "vae.json"}
    data, network = read_latents(out), load_vae(out, VIDEO)
    assert data.latents.shape == data.stills.shape == (2, 8, 16, 32) and data.sound.shape == (2, 8, 4, 384)
    assert describe(out) == "out: 2 clips from number 0, heard by embedded"
    spec = make_performance(1, "train", 1.3, SPEAKING[1])
    frames = pictures_of(spec.identity, torch.from_numpy(spec.performance.controls[:32]), VIDEO)
    with torch.no_grad():
        whole = to_tokens(network.encode(frames[None])[0])[0]
    torch.testing.assert_close(torch.from_numpy(data.latents[1]).float(), whole, rtol=2e-3, atol=2e-3)
    for wanted, found in (
        (still(network, frames[19:20])[0], data.stills[1, 4]),
        (still(network, pictures_of(spec.identity, neutral(1), VIDEO))[0], data.neutral[1]),
    ):
        torch.testing.assert_close(torch.from_numpy(found).float(), wanted, rtol=2e-3, atol=2e-3)
    told = [data.texts[i] for i in data.text[1]]
    assert told[0] == spec.performance.instruction[0][1]
    assert np.abs(data.sound[1]).max() > 0 and data.vectors.shape == (len(data.texts), 1, 384)


def test_clips_are_made_once_and_fewer_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "PER_FILE", 2)
    options = ("--vae", vae_in(tmp_path / "vae"), "--seconds", 0.4, "--out", tmp_path / "out")
    path = tmp_path / "out" / "0000000.npz"
    assert make(*options, "--count", 1) == 0
    assert make(*options, "--count", 2) == 0
    assert len(read_latents(tmp_path / "out")) == 2  # a file that held one of two is whole now
    written = path.stat().st_mtime_ns
    assert make(*options, "--count", 2) == 0
    assert path.stat().st_mtime_ns == written


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae, out = vae_in(tmp_path / "vae"), tmp_path / "out"
    short = ("--count", 1, "--seconds", 0.4, "--out", out)
    assert make("--vae", vae, *short) == 0
    motion = tmp_path / "motion"
    assert prepare.main(["motion", "--count", "1", "--seconds", "0.4", "--out", str(motion)]) == 0
    capsys.readouterr()
    for options, says in (
        (short, "latents need --vae, the folder where `flowact train export-vae` wrote the VAE"),
        (("--vae", tmp_path, *short), "vae.safetensors are missing"),
        (("--vae", vae_in(tmp_path / "other", 1), *short), "holds latents of the VAE"),
        (("--vae", vae, *short[:-1], motion), "holds motion, not latents; give another folder as --out"),
        (("--vae", vae, *short, "--preset", "avatar_cpu"), "avatar_cpu denoises motion and has no VAE"),
        (("--vae", vae, *short, "--preset", "avatar_1b"), "was made for height = 128; this preset has 480"),
    ):
        assert make(*options) == 2
        told = capsys.readouterr().err
        assert told.startswith("flowact data: ") and says in told and told.count("\n") == 1, told
    assert make("--vae", vae, "--seed", 5, *short[:2], "--seconds", 0.8, "--out", out) == 0
    for read, folder, says in (
        (read_latents, motion, "holds motion, which an embedded preset learns"),
        (read_latents, tmp_path / "none", "no latents; make them with `flowact data latents`"),
        (read_latents, out, r"has clips of \(\[5, 16, 32\], \[5, 4, 384\], \[1, 384\]\), not \(\[2"),
        (read_performances, out, "holds latents, which a spatial preset learns"),
    ):
        with pytest.raises(ValueError, match=says):
            read(folder)
