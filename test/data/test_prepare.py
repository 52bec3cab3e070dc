# SPDX-License-Identifier: Apache-2.0
"""`flowact data`: clips are made once, and what cannot be made gives one line and a status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_speech import only_fake
from small_whisper import install_whisper

from flowact_ros.data import prepare
from flowact_ros.data.clips import make_performance
from flowact_ros.data.performances import SPEAKING, read_performances
from flowact_ros.data.store import read_clips
from flowact_ros.dialogue import synthesizer, synthesizer_hibari
from flowact_ros.engine.audio_window import AudioWindow


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = prepare.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


def one_line(told: tuple[int, str], status: int = 2) -> str:
    assert told[0] == status and told[1].startswith("flowact data: ") and told[1].count("\n") == 1
    return told[1]


def test_snippets_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("snippets", "--size", 32, "--seed", 7, "--out", tmp_path)
    assert run(capsys, *options, "--count", 1) == (0, "")
    card = tmp_path / "0000007" / "clip.json"
    written = card.stat().st_mtime_ns
    assert run(capsys, *options, "--count", 2) == (0, "")
    assert card.stat().st_mtime_ns == written
    assert [clip.info["seed"] for clip in read_clips(tmp_path)] == [7, 8]
    assert json.loads(card.read_text())["size"] == 32


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--count", -1), "--count is -1; it must be 1 or more"),
        (("--count", 0), "--count is 0"),
        (("--size", 7), "size is 7; a whole number of pixels in 32..4096 is needed"),
        (("--seconds", "nan"), "--seconds is nan; it must lie in 0.4 .. 600"),
        (("--seconds", "inf"), "--seconds is inf"),
        (("--seconds", 0.1), "--seconds is 0.1"),
        (("--seed", -3), "clips -3 .. -3; they must lie in 0 .. 3999999"),
        (("--seed", 3_999_999, "--count", 2), "clips 3999999 .. 4000000"),
        (("--threads", 0), "--threads is 0; it must lie in 1 .. 64"),
    ],
)
@pytest.mark.parametrize("kind", ["snippets", "clips"])
def test_bad_options(
    kind: str, options: tuple, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--count", 1, "--seconds", 0.4, "--size", 32, "--out", tmp_path)
    assert says in one_line(run(capsys, kind, *few, *options))
    assert not list(tmp_path.iterdir())


def test_no_snippet_of_training_shows_a_heldout_character() -> None:
    assert prepare.SNIPPET_SEED + prepare.LARGEST_NUMBER < prepare.HELDOUT_SNIPPET_SEED


def test_pictures_of_a_size_that_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "size is 5000" in one_line(run(capsys, "characters", "--size", 5000, "--out", tmp_path))


def test_out_that_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        line = one_line(run(capsys, "snippets", "--count", 1, "--size", 32, "--out", out))
        assert f"--out {out} cannot be a folder: " in line
    (tmp_path / "0000000").touch()
    assert "0000000" in one_line(run(capsys, "snippets", "--count", 1, "--size", 32, "--out", tmp_path), 1)


def test_a_missing_voice_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scipy", reason="clips need scipy: `make setup-dev` installs it")
    monkeypatch.setattr(synthesizer, "_loaded", {})
    synthesizer_hibari._reader.cache_clear()
    monkeypatch.setattr(synthesizer, "BACKENDS", {"hibari": synthesizer.BACKENDS["hibari"]})
    monkeypatch.setitem(sys.modules, "hibari", None)
    line = one_line(run(capsys, "clips", "--count", 8, "--seconds", 2, "--size", 32, "--out", tmp_path))
    assert "hibari-tts, which is not installed" in line and "pip install hibari-tts" in line


def test_a_missing_package_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flowact_ros.data.clips", None)  # as without scipy
    line = one_line(run(capsys, "clips", "--count", 1, "--seconds", 1, "--size", 32, "--out", tmp_path))
    assert "make setup-dev" in line


def test_motion_heard_by_whisper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are those of live steps of a chunk; the folder refuses the other encoder afterwards."""
    only_fake(monkeypatch)
    window = AudioWindow(install_whisper(monkeypatch, tmp_path / "cache"))
    out = tmp_path / "motion"
    options = ("motion", "--count", 1, "--seconds", 1.92, "--out", out)
    assert run(capsys, *options, "--audio-encoder", "whisper") == (0, "")
    pcm = make_performance(0, "train", 1.92, SPEAKING[0]).performance.pcm
    truth = np.pad(pcm, (window.context_samples, window.lookahead_samples)).astype(np.float32)
    live = [window(truth[at : len(truth) - 36 * 960 + at]).numpy() for at in range(0, 48 * 960, 12 * 960)]
    found = read_performances(out).sound[0].astype(np.float32)
    assert np.abs(found - np.concatenate(live)).mean() < 0.02 < np.abs(found).mean()
    assert "heard by the whisper encoder" in one_line(run(capsys, *options))


def test_whisper_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "cache"))
    options = ("motion", "--count", 1, "--audio-encoder", "whisper", "--out", tmp_path / "motion")
    line = one_line(run(capsys, *options))
    assert "whisper's encoder is not on this machine: flowact weights get whisper-tiny.en" in line
    assert not list((tmp_path / "motion").iterdir())


def test_kokoro_is_for_motion_and_has_to_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "cache"))
    line = one_line(run(capsys, "motion", "--kokoro", "--count", 1, "--out", tmp_path / "motion"))
    assert "flowact weights get kokoro" in line and not list((tmp_path / "motion").iterdir())
    line = one_line(run(capsys, "clips", "--kokoro", "--count", 1, "--out", tmp_path / "clips"))
    assert "--kokoro is for motion" in line
