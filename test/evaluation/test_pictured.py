# SPDX-License-Identifier: Apache-2.0
"""Experiments on spatial presets: who is seen is measured, a planted loss of identity is found, the truth has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowact_ros.data.behaviours import column
from flowact_ros.data.characters import Identity, identity_from_seed, neutral
from flowact_ros.data.performance import Segment, perform
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.provenance import weights_hash
from flowact_ros.evaluation.clips import Clip
from flowact_ros.evaluation.experiments import material, pictured_drift, pictured_memory
from flowact_ros.evaluation.experiments.memory import SETTINGS, reference_of
from flowact_ros.evaluation.experiments.pictured import PictureCodec, check_vae, likeness
from flowact_ros.evaluation.long_motion import Long
from flowact_ros.evaluation.main import main
from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.dit import KIND, Condition

SMALL = {"dit": {"width": 48, "heads": 1, "single_blocks": 1}, "schedule": {"steps": 1}}
PRESET = ("--preset", "avatar_spatial_debug", "--weights", "random")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    made = build_pipeline("avatar_spatial_debug", weights="random", overrides=SMALL, precision="float32")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.denoiser.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def still_clip(number: int, seconds: float) -> Clip:
    performance = perform([Segment("greeting", seconds)], np.random.default_rng(number), seconds=seconds)
    return Clip(f"seed:{number}", identity_from_seed(number), performance, material.SIZE)


def test_likeness_and_background_are_of_the_person(pipeline: Any) -> None:
    codec = PictureCodec.of(pipeline)
    one, other = (codec.person(identity_from_seed(k)) for k in (1, 2))
    own = one.latent.expand(8, -1, -1)
    assert likeness(own, one) == pytest.approx(1.0, abs=1e-5)
    assert likeness(own, other) < 0.999
    raw = neutral(8)
    raw[:, column("head_yaw")] = torch.linspace(-0.3, 0.3, 8)
    where = codec.background(one, raw)
    assert bool(where[:8, :8].all()) and not bool(where[40:90, 40:90].all())  # the room's corner, and the face
    assert not torch.equal(codec.background(one, neutral(8)), where) and bool(codec.background(one, neutral(8)).all())
    assert np.isnan(codec.background_db(own, one, torch.zeros_like(where), [0]))
    mine = codec.background_db(own, one, where, [0, 7])
    assert mine > codec.background_db(own + 3 * torch.randn(own.shape), one, where, [0, 7])


def test_a_denoiser_of_another_vae_is_refused(pipeline: Any, tmp_path: Path) -> None:
    config, name = pipeline.config, weights_hash([PictureCodec.of(pipeline).vae])
    save_weights(
        tmp_path / "vae.safetensors", pipeline.vae, kind="vae", config=config.video, card={}, dtype=torch.float32
    )
    for learned in (name, "another"):
        card = {"slices": [{"vae": learned}]}
        contract = config.denoiser_contract()
        save_weights(tmp_path / "denoiser.safetensors", pipeline.denoiser, kind=KIND, config=contract, card=card)
        if learned == name:
            check_vae(config, str(tmp_path))
    with pytest.raises(ValueError, match=f"learned latents of the VAE another; the one in .* is {name}"):
        check_vae(config, str(tmp_path))
    torch.save({"ema": {}, "iteration": 1, "seconds": 1.0, "slices": [{"vae": "third"}]}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="VAE third"):
        check_vae(config, str(tmp_path), str(tmp_path))


def test_memory_is_compared_beside_truth_and_somebody_else(pipeline: Any) -> None:
    clips = [still_clip(k, 1.44) for k in range(2)]
    found = pictured_memory.compare(pipeline, material.material(pipeline, clips, [0, 1]), lambda text, done: None)
    names = [row.name for row in found.rows]
    assert names == [s.name for s in SETTINGS] + ["truth performed again", "somebody else"]
    rows = {row.name: row.values for row in found.rows}
    reference = reference_of(pipeline.denoiser)
    assert found.reference == reference == "long-term 3" and all(len(v) == 2 for v in rows[reference].values())
    again, usual = rows["truth performed again"], rows[reference]
    assert np.mean(again["likeness"]) > np.mean(rows["somebody else"]["likeness"])
    assert usual["entries"] == [1.0, 1.0]  # none, one, two
    assert rows["short-term off"]["likeness"] != usual["likeness"]
    assert rows["long-term 7"]["likeness"] == usual["likeness"]  # three chunks fit into three entries


@pytest.fixture()
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of 15 latents, whose last six are looked at."""
    monkeypatch.setattr(pictured_drift, "MINUTE", 15)
    monkeypatch.setattr(pictured_drift, "WINDOW", 6)
    monkeypatch.setattr(pictured_drift, "EVERY", 3)

    def instead(pipeline: Any, number: int, seconds: float) -> tuple[Long, Condition, Identity]:
        count = 15 * round(seconds / 60)
        clip = still_clip(number % 97, count * 4 / 25)
        condition = material.material(pipeline, [clip], [0]).condition
        return Long(clip.controls.numpy(), np.zeros(4 * count)), condition, clip.identity

    monkeypatch.setattr(pictured_drift, "perform", instead)


