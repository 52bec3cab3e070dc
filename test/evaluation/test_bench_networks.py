# SPDX-License-Identifier: Apache-2.0
"""`flowact bench networks` on small presets: what it says is what was done. Never how fast."""

from __future__ import annotations

import contextlib
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowact_ros.diffusion.kv_cache import stream_windows
from flowact_ros.evaluation import bench
from flowact_ros.evaluation.bench_networks import main as networks
from flowact_ros.evaluation.bench_networks import parts, peer
from flowact_ros.evaluation.bench_networks.clock import FEWEST, LEAST, MOST, WARM, Clock
from flowact_ros.evaluation.bench_networks.table import report
from flowact_ros.evaluation.bench_networks.work import Work, denoiser, operations
from flowact_ros.models.config import avatar_1b, avatar_spatial_debug, debug, preset
from flowact_ros.models.dit import DiT
from flowact_ros.presets_cli import size_of

CPU = torch.device("cpu")
# What is chosen without a precision is another one on each processor.
QUICK = ["--seconds", "0", "--streams", "1", "2", "--precision", "float32"]


def run(folder: Path, *argv: str) -> dict:
    """What `flowact bench networks --json` of the small spatial preset prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        all_of = ["networks", "--preset", "avatar_spatial_debug", *QUICK, "--json", "--out", str(folder / "o.json")]
        assert bench.main([*all_of, *argv]) == 0
    record = json.loads(out.getvalue())
    assert json.loads((folder / "o.json").read_text()) == record
    assert "not_measured" not in record
    return record


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return run(tmp_path_factory.mktemp("bench"), "--parts", "step", "peer")


def check_step(row: dict) -> None:
    for stage in ("evaluation", "chunk", "encode", "denoise", "commit", "decode", "whole"):
        times = row[f"{stage}_ms"]
        assert 0 < times["median"] <= times["p95"] and times["n"] == FEWEST
    assert row["fps"] == pytest.approx(12e3 / row["whole_ms"]["median"], rel=1e-2)
    assert row["real_time_factor"] == pytest.approx(row["whole_ms"]["median"] / 480, rel=1e-2)
    assert row["memory_gb"] > 0 and row["ready_s"] > 0 and row["matrix_share"] > 0


def test_a_step_says_what_it_promises(told):
    assert told["picture"] == [128, 128] and told["latent"] == [16, 32] and told["chunk_frames"] == 12
    assert all(told["ceilings"][name] > 0 for name in ("float32", "bfloat16", "fp8", "copy_bytes"))
    check_step(told["step"])
    assert told["step"]["precision"] == "float32" and told["step"]["runtime"].startswith("torch ")


@pytest.mark.slow
def test_all_parts_that_a_cpu_has(tmp_path: Path):
    parts_of = ("step", "fp8", "ttff", "streams", "resolution")
    told = run(tmp_path, "--parts", *parts_of, "--profile", str(tmp_path / "profile"))
    check_step(told["fp8"])
    assert (told["fp8"]["precision"], told["fp8"]["over"]) == ("fp8", "float32")
    plain, rounded = (told[key]["whole_ms"]["median"] for key in ("step", "fp8"))
    assert told["fp8"]["speedup"] == pytest.approx(plain / rounded, rel=1e-2)
    assert 0 < told["ttff"]["1_latents"]["p50_s"] <= told["ttff"]["p95_s"]
    assert told["streams"]["curve"][0]["streams"] == 1
    fitting = [row["streams"] for row in told["streams"]["curve"] if row["fits"]]
    assert told["streams"]["at_25_fps"] == max(fitting, default=0)
    assert [row["size"] for row in told["resolution"]] == [[128, 128], [256, 128]]
    assert all(row["fps"] > 0 for row in told["resolution"])
    trace, table = map(Path, told["profile"])
    assert trace.name == "trace-avatar_spatial_debug-float32.json.gz" and trace.stat().st_size > 1000
    assert "denoise" in table.read_text() and "aten::addmm" in table.read_text()
    report(told).show()


def test_the_peer_is_compared_at_both_latents(told):
    rows = told["peer"]
    assert [rows[name]["latent"][0] for name in ("peer", "peer_at_our_latents", "ours_at_peer_latents", "ours")] == [
        64, 16, 64, 16,
    ]  # fmt: skip
    assert rows["peer"]["evaluations"] == 4
    fps = {name: row["denoiser_fps"] for name, row in rows.items() if isinstance(row, dict)}
    assert rows["same_latents"] == pytest.approx(fps["ours_at_peer_latents"] / fps["peer"], abs=1e-3)
    assert rows["own_latents"] == pytest.approx(fps["ours"] / fps["peer"], abs=1e-3)


def test_the_table_has_targets_on_a_card_alone(told):
    here = report(told)
    assert not any(figure.target for figure in here.figures)
    step, machine = told["step"], {**told["machine"], "gpu": "a card"}
    more = {"fp8": {**step, "over": "bfloat16", "speedup": 1.5}, "ttff": {"p95_s": 0.1}}
    card = {**told, **more, "streams": {"at_25_fps": 9, "curve": []}, "machine": machine}
    targets = {f.key: f.target for f in report({**card, "preset": "avatar_1b"}).figures if f.target}
    assert targets == {
        "step.share": "≥ 0.55", "fp8.share": "≥ 0.55", "peer.same_latents": "≥ 2", "peer.own_latents": "≥ 5",
        "ttff.p95_s": "≤ 0.3", "streams.at_25_fps": "≥ 8",
    }  # fmt: skip
    largest = {f.key: f.target for f in report({**card, "preset": "avatar_14b"}).figures}
    assert largest["step.fps"] == largest["fp8.fps"] == "≥ 30" and largest["fp8.speedup"] == "≥ 1.25"
    smallest = {f.key: f.target for f in report({**card, "preset": "avatar_cpu"}).figures}
    assert smallest["streams.at_25_fps"] == "≥ 64"


def test_operations_are_those_of_the_networks_that_run():
    config = avatar_spatial_debug()
    counted = operations(config, "float32")
    assert sum(counted["chunk"].values()) == size_of(config).flops_per_chunk
    work = Work.begin(denoiser(config, CPU, "float32"), CPU)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it knows no attention of CPUs
        work.chunk()
    assert counter.get_total_flops() == pytest.approx(sum(counted["chunk"].values()), rel=0.01)
    rounded = operations(config, "fp8")["chunk"]
    assert sum(rounded.values()) == sum(counted["chunk"].values()) and rounded["fp8"] > 0.8 * sum(rounded.values())


def test_share_is_the_least_time_by_the_rates_over_the_time_taken():
    setting = parts.Setting(debug(), CPU, "auto", "eager", Clock(CPU, 0), {"bfloat16": 100.0, "fp8": 200.0})
    counted = {"fp8": 400, "other": 100}
    assert parts.share_of_rate(setting, counted, 6.0, "fp8") == 0.5
    assert parts.share_of_rate(setting, {"fp8": 0, "other": 300}, 4.0, "bfloat16") == 0.75
    assert parts.share_of_rate(setting, counted, 6.0, "int8") is None


def test_a_clock_calls_often_enough():
    calls = []
    assert len(Clock(CPU, 0.0).times(lambda: calls.append(0)).seconds) == FEWEST and len(calls) == 1 + FEWEST
    calls.clear()
    times = Clock(CPU, 0.01).times(lambda: calls.append(time.sleep(0.002)))
    assert LEAST <= len(times.seconds) <= MOST and len(calls) == WARM + 1 + len(times.seconds)
    assert 0.002 <= times.median <= times.p95


# ---------------------------------------------------------------- the peer


def test_the_peer_has_the_size_and_the_tokens_of_the_published_one():
    theirs = peer.peer_at(avatar_1b(), own_latents=True)
    assert theirs.dit.latent_shape == (1560, 64)  # 60 x 104 latents in patches of 2 x 2
    with torch.device("meta"):
        parameters = sum(p.numel() for p in DiT(theirs).parameters())
    assert 1.2e9 < parameters < 1.5e9
    assert peer.peer_at(avatar_1b(), own_latents=False).dit.latent_shape == avatar_1b().dit.latent_shape
    assert peer.ours_at_peer_latents(avatar_1b()).dit.latent_shape == (1560, 64)


@torch.inference_mode()
def test_blocks_of_the_peer_see_those_before_them_within_the_window():
    """A block under the cache is what one pass over all blocks gives it, whose mask hides later blocks."""
    config = peer.peer_at(avatar_spatial_debug(), own_latents=False, small=True)
    model = denoiser(config, CPU, "float32")
    work = Work.begin(model, CPU, peer.start)
    assert len(work.bank.caches) == 6  # and the block itself and work.bank.latents == 21
    size, noise = config.schedule.chunk_latents, work.noise
    first = peer.BlockCache().commit(model, noise, work.condition)
    level = torch.full((1, size), 0.5)
    cached = first.predictor(model, work.condition)(noise, level)
    windows = stream_windows(model, (), 2 * size, CPU)
    causal = torch.ones(2 * size, 2 * size, dtype=torch.bool)
    causal[:size, size:] = False
    at = torch.arange(-size, size, dtype=torch.float32) * 4
    windows = model.windows(at, mask=causal)
    both = type(work.condition).cat([work.condition, work.condition])
    levels = torch.cat([torch.zeros(1, size), level], 1)
    whole, _ = model(torch.cat([noise, noise], 1), levels, both, windows)
    assert torch.allclose(cached, whole[:, size:], atol=1e-5)


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--preset", "huge"], "preset 'huge' does not exist; the presets are avatar_14b, avatar_1b"),
        (["--seconds", "-1"], "--seconds is -1; it must lie in 0 .. 60"),
        (["--minutes", "0"], "--minutes is 0; it must lie in 0 .. 600"),
        (["--streams", "2", "1"], "--streams is 2 1; use rising numbers from 1 on"),
        (["--out", "/nowhere/at/all.json"], "--out: there is no folder /nowhere/at"),
        (["--runtime", "graphs"], "runtime 'graphs' needs a CUDA GPU, and the device is cpu; use auto"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--device", "meta"], "device 'meta' cannot be used"),
    ],
)
def test_bad_input_is_one_clear_line(argv: list[str], words: str, capsys):
    assert networks.main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA: what is said there is tested")
def test_without_a_card_the_command_of_cards_says_so_in_one_line(capsys):
    assert bench.main(["--device", "cuda", "--preset", "avatar_1b", "--json"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("flowact bench networks: device cuda cannot be used: ") and "\n" not in error
    assert error.endswith("--device cpu runs the same code, slowly")


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        ([], "live"),
        (["--device", "cuda", "--preset", "avatar_14b"], "networks"),
        (["live", "--device", "cuda"], "live"),
        (["--engine-only", "--device", "cuda"], "live"),
        (["networks", "--device", "cpu"], "networks"),
        (["dialogue", "--turns", "5"], "dialogue"),
    ],
)
def test_the_device_decides_what_is_measured_unless_it_is_said(argv: list[str], kind: str):
    assert bench._kind(argv) == kind


def options(*argv: str):
    return networks.parser().parse_args(["--preset", "debug", *QUICK, *argv])


def measured(monkeypatch: pytest.MonkeyPatch, *argv: str, **changes) -> tuple[bool, dict]:
    """A run of main's parts with some of them replaced."""
    for name, change in changes.items():
        monkeypatch.setattr(parts, name, change)
    monkeypatch.setattr(networks, "ceilings", lambda clock: {"float32": 1.0})
    setting = parts.Setting(debug(), CPU, "auto", "eager", Clock(CPU, 0), {})
    results = networks.Results({})
    return networks.measure(setting, options(*argv), results), results.record


