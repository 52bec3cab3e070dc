# SPDX-License-Identifier: Apache-2.0
"""What `flowact presets` says: the sizes that the GPU presets promise, counted without making a weight."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from flowact_ros.cli import main
from flowact_ros.models.config import PRESETS


@pytest.fixture(scope="module")
def told() -> dict[str, dict]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["presets", "--json"]) == 0
    return {row["name"]: row for row in json.loads(out.getvalue())}


def test_every_preset_is_told(told):
    assert list(told) == list(PRESETS)
    assert all(row["parameters"] > 0 and row["flops_per_chunk"] > 0 for row in told.values())


@pytest.mark.parametrize(
    "name, least, most, latent",
    [
        ("avatar_cpu", 5e6, 12e6, [4, 40]),
        ("avatar_1b", 1.0e9, 1.6e9, [390, 64]),  # 832 x 480 at stride 32
        ("avatar_14b", 12e9, 16e9, [390, 64]),
    ],
)
def test_sizes_are_those_of_the_names(told, name: str, least: float, most: float, latent: list[int]):
    assert least < told[name]["parameters"] < most and told[name]["latent"] == latent


def test_the_spatial_debug_model_is_a_hundredth_of_the_billion(told):
    assert 50 < told["avatar_1b"]["parameters"] / told["avatar_spatial_debug"]["parameters"] < 400


def test_operations_are_counted_for_all_evaluations(told):
    """Of a dense network a token costs about two operations a parameter and evaluation; modulations of a spatial latent
    are computed once for all its tokens, and attention comes on top."""
    row = told["avatar_14b"]
    dense = 2 * row["parameters"] * 3 * 390 * row["evaluations"]
    assert 0.6 < row["flops_per_chunk"] / dense < 1.6


def test_memory_is_told_of_what_runs_on_a_gpu(told):
    """In bfloat16: the weights, a stream's memory and work, and what libraries take."""
    assert told["avatar_cpu"]["gpu_bytes"] is None
    row = told["avatar_14b"]
    assert 1.1 < row["gpu_bytes"] / (2 * row["parameters"]) < 1.6


def test_a_preset_is_loaded_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--load", "avatar_spatial_debug", "--weights", "random", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["load_s"] > 0 and figures["prepare_s"] >= 0 and figures["precision"] in ("float32", "int8")
    assert main(["presets", "--load", "avatar_1b"]) == 1
    error = capsys.readouterr().err
    assert "preset avatar_1b comes without weights" in error and error.count("\n") == 1
