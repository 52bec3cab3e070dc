# SPDX-License-Identifier: Apache-2.0
"""Presets, overrides, and checkpoints that refuse what does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from flowact_ros.models import checkpoint
from flowact_ros.models.checkpoint import CheckpointError, load_weights, read_card, save_weights, weights_dir
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import PRESETS, ConfigError, VAEConfig, preset, sampled_as

SMALL = VAEConfig(
    latent_channels=8,
    encoder_widths=(8, 8, 16, 16),
    decoder_widths=(8, 8, 16, 16),
    encoder_depths=(1, 1, 1, 1),
    decoder_depths=(1, 1, 1, 1),
)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_consistent(name: str) -> None:
    config = preset(name)
    assert config.name == name
    assert sum(config.dit.rope_axes) == config.dit.head_dim
    assert config.renderer.size % 32 == 0 and max(map(max, config.renderer.crop_sizes)) <= config.renderer.size


def test_avatar_cpu_is_the_canvas_of_the_design() -> None:
    config = preset("avatar_cpu")
    assert config.renderer.size == 480
    assert config.dit.latent_shape == (4, 40) and config.memory.long_term == 1
    assert 3 <= config.schedule.steps <= 8


def test_overrides_reach_nested_fields() -> None:
    config = preset("avatar_cpu", {"schedule": {"steps": 5}, "memory": {"long_term": 2}})
    assert config.schedule.steps == 5 and config.memory.long_term == 2
    assert config.dit == preset("avatar_cpu").dit


def test_a_stream_may_remember_less_than_its_denoiser_was_taught() -> None:
    usual, less = preset("avatar_cpu"), preset("avatar_cpu", {"memory": {"long_term": 0}})
    assert less.denoiser_contract() == usual.denoiser_contract()
    assert preset("avatar_cpu", {"memory": {"taught": 5}}).denoiser_contract()["long_term"] == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stepps": 3}, "unknown key 'stepps'"),
        ({"schedule": {"stepps": 3}}, "unknown key 'schedule.stepps'"),
        ({"schedule": 3}, "holds a group of keys"),
        ({"schedule": {"steps": "three"}}, "expected a int"),
        ({"schedule": {"steps": 0}}, "schedule.steps is 0; the range is 1 to 50"),
        ({"renderer": {"size": 470}}, "renderer.size is 470; it must be a multiple of 32"),
        ({"renderer": {"mouth_size": (100, 96)}}, "renderer.mouth_size is (100, 96); use multiples of 8, at most 480"),
        ({"schedule": {"in_flight": 4}}, "schedule.in_flight is 4; use 2 or 3"),
        ({"memory": {"long_term": 8}}, "memory.long_term is 8; the range is 0 to 7"),
        ({"memory": {"taught": -1}}, "memory.taught is -1; the range is 0 to 7"),
        ({"schedule": {"order": "sideways"}}, "'sideways'"),
        ({"draw_every": 3}, "draw_every is 3; use 1, 2 or 4"),
        ({"dit": {"heads": 7}}, "width 256 is not a multiple of heads 7"),
    ],
)
def test_bad_overrides_give_one_clear_line(overrides: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        preset("avatar_cpu", overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match="'avatar_9000'.*avatar_cpu"):
        preset("avatar_9000")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "vae.safetensors"
    config = SMALL
    save_weights(path, VideoVAE(config), kind="vae", config=config, card={"steps": 7})
    return path


def test_round_trip_in_bf16(saved: Path) -> None:
    config = SMALL
    other = VideoVAE(config)
    card = load_weights(saved, other, kind="vae", config=config)
    assert card["steps"] == 7 and card["parameters"] == sum(t.numel() for t in other.state_dict().values())
    again = VideoVAE(config)
    load_weights(saved, again, kind="vae", config=config)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), again.state_dict().values()))
    weight = other.decoder.head.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, weight.bfloat16().float())


def test_damage_and_mismatch_are_refused(saved: Path, tmp_path: Path) -> None:
    config = SMALL
    model = VideoVAE(config)
    with pytest.raises(CheckpointError, match="holds 'vae' weights; 'denoiser' is needed"):
        load_weights(saved, model, kind="denoiser", config=config)
    larger = dataclasses.replace(config, latent_channels=16)
    with pytest.raises(CheckpointError, match="latent_channels = 8; this preset has 16"):
        load_weights(saved, VideoVAE(larger), kind="vae", config=larger)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(tmp_path / "none.safetensors", model, kind="vae", config=config)
    whole = saved.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            load_weights(saved, model, kind="vae", config=config)
    saved.write_bytes(whole)
    card = saved.with_suffix(".json")
    card.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_weights(saved, model, kind="vae", config=config)
    card.unlink()
    with pytest.raises(CheckpointError, match="come with a JSON card"):
        load_weights(saved, model, kind="vae", config=config)


def test_large_weights_are_cut_and_a_lost_piece_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 1000)
    path, config = tmp_path / "big.safetensors", {"n": 1}
    module = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5)))
    save_weights(path, module, kind="x", config=config, card={})
    pieces = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(pieces) > 2 and all((tmp_path / name).stat().st_mode & 0o044 == 0o044 for name in pieces)
    other = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5)))
    load_weights(path, other, kind="x", config=config)
    assert torch.equal(other[4].weight, module[4].weight.bfloat16().float())
    (tmp_path / "big.2.safetensors").unlink()
    with pytest.raises(CheckpointError, match="big.2.safetensors is damaged"):
        load_weights(path, other, kind="x", config=config)


def test_a_network_on_meta_gets_its_tensors_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the network itself and one tensor of it are held, of however many files."""
    monkeypatch.setattr(checkpoint, "LARGE_BYTES", 2000)
    monkeypatch.setattr(checkpoint, "LARGE_SHARD_BYTES", 600)
    path, config = tmp_path / "big.safetensors", {"n": 1}
    module = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5)))
    save_weights(path, module, kind="x", config=config, card={})
    assert len(list(tmp_path.glob("*.safetensors"))) == 5
    with torch.device("meta"):
        empty = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5)))
    put, held = checkpoint._put, []

    def watched(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
        put(module, name, tensor)
        held.append(sum(not p.is_meta for p in empty.parameters()))

    monkeypatch.setattr(checkpoint, "_put", watched)
    checkpoint.load_onto(path, empty, kind="x", config=config, device="cpu", dtype=torch.bfloat16)
    assert held == list(range(1, 11))
    assert empty[4].weight.dtype == torch.bfloat16 and not empty[4].weight.requires_grad
    assert torch.equal(empty[4].weight, module[4].weight.bfloat16())
    with pytest.raises(CheckpointError, match=r"unknown tensor 4\."):
        checkpoint.load_onto(path, empty[:4], kind="x", config=config, device="cpu")
    (tmp_path / "big.2.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"big\.2\.safetensors is damaged"):
        checkpoint.load_onto(path, empty, kind="x", config=config, device="cpu")


def test_random_weights_keep_the_size_of_what_goes_through_them() -> None:
    made = []
    for _ in range(2):
        with torch.device("meta"):
            module = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.LayerNorm(256), torch.nn.Linear(256, 64))
        checkpoint.fill_random(module, device="cpu", seed=3)
        made.append(module)
    x = torch.randn(128, 256)
    assert 0.8 < made[0](x).std() < 1.25 and torch.equal(made[0](x), made[1](x))
    assert bool((made[0][1].weight == 1).all()) and bool((made[0][0].bias == 0).all())


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    path, config = tmp_path / "w.safetensors", {"n": 1}
    save_weights(path, torch.nn.Linear(3, 2), kind="x", config=config, card={})
    with pytest.raises(CheckpointError, match=r"weight is \(2, 3\), expected \(2, 4\)"):
        load_weights(path, torch.nn.Linear(4, 2), kind="x", config=config)
    with pytest.raises(CheckpointError, match="unknown tensor bias"):
        load_weights(path, torch.nn.Linear(3, 2, bias=False), kind="x", config=config)
    save_weights(path, torch.nn.Linear(3, 2, bias=False), kind="x", config=config, card={})
    with pytest.raises(CheckpointError, match="lacks tensor bias"):
        load_weights(path, torch.nn.Linear(3, 2), kind="x", config=config)
    assert json.loads(path.with_suffix(".json").read_text())["kind"] == "x"


def test_weights_are_sampled_as_their_card_says() -> None:
    config = preset("debug")
    assert (config.schedule.steps, config.schedule.solver) == (3, "euler")
    student = {"schedule": {"steps": 4, "solver": "euler"}}
    assert sampled_as(config, student).schedule.steps == 4
    teacher = sampled_as(config, {})  # from before cards told it
    assert (teacher.schedule.steps, teacher.schedule.solver) == (6, "adams_bashforth")
    overrides = {"schedule": {"steps": 2, "order": "diagonal"}}
    asked = sampled_as(preset("debug", overrides), student, overrides)
    assert (asked.schedule.steps, asked.schedule.solver) == (2, "euler")
    with pytest.raises(ConfigError, match="schedule.solver is 'heun'; use 'euler' or 'adams_bashforth'"):
        sampled_as(config, {"schedule": {"solver": "heun"}})


def test_the_shipped_denoiser_is_a_student_of_three() -> None:
    card = read_card(weights_dir() / "avatar_cpu" / "denoiser.safetensors")
    assert card["schedule"] == {"steps": 3, "solver": "euler"}
    assert [stage["name"] for stage in card["stages"]] == ["adaptation", "steps"]
