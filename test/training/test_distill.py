# SPDX-License-Identifier: Apache-2.0
"""Distillation of the encoders: the corpus is aligned, probes and losses tell right from wrong, training learns."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from flowact_ros.data.splits import HELDOUT_TEXTS, normalized
from flowact_ros.dialogue.speech import Phoneme, Speech
from flowact_ros.dialogue.synthesizer_phonemes import INVENTORY
from flowact_ros.models.audio_encoder import AudioEncoderConfig
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.text_encoder import EmbeddedTextEncoder, TextEncoderConfig
from flowact_ros.models.whisper_encoder import WhisperConfig, WhisperEncoder
from flowact_ros.training import main as training
from flowact_ros.training.methods import distill_audio, distill_corpus, distill_text, instruction_texts
from flowact_ros.training.methods.distill_corpus import (
    GROUPS,
    STEP,
    VARIANTS,
    VISEME,
    Corpus,
    build,
    load_or_build,
    visemes,
)
from flowact_ros.weights_store import WeightsError

SMALL = AudioEncoderConfig(stem_widths=(8, 8), width=16, dilations=(1,), features=16)


def artificial(frames: int = 240, seed: int = 0) -> Corpus:
    """Noise bursts: the mouth is open (viseme 9) while they sound."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.random(frames // 8) < 0.5, 8)
    pcm = rng.standard_normal(frames * 640) * np.where(np.repeat(loud, 640), 0.1, 1e-4)
    clean = pcm.astype(np.float16)
    mouth = np.stack([loud * 0.5, 1 - loud], 1).astype(np.float32)
    return Corpus(clean, np.stack([clean] * VARIANTS), mouth, np.where(loud, 9, 0))


def test_every_phoneme_has_one_viseme() -> None:
    assert set(VISEME) == set(INVENTORY)
    assert len(VISEME) == sum(len(group.split()) for group in GROUPS)


def test_visemes_are_read_in_the_middle_of_a_frame() -> None:
    spans = [Phoneme("SIL", 0, 0.06), Phoneme("M", 0.06, 0.11), Phoneme("AA", 0.11, 0.2)]
    assert visemes(spans, 5).tolist() == [0, VISEME["M"], VISEME["M"], VISEME["AA"], VISEME["AA"]]


def test_corpus_is_aligned_and_repeatable(tmp_path: Path) -> None:
    corpus = build(3, "train", 0.06)
    again = load_or_build(tmp_path, 3, "train", 0.06)
    assert corpus.frames % STEP == 0 and corpus.frames >= 0.06 * 60 * 25
    assert corpus.clean.shape == (corpus.frames * 640,) and corpus.heard.shape == (
        VARIANTS,
        corpus.frames * 640,
    )
    assert np.array_equal(corpus.clean, again.clean) and np.array_equal(corpus.heard, again.heard)
    speaking = corpus.viseme > 0
    # Sound and labels lie on one axis: frames labelled as speech are 100 times as loud as the others.
    assert corpus.loudness[speaking].mean() > corpus.loudness[~speaking].mean() + 2
    assert np.isfinite(corpus.heard).all() and np.abs(corpus.heard).max() <= 1


def test_probe_reads_what_is_there_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    x, unseen = torch.randn(600, 12, generator=generator), torch.randn(100, 12, generator=generator)
    weight = torch.randn(12, 2, generator=generator)
    assert torch.allclose(distill_audio.probe(x, x @ weight, unseen, ridge=1e-3), unseen @ weight, atol=1e-2)
    train, test = artificial(480), artificial(240, seed=1)
    good, control = (
        distill_audio.readable(
            torch.from_numpy(train.mouth).repeat(1, 3),
            train,
            torch.from_numpy(test.mouth).repeat(1, 3),
            test,
            shuffle=s,
        )
        for s in (False, True)
    )
    assert good["viseme"] == 1.0 and good["jaw_r2"] > 0.8 and good["loudness_r2"] > 0.8
    assert control["jaw_r2"] < 0.2


