# SPDX-License-Identifier: Apache-2.0
"""`flowact bench` on the debug preset: it runs, counts every frame and says what it promises. Never how fast."""

from __future__ import annotations

import json

import pytest

from flowact_ros.evaluation import bench
from flowact_ros.kiosk.browser import CHROMIUM_NAMES, find_browser

PROMISED = {
    "real_time_factor": {"median", "p95"},
    "load": None,
    "ttff_s": {"p50", "p95"},
    "barge_in_s": {"p50", "p95"},
    "step_ms": {"denoise", "render", "commit"},
    "repeated_frames": None,
    "dropped_frames": None,
    "frames": None,
    "rss_mb": None,
    "first_frame_s": None,
    "core_ms_per_chunk": None,
    "machine": {"cpu", "cores", "threads", "load_before"},
}


def check(result: dict) -> None:
    for name, inside in PROMISED.items():
        assert name in result
        assert inside is None or inside <= set(result[name])
    onsets = result["onsets"]
    assert onsets["fast"] + onsets["live"] + onsets["lost"] >= 2
    # 25 a second on the content clock, whatever the machine does
    assert result["frames"] >= 25 * (result["seconds"] - 1.5)
    assert result["rss_mb"] > 20 and result["first_frame_s"] > 0


@pytest.mark.slow
def test_engine_only_prints_the_table_as_json(capsys):
    argv = ["--engine-only", "--preset", "debug", "--seconds", "5", "--threads", "1", "--json", "--draw-every", "2"]
    assert bench.main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    check(result)
    assert result["draw_every"] == 2
    assert result["weights"] == "random" and result["size"] == [128, 128] and result["mode"] == "engine only"
    bench.show(result)
    table = capsys.readouterr().out
    assert "real-time factor, median" in table and "128 x 128" in table and "every second frame drawn" in table
    for factor, told in ((0.7, False), (1.2, True)):
        bench.show({**result, "real_time_factor": {"median": 0.6, "p95": factor}})
        assert ("--draw-every 4 halves the drawing" in capsys.readouterr().out) == told


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("page", ["socket", "browser"])
def test_all_nodes_and_a_page_client(page, capsys):
    pytest.importorskip("rclpy", reason="the nodes need ROS 2: `make setup` installs it")
    if page == "browser" and find_browser() is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(CHROMIUM_NAMES)} is installed")
    argv = ["--preset", "debug", "--seconds", "8", "--threads", "1", "--json", "--page", page]
    assert bench.main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    check(result)
    assert result["mode"] == "all nodes"
    assert result["page"]["frames"] > 50 and result["page"]["error"] == ""
    assert result["images_in_last_phase"] > 20
    assert result["image_fill_ms"] > 0 and result["image_publish_ms"] > 0
    assert ("page_skew_ms" in result) == (page == "browser")
    if page == "browser":
        assert result["screen"]["reports"] > 0 and result["screen"]["fps"] > 0
        assert 0 <= result["page_skew_ms"]["p50"] <= result["page_skew_ms"]["p95"]
    bench.show(result)
    assert ("picture against sound" in capsys.readouterr().out) == (page == "browser")
    nodes = {"avatar_generator", "kiosk_bridge", "instruction_planner", "speech_synthesizer"}
    assert set(result["processes"]) == nodes


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--threads", "0"], 2, "--threads is 0; it must lie in 1 .. 64"),
        (["--seconds", "1"], 2, "--seconds is 1; it must lie in 5 .. 7200"),
        (["--random-weights"], 2, "--random-weights goes with --engine-only"),
        (["--runtime", "eager"], 2, "--runtime goes with --engine-only"),
        (["--engine-only", "--preset", "debug", "--runtime", "abacus"], 1, "runtime 'abacus' does not exist"),
        (["--engine-only", "--preset", "huge"], 1, "preset 'huge' does not exist"),
        (["--engine-only", "--preset", "debug", "--character", "nobody"], 1, "'nobody' does not exist"),
        (
            ["--engine-only", "--preset", "debug", "--wav", "/nonexistent.wav"],
            1,
            "/nonexistent.wav does not exist",
        ),
    ],
)
def test_bad_input_is_one_clear_line(argv: list[str], status: int, words: str, capsys):
    assert bench.main(argv) == status
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


def test_lips_at_rest_is_read_from_the_pictures(tmp_path, monkeypatch):
    """Pictures of a mouth that closes 0.4 s after the interruption, and of one that is cut short too soon to tell."""
    import numpy as np
    import torch
    from PIL import Image

    from flowact_ros.data.characters import NAMED, control_index, neutral, render
    from flowact_ros.evaluation import rig_readout
    from flowact_ros.evaluation.bench_table import lips_at_rest

    controls = neutral(2)
    controls[1, control_index("jaw")] = 0.5
    for name, frame in zip(("shut", "open"), render(NAMED["mia"], controls, size=128), strict=True):
        Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(
            tmp_path / f"{name}.jpg", quality=95
        )

    def by_darkness(module: object, frames: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
        values = frames.float().mean((1, 2, 3)).numpy()
        readings = np.zeros((len(frames), len(rig_readout.READ)), np.float32)
        readings[:, rig_readout.column("opening")] = 0.1 * (values < values.max() - 0.2)
        return readings

    monkeypatch.setattr(rig_readout, "load_readout", lambda: (None, {}))
    monkeypatch.setattr(rig_readout, "read", by_darkness)
    times = [0.04 * k for k in range(36)]
    kept = [(0, t, str(tmp_path / ("open.jpg" if t < 0.39 else "shut.jpg"))) for t in times]
    kept += [(1, t, str(tmp_path / "open.jpg")) for t in times[:20]]
    assert lips_at_rest(kept, "mia") == [pytest.approx(0.4)]


def test_a_mouth_that_opens_again_at_once_was_not_at_rest():
    import numpy as np

    from flowact_ros.evaluation.bench_table import first_rest

    after = np.arange(0, 2, 0.1)
    open_ = after < 0.35
    assert first_rest(after, open_) == [pytest.approx(0.4)]
    open_[6] = True  # 0.2 s later: the sentence still goes on
    assert first_rest(after, open_) == [pytest.approx(0.7)]
    open_[6], open_[14] = False, True  # a second later: a smile
    assert first_rest(after, open_) == [pytest.approx(0.4)]
    assert first_rest(after, after >= 0) == [] == first_rest(after, after < 0)