def test_a_planted_drift_is_found_and_the_truth_has_none(pipeline: Any, short: None) -> None:
    streams = pictured_drift.prepare(pipeline, 2, 3, lambda text, done: None)
    assert streams.truth.shape == (2, 3, 6, 16, 32) and streams.minutes == 3
    made = pictured_drift.windows(pipeline.denoiser, streams, "", lambda text, done: None, 0, 1)
    whole = material.Material([still_clip(0, 1.0)] * 2, [0, 1], streams.condition)
    reference = torch.stack([person.latent for person in streams.people])
    refined = material.configured(pipeline.denoiser, {"memory": {"refine_interval": 1}})
    other = pictured_drift.windows(refined, streams, "", lambda text, done: None, 0, 1)
    assert made.shape == streams.truth.shape and not torch.allclose(made, other)
    assert material.latents(pipeline.denoiser, whole, reference).shape == (2, 45, 16, 32)
    table = pictured_drift.compare("drift", "?", streams, {"made": made}, "made")
    rows = {row.name: row.values for row in table.rows}
    assert set(rows) == {"truth", "made", "planted drift"}
    assert rows["truth"]["speed_ratio"] == [1.0, 1.0]
    for fallen, kept in zip(rows["planted drift"]["likeness_slope"], rows["truth"]["likeness_slope"]):
        assert fallen < kept - 0.001


@pytest.fixture()
def small(pipeline: Any, short: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands build the small pipeline; a denoiser that they load is its own, and its source is noted."""
    sources: list[str] = []

    def load(source: str, config: Any) -> Any:
        sources.append(source)
        return pipeline.denoiser

    monkeypatch.setattr("flowact_ros.engine.pipeline.build_pipeline", lambda *_, **__: pipeline)
    monkeypatch.setattr(material, "load_denoiser", load)
    return sources


def test_the_command_writes_table_and_curves(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drift.json"
    assert main(["drift", *PRESET, "--streams", "2", "--minutes", "2", "--interval", "0", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    assert [row["name"] for row in told["rows"]] == ["truth", "never refined", "planted drift"]
    assert told["reference"] == "never refined" and told["command"].startswith("flowact eval drift --preset")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("drift.png", "drift_minutes.png"))
    assert "likeness to the reference, minute 1" in capsys.readouterr().out


def test_two_denoisers_are_compared(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "forced.json"
    options = ["--with", "runs/a", "--without", "runs/b", "--streams", "3", "--minutes", "3", "--out", str(out)]
    assert main(["self-forcing", *PRESET, *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert small == ["runs/a", "runs/b"] and told["reference"] == "without" and out.is_file()
    rows = {row["name"]: row["figures"]["likeness_slope"] for row in told["rows"]}
    assert rows["with"]["difference"]["value"] == 0.0 and rows["with"]["seeds"] == rows["without"]["seeds"]


def test_experiments_on_motion_refuse_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *PRESET]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "schedule measures motion, and preset avatar_spatial_debug denoises" in told
