# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu_session: commands that exist, limits that hold, results that stay, and a second call that goes on."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("gpu_session", str(ROOT / "scripts" / "gpu_session"))
    spec = importlib.util.spec_from_loader("gpu_session", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_session"] = module  # its dataclasses look themselves up
    loader.exec_module(module)
    return module


def options(tmp_path: Path, device: str) -> argparse.Namespace:
    return argparse.Namespace(device=device, out=tmp_path / "out", runs=tmp_path / "runs")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_command_is_one_that_its_program_takes(script: ModuleType, tmp_path: Path, device: str):
    from flowact_ros.data.prepare import _parser as data_parser
    from flowact_ros.evaluation.bench import _parser as live_parser
    from flowact_ros.evaluation.bench_networks.main import parser as bench_parser
    from flowact_ros.training.main import parser as training_parser

    taken = []
    for part in script.parts(options(tmp_path, device), "python"):
        if part.command[1:3] != ("-m", "flowact_ros.cli"):
            continue
        verb, *rest = part.command[3:]
        if verb == "bench" and rest[0] != "networks":
            given = live_parser().parse_args(rest)
            assert given.engine_only and given.random_weights and given.device == device
        elif verb == "bench":
            given = bench_parser().parse_args(rest[1:])
            assert given.out == tmp_path / "out" / f"{part.name}.json" and given.device == device
        else:
            given = {"data": data_parser, "train": training_parser}[verb]().parse_args(rest)
            assert getattr(given, "device", device) == device
        taken.append(part.name)
    assert {"bench-avatar_1b", "bench-avatar_14b", "bench-avatar_cpu", "renderer", "denoiser"} <= set(taken)
    if device == "cuda":
        tests = next(part for part in script.parts(options(tmp_path, device), "python") if part.name == "tests")
        assert tests.command[-7:-3] == ("-m", "cuda", "-q", "-rs")
        places = tests.command[-3:]
        marked = [path for path in (ROOT / "test").rglob("test_*.py") if ("mark." + "cuda") in path.read_text("utf-8")]
        assert marked and all(any(path.is_relative_to(ROOT / place) for place in places) for path in marked)


def part(script: ModuleType, name: str, code: str, limit: float, **more):
    return script.Part(name, (sys.executable, "-c", code), limit, **more)


SLEEPS = "import time; print('began', flush=True); time.sleep(60)"
SAVES = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
    "print('began', flush=True); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


def test_parts_have_limits_and_leave_what_they_found(script: ModuleType, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(script, "LEAST_S", 0.1)
    session = script.Session(tmp_path, minutes=10)
    found = json.dumps({"step": {"fps": 3.5, "curve": [{"n": 1}]}, "picture": [8, 8]})
    writes = f"import pathlib; pathlib.Path({str(tmp_path / 'figures.json')!r}).write_text({found!r})"
    for one in (
        part(script, "figures", writes, 60.0),
        part(script, "fails", "raise SystemExit(3)", 60.0),
        part(script, "slow", SLEEPS, 2.0),
        part(script, "training", SAVES, 6.0, saves=True),
        part(script, "stubborn", STUBBORN, 1.0),
    ):
        session.run(one)
    became = json.loads((tmp_path / "parts.json").read_text())
    assert {name: (row["done"], row["said"]) for name, row in became.items()} == {
        "figures": (True, "done"),
        "fails": (False, "exit status 3"),
        "slow": (False, "stopped after 2 s"),
        "training": (True, "done"),
        "stubborn": (False, "stopped after 1 s"),
    }
    report = (tmp_path / "report.md").read_text()
    assert "| step.fps | 3.5 |" in report and "| step.curve[0].n | 1 |" in report and "| picture | [8, 8] |" in report
    assert "began" in (tmp_path / "training.log").read_text()
    again = script.Session(tmp_path, minutes=10)
    again.run(part(script, "figures", "raise SystemExit(1)", 60.0))  # it was done
    again.run(part(script, "fails", "", 60.0))
    assert again.became["figures"]["said"] == again.became["fails"]["said"] == "done"


def test_what_has_no_time_left_is_not_begun(script: ModuleType, tmp_path: Path):
    session = script.Session(tmp_path, minutes=1)
    session.run(part(script, "late", "", 60.0), reserved=55.0)
    assert session.became["late"] == {"done": False, "said": "the time was over", "seconds": 0.0}


def test_training_has_the_rest_and_shares_it(script: ModuleType, tmp_path: Path):
    every = script.parts(options(tmp_path, "cuda"), "python")
    named = {one.name: one for one in every}

    def kept(name: str, left: float) -> float:
        return script.reserve(named[name], every, 180.0, left)

    assert kept("tests", 700.0) == kept("data", 300.0) == 180 + 40
    assert kept("renderer", 240.0) == 40 + 100  # as much for the denoiser as for itself
    assert kept("denoiser", 140.0) == 40
    assert kept("export-renderer", 40.0) == 20 and kept("export-denoiser", 20.0) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--only", "tea"], "there is no part tea; they are machine, tests, bench-avatar_1b"),
        (["--minutes", "0"], "--minutes must lie in 0 .. 1440, and --train-minutes below it"),
        (["--minutes", "2", "--train-minutes", "3"], "--minutes must lie in 0 .. 1440, and --train-minutes below it"),
    ],
)
def test_bad_input_is_one_line(script: ModuleType, argv: list[str], words: str, tmp_path: Path, capsys):
    assert script.main([*argv, "--device", "cpu", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA: what is said there is tested")
def test_without_a_card_it_says_how_to_rehearse(script: ModuleType, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(script, "interpreter", lambda: sys.executable)
    assert script.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA GPU here; --device cpu rehearses" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rehearsal_on_the_small_presets(script: ModuleType, tmp_path: Path, monkeypatch):
    """All parts but the slowest, for real: each its own process, on the CPU."""
    monkeypatch.setenv("PYTHON", sys.executable)
    names = ["machine", "tests", "bench-avatar_1b", "data", "heldout", "denoiser", "export-denoiser"]
    argv = ["--device", "cpu", "--minutes", "30", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    status = script.main([*argv, "--only", *names])
    became = json.loads((tmp_path / "out" / "parts.json").read_text())
    assert status == 0, became
    assert "fps" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "weights" / "denoiser.safetensors").exists()
