# SPDX-License-Identifier: Apache-2.0
"""Options from a file: what the command line tells wins, and a bad file gives one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from motions import performances

from flowact_ros.models.settings import pairs_of, settings_of
from flowact_ros.training.config_file import with_file
from flowact_ros.training.main import main as train
from flowact_ros.training.main import model, parser

SHIPPED = Path(__file__).parents[2] / "config" / "train"


def test_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("lr: 0.01\nbatch: 7\nno-bf16: true\nset: {dit: {width: 64, rope_axes: [32]}}\n")
    argv = with_file(
        ["motion", "--config", str(file), "--data", "a", "b", "--heldout", "c", "--run", "d", "--lr", "3"]
    )
    args = parser().parse_args(argv)
    assert (args.lr, args.batch, args.no_bf16, args.preset) == (3.0, 7, True, "avatar_cpu")
    assert args.data == [Path("a"), Path("b")]
    assert settings_of(args.set) == {"dit": {"width": 64, "rope_axes": [32]}}


def test_settings_are_pairs_and_back() -> None:
    tree = {
        "name": "x",
        "dit": {"width": 64, "rope_axes": [32]},
        "schedule": {"order": "diagonal", "shift": 2.5},
    }
    assert settings_of(pairs_of(tree)) == tree
    with pytest.raises(ValueError, match="'a' was given a value before"):
        settings_of(["a=1", "a.b=2"])


@pytest.mark.parametrize("name", ["avatar_1b", "motion_1b"])
def test_the_files_of_large_networks_hold(name: str) -> None:
    argv = ["motion", "--config", str(SHIPPED / f"{name}.yaml"), "--data", "a", "--heldout", "b", "--run", "c"]
    args = parser().parse_args(with_file(argv))
    config = model(args)
    d = config.dit
    blocks = (36 * d.double_blocks + 15 * d.single_blocks) * d.width**2
    assert config.name == name and 0.9e9 < blocks < 1.1e9
    assert (config.video is not None) == args.checkpoint_activations == (name == "avatar_1b")


def test_a_changed_network_is_trained_and_needs_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = str(performances(tmp_path / "data")), str(tmp_path / "run")
    file = tmp_path / "options.yaml"
    file.write_text("preset: debug\nsteps: 1\nbatch: 1\nset: {dit: {single_blocks: 1}}\n")
    assert train(["motion", "--config", str(file), "--data", data, "--heldout", data, "--run", run]) == 0
    assert not any("single_blocks.1" in name for name in torch.load(f"{run}/state.pt")["ema"])
    export = ["export-motion", "--preset", "debug", "--run", run, "--set", "dit.single_blocks=1"]
    assert train(export) == 1
    assert "--set changes the network, so its weights are not the package's" in capsys.readouterr().err
    assert train([*export, "--out", str(tmp_path / "out")]) == 0
    for content, says in (("[1, 2]", "holds no options"), ("a: [", "is no YAML"), (None, "No such file")):
        bad = tmp_path / "bad.yaml"
        bad.unlink(missing_ok=True)
        if content is not None:
            bad.write_text(content)
        assert train(["motion", "--config", str(bad)]) == 2
        told = capsys.readouterr().err
        assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1