def test_whole_features_equal_live_windows() -> None:
    torch.manual_seed(0)
    encoder = distill_audio.EmbeddedAudioEncoder(SMALL).eval()
    pcm = 0.1 * torch.randn(640 * 13)
    a, b = (distill_audio.features(encoder, pcm, step) for step in (4, 13))
    assert a.shape == (13, 16)
    assert torch.allclose(a, b, atol=1e-5)


def test_audio_student_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corpus = artificial()
    teacher = WhisperEncoder(
        WhisperConfig(width=16, heads=2, depth=1, positions=200, context_frames=4)
    ).eval()
    raw = distill_audio.teacher_targets(teacher, corpus, tmp_path / "teacher.npy")
    assert torch.allclose(raw, torch.from_numpy(np.load(tmp_path / "teacher.npy")))
    targets = (raw - raw.mean(0)) / raw.std(0)
    student = distill_audio.Student(SMALL, 2)
    material = distill_audio.Material(corpus, targets, SMALL)
    batch = material.draw(np.random.default_rng(0), 4)
    before = student.loss(*batch)[0].item()
    options = {"run": tmp_path, "minutes": 1.0, "batch": 4, "lr": 3e-3, "seed": 0}
    assert distill_audio.train(student, material, steps=30, **options) == 30
    assert distill_audio.train(student, material, steps=60, **options) == 60
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    student.load_state_dict(last["student"])
    assert student.loss(*batch)[0].item() < 0.7 * before


def test_material_is_the_live_window_of_its_frames() -> None:
    corpus = replace(artificial())
    material = distill_audio.Material(corpus, torch.arange(240.0)[:, None].expand(-1, 16), SMALL)
    pcm, target, viseme, _ = material.draw(np.random.default_rng(1), 2)
    first = int(target[0, 0, 0])
    frame = pcm[0, SMALL.context : SMALL.context + 640].numpy()
    assert np.array_equal(frame, corpus.clean[first * 640 : (first + 1) * 640].astype(np.float32))
    assert viseme[0].tolist() == corpus.viseme[first : first + distill_audio.SEGMENT].tolist()


def test_instruction_texts_repeat_and_keep_the_heldout_apart() -> None:
    a, b = (
        instruction_texts.texts(np.random.default_rng(5), 400, ["door", "##s", "window", "9"])
        for _ in range(2)
    )
    assert a == b and len(a) == len(set(a))
    plain = {normalized(text) for text in a}
    assert not plain & {normalized(text) for _, text in instruction_texts.HELDOUT}
    assert not plain & HELDOUT_TEXTS
    assert set(instruction_texts.known()) <= set(a)
    assert not any("{" in text or "##" in text for text in a)


def test_text_loss_is_zero_only_for_the_teachers_vectors() -> None:
    target = torch.randn(8, 384, generator=torch.Generator().manual_seed(0))
    assert distill_text.loss(3 * target, target).item() == pytest.approx(0, abs=1e-5)
    assert distill_text.loss(target.roll(1, 0), target).item() > 0.8


def test_text_student_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lines = instruction_texts.known()[:40]
    targets = torch.randn(40, 384)
    student = EmbeddedTextEncoder(TextEncoderConfig(buckets=997, embed=16, width=32, heads=2, hidden=32))
    before = torch.cosine_similarity(student(lines)[:, 0], targets).mean().item()
    options = {"minutes": 1.0, "steps": 100, "batch": 32, "lr": 1e-2, "seed": 0, "log": tmp_path / "log.csv"}
    assert distill_text.train(student, lines, targets, **options) == 100
    after = torch.cosine_similarity(distill_text.vectors(student, lines), targets).mean().item()
    assert after > before + 0.3
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_twelfth_of_the_texts_is_held_back() -> None:
    share = np.mean([distill_text.held_back(f"text number {i}") for i in range(5000)])
    assert 0.06 < share < 0.11


