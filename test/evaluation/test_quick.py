# SPDX-License-Identifier: Apache-2.0
"""`flowact eval quick` on random weights and on made-up results: in step with the sound, fair, and able to fail."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import NAMED, identity_from_seed, neutral, neutral_picture
from flowact_ros.data.performance import Performance
from flowact_ros.data.splits import HELDOUT_CHARACTER_SEEDS
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.evaluation import clips as material
from flowact_ros.evaluation.figures import ClipResult, lip_figures, motion_figures
from flowact_ros.evaluation.main import main, settings_of
from flowact_ros.evaluation.quick import Quick, Settings
from flowact_ros.evaluation.readout import MouthReadout
from flowact_ros.evaluation.report import Figure, Report

SIZE = 128


@pytest.fixture(scope="module")
def pipeline():
    built = build_pipeline("debug", overrides={"lines": SIZE})
    generator = torch.Generator().manual_seed(0)
    for module in (built.vae, built.denoiser):
        for value in module.parameters():  # many start at zero, and would hide what goes through them
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return built


def quiet_performance(frames: int, seed: int = 0) -> Performance:
    rng = np.random.default_rng(seed)
    return Performance(
        controls=neutral(frames).numpy(),
        pcm=(0.1 * rng.standard_normal(frames * 960)).astype(np.float32),
        behaviour=np.full(frames, 3, np.int8),
        instruction=[(0, "talking to the viewer"), (frames // 2, "listening")],
        phonemes=[],
    )


def test_stream_gives_every_frame_the_sound_of_its_performance(pipeline):
    parts = [quiet_performance(16, 1), quiet_performance(24, 2)]
    picture = neutral_picture(NAMED["mia"], SIZE)
    starts: list[int] = []
    frames = list(material.stream(pipeline, picture, parts, starts=starts))
    assert [frame.index for frame in frames] == list(range(40))
    heard = np.concatenate([frame.audio for frame in frames])
    np.testing.assert_allclose(heard, np.concatenate([p.pcm for p in parts]), atol=1e-4)
    assert [frame.utterance_id for frame in frames] == ["clip-0"] * 16 + ["clip-1"] * 24
    assert starts[0] == 0 and starts == sorted(starts) and all(k % 4 == 0 for k in starts)


def test_stream_is_the_same_for_the_same_seed_and_another_for_another(pipeline):
    picture = neutral_picture(NAMED["mia"], SIZE)

    def pictures(seed: int) -> np.ndarray:
        out = material.stream(pipeline, picture, [quiet_performance(12)], seed=seed)
        return np.stack([frame.rgb for frame in islice(out, 8)])

    np.testing.assert_array_equal(pictures(1), pictures(1))
    assert (pictures(1) != pictures(2)).any()


def test_heldout_clips_are_fixed_and_never_trained_on():
    pytest.importorskip("hibari", reason="speech with phoneme times needs hibari-tts")
    first, again = material.heldout_clips(3, 3.0, SIZE), material.heldout_clips(3, 3.0, SIZE)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.pcm, b.pcm)
        np.testing.assert_array_equal(a.opening, b.opening)
        assert int(a.name.removeprefix("seed:")) in HELDOUT_CHARACTER_SEEDS
        assert a.frames % 4 == 0 and len(a.pcm) == a.frames * 960
    other = material.heldout_clips(3, 3.0, SIZE, split="validation")
    assert not {c.name for c in other} & {c.name for c in first}
    assert {c.identity.style for c in first} == {"human", "robot"}
    assert len({c.name for c in first}) == 3
    swapped = first[0].with_sound_of(first[1])
    assert len(swapped.pcm) == len(first[0].pcm) and (swapped.pcm != first[0].pcm).any()
    np.testing.assert_array_equal(swapped.opening, first[0].opening)


def test_settings_are_nested_and_typed():
    assert settings_of(["schedule.temperature=0.5", "schedule.steps=3", "memory.retain=1.0"]) == {
        "schedule": {"temperature": 0.5, "steps": 3},
        "memory": {"retain": 1.0},
    }
    for bad in ("schedule.temperature", "=3"):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            settings_of([bad])


def test_round_trip_streams_like_one_piece(pipeline):
    frames = torch.randint(0, 255, (20, 3, SIZE, SIZE), dtype=torch.uint8)
    whole, cut = material.round_trip(pipeline, frames, 20), material.round_trip(pipeline, frames, 4)
    assert whole.shape == frames.shape
    assert (whole.int() - cut.int()).abs().max() <= 1


def result(read: np.ndarray, true: np.ndarray) -> ClipResult:
    clip = material.Clip("x", identity_from_seed(3), quiet_performance(len(true)), SIZE)
    changes = np.ones(len(true) - 1)
    return ClipResult(
        clip,
        35.0,
        0.98,
        33.0,
        31.0,
        {},
        {},
        true,
        true,
        true,
        read,
        changes,
        changes,
        changes,
        [0, 12, 24],
        1.0,
        [],
        [],
    )


def lips(read: np.ndarray, true: np.ndarray, other: np.ndarray) -> dict[str, Figure]:
    report, results = Report("x"), [result(read, true)]
    lip_figures(report, results, [(results[0], other)], [])
    motion_figures(report, results)
    return {f.key: f for f in report.figures}


def talk(seed: int, frames: int = 250) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(frames)
    return 12 * np.clip(np.convolve(noise, np.hanning(7), "same"), 0, None)


def test_lips_that_follow_pass_and_their_control_fails():
    figures = lips(talk(1) + 0.3, talk(1), talk(2))
    assert figures["lips_correlation"].passed and figures["lips_correlation"].control_failed
    assert figures["lips_lag_ms"].passed and figures["lips_range"].passed


def test_lips_that_move_to_other_sound_fail():
    figures = lips(talk(2), talk(1), talk(2))
    assert figures["lips_correlation"].passed is False


def test_late_lips_fail_on_lag_and_dead_lips_on_range():
    late = lips(np.roll(talk(1), 3), talk(1), talk(2))
    assert late["lips_lag_ms"].value == pytest.approx(120, abs=15) and late["lips_lag_ms"].passed is False
    dead = lips(np.full(250, 4.0), talk(1), talk(2))
    assert dead["lips_range"].passed is False and dead["lips_correlation"].passed is False
    assert dead["lips_lag_ms"].passed is False  # no lag can be told: not a pass


def test_quick_runs_from_end_to_end_and_says_so_in_json(pipeline, tmp_path):
    pytest.importorskip("hibari", reason="speech with phoneme times needs hibari-tts")
    settings = Settings(clips=1, seconds=2.0, controls=0, named=0, long_s=12.0, out=tmp_path)
    seen: list[float] = []
    torch.manual_seed(0)
    report = Quick(pipeline, MouthReadout().eval(), settings, lambda text, done: seen.append(done)).run()
    record = json.loads(report.json())
    assert record["figures"]["vae_psnr"]["passed"] is False  # random weights
    assert {"face_detail", "face_psnr", "lips_correlation", "motion", "drift_luma", "identity_fall"} <= set(
        record["figures"]
    )
    assert record["figures"]["drift_luma"]["control_failed"] is True
    assert record["figures"]["identity_end"]["control"] < 0.9
    assert seen == sorted(seen)
    for name in ("clips.png", "mouths.png", "lips.png", "long.png", "report.json"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize(
    ("figure", "passed"),
    [
        (Figure("a", "a", 1.0, least=0.9), True),
        (Figure("a", "a", 0.8, least=0.9), False),
        (Figure("a", "a", 1.3, least=0.8, most=1.25), False),
        (Figure("a", "a", float("nan"), most=1.0), False),
        (Figure("a", "a", 5.0), None),
    ],
)
def test_verdicts(figure: Figure, passed: bool | None):
    assert figure.passed is passed


def test_a_control_that_passes_is_told():
    assert Figure("a", "a", 1.0, control=1.0, least=0.9).control_failed is False
    assert Figure("a", "a", 1.0, control=0.1, least=0.9).control_failed is True


def test_table_shows_values_and_verdicts(capsys):
    report = Report("title", facts={"seconds": 3})
    report.add("a", "something measured", 0.5, "dB", truth=1.0, least=0.9)
    report.show()
    text = capsys.readouterr().out
    assert "something measured [dB]" in text and "FAIL" in text and "≥ 0.9" in text and "seconds: 3" in text


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["quick", "--clips", "0"], 2, "--clips is 0; it must lie in 1 .. 64"),
        (["quick", "--seconds", "1"], 2, "--seconds is 1; it must lie in 2 .. 60"),
        (["quick", "--long", "5"], 2, "--long is 5"),
        (["quick", "--threads", "-1"], 2, "--threads is -1; it must lie in 0 .. 64"),
        (["quick", "--character", "nobody"], 2, "--character 'nobody' does not exist"),
        (["quick", "--set", "lines"], 2, "--set 'lines' is no KEY=VALUE"),
        (["quick", "--preset", "huge"], 1, "preset 'huge' does not exist"),
        (["quick", "--weights", "/nonexistent"], 1, "/nonexistent/vae.safetensors are missing"),
        (["readout", "--steps", "0"], 2, "--steps is 0; it must be 1 or more"),
    ],
)
def test_bad_input_is_one_clear_line(argv: list[str], status: int, words: str, capsys):
    assert main(argv) == status
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
