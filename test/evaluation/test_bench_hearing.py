# SPDX-License-Identifier: Apache-2.0
"""`flowact bench hearing`: a real network of random weights over a synthetic voice, and the word error rate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowact_ros.cli import main
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.evaluation import bench_hearing
from flowact_ros.evaluation.recordings import find_recordings, word_errors, words
from flowact_ros.media.wav import write_wav

TEXT = "Hello, how are you today?"


@pytest.fixture(scope="module")
def wavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    write_wav(folder / "hello.wav", load_synthesizer("hibari").synthesize(TEXT).pcm, 24_000)
    (folder / "hello.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_whisper import make_transformers

    return make_transformers(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("Good morning, everybody.", "good morning everybody", 0),
        ("a b c d", "a x c", 2),
        ("a b", "a b c d", 2),
        ("a b c", "", 3),
        ("", "a", 1),
        ("press one", "Press 1!", 0),
        ("don’t stop", "don't stop", 0),
        ("re-enter", "re enter", 0),
        ("b a", "a b", 2),
    ],
)
def test_word_errors(reference: str, heard: str, errors: int) -> None:
    assert word_errors(reference, heard) == (errors, len(words(reference)))


def test_recordings_have_their_words_beside_them_or_in_a_list(tmp_path: Path, wavs: Path) -> None:
    book = tmp_path / "84" / "121123"
    book.mkdir(parents=True)
    for name in ("84-121123-0000", "jfk", "unknown"):
        write_wav(book / f"{name}.wav", np.zeros(100, np.float32), 16_000)
    (book / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n")
    found = {recording.path.stem: recording.text for recording in find_recordings(tmp_path)}
    assert found["84-121123-0000"] == "GO DO YOU HEAR" and found["jfk"].startswith("And so, my fellow")
    assert set(found) == {"84-121123-0000", "jfk"}
    assert [recording.text for recording in find_recordings(wavs)] == [TEXT]


def test_a_run_prints_one_object(wavs: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--recognizer", "transformers", "--model", str(model), "--wavs", str(wavs), "--json"]
    assert main(["bench", "hearing", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    (file,) = result["files"]
    assert file["name"] == "hello.wav" and file["utterances"] == 1 and file["words"] == 5
    assert result["words"] == 5 and result["word_error_rate"] == file["errors"] / 5
    (after,) = file["final_text_after_s"]
    assert after > 0.5 and result["final_text_after_s"]["p50"] == after  # it waits for the hangover at least
    assert result["real_time_factor"] > 0 and result["share_of_a_core"] > 0 and result["rss_mb"] > 0
    assert result["recognition_s"]["p50"] > 0 and result["published_word_error_rate"] is None


def test_fast_does_not_wait_and_a_table_is_shown(
    wavs: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_hearing.time, "sleep", lambda seconds: pytest.fail("it waits"))
    options = ["--recognizer", "transformers", "--model", str(model), "--wavs", str(wavs), "--fast"]
    assert main(["bench", "hearing", *options]) == 0
    out = capsys.readouterr().out
    assert "hello.wav" in out and "word error rate" in out and "real-time factor" in out
    assert "end of speech" not in out


BAD = {
    "no folder": (["--wavs", "/nowhere"], "give one with --wavs"),
    "no words": (["--wavs", "SILENT"], "NAME.txt"),
    "hangover": (["--hangover", "9"], "hangover_s"),
    "partial interval": (["--partial-interval", "0.1"], "partial_interval_s"),
    "threads": (["--threads", "0"], "threads"),
    "language": (["--language", "!"], "BCP 47"),
    "recognizer": (["--recognizer", "ears"], "ears"),
    "model": (["--recognizer", "transformers", "--model", "/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_command_lines(name: str, wavs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "silent.wav", np.zeros(100, np.float32), 16_000)
    given, says = BAD[name]
    given = [str(tmp_path) if argument == "SILENT" else argument for argument in given]
    arguments = given if "--wavs" in given else ["--wavs", str(wavs), *given]
    try:
        status = main(["bench", "hearing", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    err = capsys.readouterr().err
    assert status != 0 and says in err.splitlines()[-1] and "Traceback" not in err