def test_a_part_that_fails_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch):
    def fails(setting):
        raise RuntimeError("the card\nfell off")

    def full(setting):
        raise torch.OutOfMemoryError("CUDA out of memory")

    done, record = measured(
        monkeypatch, "--parts", "step", "fp8", "peer", "ttff", "kernels", "resolution", step=full, ttff=fails
    )
    assert not done
    assert record["not_measured"] == {
        "step": "out of memory: CUDA out of memory",
        "fp8": "the device's rate of FP8 products is not known",
        "peer": "the peer has the size of avatar_1b: it is compared with that preset",
        "ttff": "failed: RuntimeError: the card fell off",
        "kernels": "the Triton kernels need a CUDA device and the package triton",
        "resolution": "preset debug denoises motion, whatever the size of its pictures",
    }


def test_no_part_begins_after_the_minutes(monkeypatch: pytest.MonkeyPatch):
    done, record = measured(monkeypatch, "--minutes", "1e-9", "--parts", "step", step=lambda setting: {"whole": 1})
    assert done and record["not_measured"] == {"step": "the 1e-09 minutes were over"}


def test_curves_change_one_thing_of_the_preset(monkeypatch: pytest.MonkeyPatch):
    """Points are steps of the preset with what changes, and one that does not fit is said to."""
    seen = []

    def step(setting, precision=None, overrides=None):
        seen.append(preset(setting.config.name, overrides))
        if len(seen) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
        return dict.fromkeys(
            ("evaluation_ms", "chunk_ms", "decode_ms", "whole_ms", "fps", "matrix_share", "memory_gb"), 1
        )

    monkeypatch.setattr(parts, "step", step)
    setting = parts.Setting(avatar_1b(), CPU, "auto", "eager", Clock(CPU, 0), {})
    rows = parts.resolutions(setting)
    assert [row["name"] for row in rows] == ["480p", "720p", "1080p"]
    assert [config.dit.grid for config in seen] == [(15, 26), (22, 40), (34, 60)]
    assert rows[0]["fps"] == 1 and rows[2] == {
        "name": "1080p", "size": [1920, 1088], "not_measured": "CUDA out of memory. Tried to allocate",
    }  # fmt: skip
    seen.clear()
    parts.memories(replace(setting, config=debug()))
    assert [config.memory.long_term for config in seen] == [0, 1, 3, 7]
