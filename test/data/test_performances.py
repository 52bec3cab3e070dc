# SPDX-License-Identifier: Apache-2.0
"""Performances without pictures: what is written, that it is made once, and what is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_speech import FakeSynthesizer, only_fake

from flowact_ros.data import augment, clips, performances
from flowact_ros.data.clips import TAKES, ClipSpec, make_performance
from flowact_ros.data.performances import (
    SPEAKING,
    describe,
    encoder_of,
    read_performances,
    write_performances,
)
from flowact_ros.dialogue.speech import Speech


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    only_fake(monkeypatch)
    monkeypatch.setattr(performances, "PER_FILE", 2)


def encode(pcm: np.ndarray) -> np.ndarray:
    """The loudness of each frame, in the port's shape."""
    return np.repeat(np.abs(pcm).reshape(-1, 960).mean(1, keepdims=True), 384, 1)


def embed(text: str) -> np.ndarray:
    return np.full(384, len(text), np.float32)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_performances(tmp_path, 3, 3, "train", 4.0, encode, embed)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0000003.npz", "0000005.npz"]
    data = read_performances(tmp_path)
    assert (len(data), data.frames) == (3, 100)
    assert describe(tmp_path) == f"{tmp_path.name}: 3 from number 3, heard by embedded"
    for row, number in enumerate((3, 4, 5)):
        truth = make_performance(number, "train", 4.0, SPEAKING[number % len(SPEAKING)]).performance
        np.testing.assert_allclose(data.controls[row], truth.controls, atol=2e-3)
        np.testing.assert_allclose(data.sound[row], encode(truth.pcm), atol=1e-3)
        words = [data.texts[i] for i in data.text[row]]
        starts = [frame for frame, _ in truth.instruction if frame < 100]
        assert [words[frame] for frame in starts] == [
            text for frame, text in truth.instruction if frame < 100
        ]
        assert all(float(data.vectors[i, 0]) == len(data.texts[i]) for i in data.text[row])


def test_files_are_made_once_and_completely(tmp_path: Path) -> None:
    write_performances(tmp_path, 0, 2, "train", 1.0, encode, embed)
    path = tmp_path / "0000000.npz"
    before = path.stat().st_mtime_ns
    write_performances(tmp_path, 0, 4, "train", 1.0, encode, embed)
    assert path.stat().st_mtime_ns == before and len(read_performances(tmp_path)) == 4

    def failing(pcm: np.ndarray) -> np.ndarray:
        raise RuntimeError("no encoder")

    with pytest.raises(RuntimeError, match="no encoder"):
        write_performances(tmp_path, 10, 2, "train", 1.0, failing, embed)
    assert len(read_performances(tmp_path)) == 4


def test_folders_without_performances_or_with_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no performances; make them with `flowact data motion`"):
        read_performances(tmp_path)
    write_performances(tmp_path, 0, 1, "train", 1.0, encode, embed)
    write_performances(tmp_path, 2, 1, "train", 2.0, encode, embed)
    with pytest.raises(ValueError, match="0000002.npz has performances of"):
        read_performances(tmp_path)


def test_a_folder_is_heard_by_one_encoder(tmp_path: Path) -> None:
    assert encoder_of(tmp_path) is None
    write_performances(tmp_path, 0, 1, "train", 1.0, encode, embed, "whisper")
    assert encoder_of(tmp_path) == "whisper" and describe(tmp_path).endswith("heard by whisper")
    with pytest.raises(ValueError, match="heard by the whisper encoder; .* embedded give another folder"):
        write_performances(tmp_path, 2, 1, "train", 1.0, encode, embed)
    assert len(list(tmp_path.iterdir())) == 1


def test_files_without_a_name_were_heard_by_the_embedded_encoder(tmp_path: Path) -> None:
    write_performances(tmp_path, 0, 1, "train", 1.0, encode, embed)
    path = tmp_path / "0000000.npz"
    with np.load(path) as file:
        older = {name: file[name] for name in file if name != "heard_by"}
    np.savez(path, **older)
    assert encoder_of(tmp_path) == "embedded"
    with pytest.raises(ValueError, match="heard by the embedded encoder"):
        write_performances(tmp_path, 2, 1, "train", 1.0, encode, embed, "whisper")


@pytest.fixture
def kokoro(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Kokoro's network was asked for; the fake voice says them."""
    asked: list[str] = []

    class Asked(FakeSynthesizer):
        def synthesize(self, text: str, **how: float) -> Speech:
            asked.append(text)
            return super().synthesize(text, **how)

    def load(name: str) -> FakeSynthesizer:
        return Asked() if name.startswith("kokoro") else FakeSynthesizer()

    monkeypatch.setattr(augment, "load_synthesizer", load)
    monkeypatch.setattr(clips, "load_synthesizer", load)
    augment._said.cache_clear()
    return asked


def test_clips_of_kokoro_share_sentences_and_nothing_else(kokoro: list[str]) -> None:
    def takes_of(first: int) -> list[ClipSpec]:
        numbers = range(first, first + TAKES)
        return [make_performance(number, "train", 6.0, 0.8, of_kokoro=True) for number in numbers]

    takes = takes_of(3 * TAKES)
    longest = max((take.sentences for take in takes), key=len)
    assert longest and kokoro == longest  # each was synthesised once
    assert all(take.sentences == longest[: len(take.sentences)] for take in takes)
    assert len({take.voice.backend for take in takes}) == 1 and takes[0].voice.backend.startswith("kokoro:")
    assert len({take.voice.tract for take in takes}) == TAKES
    assert len({take.performance.controls.tobytes() for take in takes}) == TAKES
    assert takes_of(4 * TAKES)[0].sentences != takes[0].sentences
    again = make_performance(3 * TAKES, "train", 6.0, 0.8, of_kokoro=True)
    assert np.array_equal(again.performance.controls, takes[0].performance.controls)


def test_a_folder_has_kokoros_voices_or_the_others(tmp_path: Path, kokoro: list[str]) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "usual").mkdir()
    write_performances(tmp_path / "k", 0, 2, "train", 2.0, encode, embed, of_kokoro=True)
    assert kokoro and describe(tmp_path / "k") == "k: 2 from number 0, heard by embedded, spoken by Kokoro"
    with pytest.raises(ValueError, match="k holds performances with voices of Kokoro; without --kokoro give another"):
        write_performances(tmp_path / "k", 2, 1, "train", 2.0, encode, embed)
    write_performances(tmp_path / "usual", 0, 1, "train", 2.0, encode, embed)
    with pytest.raises(ValueError, match="with no voices of Kokoro; with --kokoro give another folder"):
        write_performances(tmp_path / "usual", 2, 1, "train", 2.0, encode, embed, of_kokoro=True)