def test_the_commands_say_whose_weights_lack(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for stage, model in (("audio-encoder", "whisper-tiny.en"), ("text-encoder", "minilm")):
        assert training.main([stage, "--run", str(tmp_path / "run")]) == 1
        told = capsys.readouterr().err
        assert f"flowact weights get {model}" in told and len(told.splitlines()) == 1


def test_the_command_distils_and_keeps_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of speech, a small student: written with the channel statistics of the weights that were there."""
    torch.manual_seed(0)
    shipped, folder = safetensors.torch.load_file(weights_dir() / "audio_encoder.safetensors"), tmp_path / "weights"
    folder.mkdir()
    statistics = {name: shipped[name] for name in ("feature_mean", "feature_std")}
    safetensors.torch.save_file(statistics, folder / "audio_encoder.safetensors")
    teacher = WhisperEncoder(WhisperConfig(depth=1, positions=200, context_frames=4)).eval()
    small = AudioEncoderConfig(stem_widths=(8, 8), width=16, dilations=(1,))
    for name, value in {
        "PART": 0.05, "weights_dir": lambda: folder, "load_whisper": lambda path: teacher,
        "AudioEncoderConfig": lambda: small,
    }.items():  # fmt: skip
        monkeypatch.setattr(distill_audio, name, value)
    options = ["--run", str(tmp_path / "run"), "--teacher", "any", "--speech", "0.1", "--steps", "3", "--export"]
    assert training.main(["audio-encoder", *options]) == 0
    assert len(list((tmp_path / "run").glob("speech_train_*.npz"))) == 2
    encoder = distill_audio.EmbeddedAudioEncoder(small)
    card = load_weights(folder / "audio_encoder.safetensors", encoder, kind="audio_encoder", config=small)
    assert card["steps"] == 3 and card["heldout"]["embedded"]["viseme"] >= 0
    assert torch.equal(encoder.feature_std, shipped["feature_std"].float())
    # Another run goes on from there, with the same probes to read it by and a rate that has hardly risen.
    options[1] = str(tmp_path / "more")
    assert training.main(["audio-encoder", *options, "--from-shipped", "--lr", "1e-9"]) == 0
    same = distill_audio.EmbeddedAudioEncoder(small)
    assert load_weights(folder / "audio_encoder.safetensors", same, kind="audio_encoder", config=small)["steps"] == 6
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(encoder.parameters(), same.parameters(), strict=True))


def test_a_third_of_what_is_heard_is_spoken_by_kokoro() -> None:
    corpus, targets = artificial(frames=2400), torch.arange(2400.0)[:, None].expand(-1, 16)
    material = distill_audio.Material(corpus, targets, SMALL, kokoro=240)
    first = material.draw(np.random.default_rng(0), 600)[1][:, 0, 0]
    assert float((first >= 2160).float().mean()) == pytest.approx(distill_audio.KOKORO_SHARE, abs=0.06)


def test_kokoro_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    monkeypatch.setattr(distill_audio, "load_whisper", lambda path: None)
    monkeypatch.setattr(distill_audio, "find_audio_weights", lambda *a: tmp_path)
    options = {"teacher": None, "run": tmp_path, "kokoro": 20.0, "speech": 1.0, "seed": 0, "minutes": 1, "steps": 1}
    with pytest.raises(WeightsError, match="flowact weights get kokoro"):
        distill_audio.distil(argparse.Namespace(**options, batch=1, lr=1e-3))


def test_a_sentence_of_kokoro_is_heard_from_several_throats(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoken:
        calls = 0

        def synthesize(self, text: str, *, rate: float) -> Speech:
            self.calls += 1
            pcm = np.sin(np.arange(24_000) / 20).astype(np.float32)
            return Speech(pcm, [Phoneme("AA", 0.0, 0.5), Phoneme("M", 0.5, 1.0)], [])

    voice = Spoken()
    monkeypatch.setattr(distill_corpus, "load_synthesizer", lambda name: voice)
    monkeypatch.setattr(distill_corpus, "NOISE_ONLY", 0.0)
    parts = distill_corpus.utterances(np.random.default_rng(0), "train", of_kokoro=True)
    assert voice.calls == 1 and len(parts) == distill_corpus.TRACTS
    spoken = [int((part.viseme == VISEME["AA"]).sum()) for part in parts]
    assert all(9 <= n <= 15 for n in spoken) and len({part.clean.tobytes() for part in parts}) == len(parts)
