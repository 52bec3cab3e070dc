# SPDX-License-Identifier: Apache-2.0
"""`flowact eval quick` with the renderer of the world in place of the networks: truth passes, a still picture fails."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_whisper import install_whisper

from flowact_ros.data.clips import make_performance
from flowact_ros.data.splits import HELDOUT_CHARACTER_SEEDS, HELDOUT_VOICES
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.evaluation import clips as material
from flowact_ros.evaluation import quick
from flowact_ros.evaluation.generate import generate
from flowact_ros.evaluation.main import heard_by_whisper, main, settings_of
from flowact_ros.evaluation.rig_readout import load_readout

SIZE = 192
KEYS = (
    "mouth_opening_correlation", "mouth_opening_lag_s", "mouth_width_correlation", "mouth_rounding_correlation",
    "closure_ratio", "opening_spread_ratio", "blink_rate_ratio", "lids_together", "gaze_spread_ratio",
    "saccade_rate_ratio", "motion_energy_ratio", "acceleration_ratio", "jump_ratio", "shuffled_mouth_correlation",
)  # fmt: skip


@dataclass
class Nothing:
    """Stands for a pipeline where only its size is asked for."""

    height: int = SIZE
    width: int = SIZE


@pytest.fixture(scope="module")
def speech():
    pytest.importorskip("hibari", reason="speech with phoneme times needs hibari-tts")
    return material.speech_clips(2, 3.2, SIZE)


def test_heldout_clips_are_fixed_and_never_trained_on(speech):
    again = material.speech_clips(2, 3.2, SIZE)
    for a, b in zip(speech, again, strict=True):
        np.testing.assert_array_equal(a.pcm, b.pcm)
        np.testing.assert_array_equal(a.controls, b.controls)
        assert int(a.name.removeprefix("seed:")) in HELDOUT_CHARACTER_SEEDS
        assert a.frames % 4 == 0 and len(a.pcm) == a.frames * 960
    assert speech[0].name != speech[1].name
    assert not {c.name for c in material.speech_clips(2, 3.2, SIZE, split="validation")} & {
        c.name for c in speech
    }


def test_a_clip_knows_who_speaks(speech):
    known = {backend for backend, _, _ in HELDOUT_VOICES}
    assert {clip.voice for clip in speech} <= known
    assert speech[0].voice == make_performance(0, "heldout", 3.2).voice.backend
    seen = [quick.Seen(clip, None, clip.true(), clip.true(), (1.0, 1.0), {}) for clip in speech]
    card = {"errors": {}}
    running = quick.Quick(Nothing(), None, card, quick.Settings(clips=2))
    running._voices(speech, [clip.true() for clip in speech], seen)
    found = running.report.record()["lips_by_voice"]
    assert set(found) == {clip.voice for clip in speech}
    assert sum(voice["opening"]["n"] for voice in found.values()) == len(speech)
    assert all(voice["opening"]["pixels"] == voice["opening"]["value"] == 1.0 for voice in found.values())


def test_controls_change_what_they_name_and_nothing_else(speech):
    swapped = speech[0].with_sound_of(speech[1])
    assert len(swapped.pcm) == len(speech[0].pcm) and (swapped.pcm != speech[0].pcm).any()
    np.testing.assert_array_equal(swapped.controls, speech[0].controls)
    other = speech[0].again(5)
    np.testing.assert_array_equal(other.pcm, speech[0].pcm)
    a, b = speech[0].true().series, other.true().series
    assert np.corrcoef(a[:, 0], b[:, 0])[0, 1] > 0.9  # the lips are those of the sound
    assert np.abs(a[:, 13] - b[:, 13]).max() > 0.02  # the head turns as it likes
    clip = material.behaviour_clips(1, SIZE)[0]
    told, turned = clip.performance.instruction, clip.with_texts_of_others().performance.instruction
    assert [at for at, _ in told] == [at for at, _ in turned] and all(
        a != b for (_, a), (_, b) in zip(told, turned)
    )
    assert len(told) == 9


class Puppet:
    """Answers for `generate` and `draw` with the performance that the sound belongs to."""

    def __init__(self, monkeypatch, still: bool) -> None:
        self.still, self.known, self.pictures = still, {}, {}
        for name in ("speech_clips", "long_clips"):
            monkeypatch.setattr(quick, name, self._noting(getattr(material, name)))
        monkeypatch.setattr(quick, "generate", self.generate)
        monkeypatch.setattr(quick, "draw", self.draw)

    def _noting(self, make):
        def made(*args, **how):
            found = make(*args, **how)
            self.pictures |= {clip.picture().tobytes(): clip for clip in found}
            self.known |= {(clip.pcm.tobytes(), clip.picture().tobytes()): clip for clip in found}
            return found

        return made

    def generate(self, pipeline, picture, pcm, instructions, seed, tell=lambda frames: None):
        clip = self.known.get((pcm.tobytes(), picture.tobytes())) or next(iter(self.known.values()))
        motion = clip.controls.numpy()[: len(pcm) // 960]
        if self.still:
            motion = np.repeat(motion[:1], len(motion), 0)
        tell(len(motion))
        who = self.pictures[picture.tobytes()]
        return iter(who.paint(motion).permute(0, 2, 3, 1).numpy()), motion

    def draw(self, pipeline, picture, motion):
        who = self.pictures[picture.tobytes()]
        frames = who.paint(torch.as_tensor(motion)).float()
        if self.still:
            frames = torch.nn.functional.avg_pool2d(frames, 7, 1, 3)
        return frames.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def run(monkeypatch, still: bool, out=None, whisper=None) -> dict:
    Puppet(monkeypatch, still)
    monkeypatch.setattr(material, "DIALOGUE", 0.0)
    settings = quick.Settings(clips=2, seconds=3.2, behaviours=0, minutes=3.0, controls=1, out=out)
    seen: list[float] = []
    readout, card = load_readout()
    tell = lambda text, done: seen.append(done)  # noqa: E731
    report = quick.Quick(Nothing(), readout, card, settings, tell, whisper).run()
    assert seen == sorted(seen)
    return json.loads(report.json())


@pytest.mark.slow
def test_the_truth_itself_meets_the_table(monkeypatch, tmp_path, speech):
    record = run(monkeypatch, still=False, out=tmp_path, whisper=Nothing())
    assert set(KEYS) <= set(record) and {"yaw", "pitch", "roll"} == set(record["head_spread_ratio"])
    assert {"face", "eyes", "mouth"} == set(record["edges"]) and {"whole", "eyes", "mouth"} == set(
        record["oracle_psnr"]
    )
    for key in ("blink_rate_ratio", "gaze_spread_ratio", "saccade_rate_ratio", "acceleration_ratio", "jump_ratio",
                "opening_spread_ratio", "closure_ratio", "mouth_opening_lag_s"):  # fmt: skip
        assert record[key]["met"], (key, record[key])
    assert (
        record["edges"]["eyes"]["value"] == pytest.approx(1.0)
        and record["oracle_psnr"]["eyes"]["value"] == 99.0
    )
    assert "lips_by_voice" not in record  # nobody speaks in the long motion of this test
    assert set(record["whisper"]) == {"opening", "width", "rounding"}
    for figure in record["whisper"].values():
        assert figure["met"] and figure["value"] == figure["embedded"] == pytest.approx(1.0)
    for name in ("clips.png", "lips.png", "series.npz", "report.json"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.slow
def test_a_still_picture_misses_it(monkeypatch, speech):
    record = run(monkeypatch, still=True)
    for key in ("mouth_opening_correlation", "opening_spread_ratio", "blink_rate_ratio", "gaze_spread_ratio",
                "saccade_rate_ratio", "motion_energy_ratio"):  # fmt: skip
        assert record[key]["met"] is False, (key, record[key])
    assert record["oracle_psnr"]["eyes"]["met"] is False
    assert record["whisper"] is None  # nobody heard by it


def test_the_same_networks_hear_by_whisper_where_it_is(monkeypatch, tmp_path):
    asked = argparse.Namespace(audio_encoder="embedded")
    pipeline = build_pipeline("debug")
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "nothing"))
    assert heard_by_whisper(pipeline, asked) == (
        None, "not measured: whisper's encoder is not on this machine: flowact weights get whisper-tiny.en"
    )  # fmt: skip
    encoder = install_whisper(monkeypatch, tmp_path)
    other, lacking = heard_by_whisper(pipeline, asked)
    assert lacking == "" and other.denoiser is pipeline.denoiser
    assert other.window.encoder.context_samples == encoder.context_samples
    assert other.context_samples != pipeline.context_samples
    assert heard_by_whisper(other, argparse.Namespace(audio_encoder="whisper"))[0] is other
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in pipeline.denoiser.parameters():
            parameter.normal_(std=0.2)  # a new network hears nothing: its last layers begin at zero
    pcm = (0.1 * np.random.default_rng(0).standard_normal(960 * 16)).astype(np.float32)
    picture = np.full((128, 128, 3), 128, np.uint8)
    a, b = (generate(heard_by, picture, pcm, [(0, "")], 0)[1] for heard_by in (pipeline, other))
    assert a.shape == b.shape == (16, 40) and not np.array_equal(a, b)


def test_whisper_that_is_not_there_is_one_clear_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    assert main(["quick", "--audio-encoder", "whisper", "--preset", "debug"]) == 1
    told = "flowact eval: whisper's encoder is not on this machine: flowact weights get whisper-tiny.en\n"
    assert capsys.readouterr().err == told


def test_settings_are_nested_and_typed():
    assert settings_of(["schedule.steps=3", "memory.long_term=1"]) == {
        "schedule": {"steps": 3},
        "memory": {"long_term": 1},
    }
    for bad in ("schedule.steps", "=3"):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            settings_of([bad])


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["quick", "--clips", "0"], 2, "--clips is 0; it must lie in 1 .. 64"),
        (["quick", "--seconds", "1"], 2, "--seconds is 1; it must lie in 2 .. 60"),
        (["quick", "--minutes", "0"], 2, "--minutes is 0; it must lie in 1 .. 240"),
        (["quick", "--threads", "-1"], 2, "--threads is -1; it must lie in 0 .. 64"),
        (["quick", "--character", "nobody"], 2, "--character 'nobody' does not exist"),
        (["quick", "--set", "lines"], 2, "--set 'lines' is no KEY=VALUE"),
        (["quick", "--preset", "huge"], 1, "preset 'huge' does not exist"),
        (["readout", "--steps", "0"], 2, "--steps is 0; it must be 1 or more"),
        (["readout", "--run", "/nonexistent", "--export"], 1, "/nonexistent holds no training run"),
    ],
)
def test_bad_input_is_one_clear_line(argv: list[str], status: int, words: str, capsys):
    assert main(argv) == status
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
