# SPDX-License-Identifier: Apache-2.0
"""Experiments: every setting is what its name says, figures come from raw motion, tables hold what they claim."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowact_ros.data.behaviours import column
from flowact_ros.data.characters import identity_from_seed
from flowact_ros.data.performance import Segment, perform
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.data.visemes import MOUTH_CONTROLS, mouth
from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline
from flowact_ros.evaluation.clips import Clip, long_clips
from flowact_ros.evaluation.experiments import (
    horizon,
    lipsync,
    material,
    memory,
    motion_figures,
    schedule,
    self_forcing,
    temperature,
)
from flowact_ros.evaluation.experiments.resolution import at_lines
from flowact_ros.evaluation.experiments.table import Figure, Row, Table, mean_of
from flowact_ros.evaluation.intervals import Ratio, ratio_of
from flowact_ros.evaluation.long_motion import Long
from flowact_ros.evaluation.main import main
from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.config import preset
from flowact_ros.models.dit import KIND

SECONDS = 3.84  # eight chunks: memory of seven older entries is full in the last one


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    made = build_pipeline("debug", runtime="eager")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the last layer begins as nothing: so would all motion be
        for parameter in made.denoiser.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def silent(pipeline: AvatarPipeline) -> material.Material:
    """Three clips of two seeds, without a word."""
    clips = []
    for number in range(3):
        timeline = [Segment("idle", 1.5), Segment("greeting", SECONDS - 1.5)]
        performance = perform(timeline, np.random.default_rng(number))
        clips.append(Clip(f"seed:{number}", identity_from_seed(number), performance, material.SIZE))
    return material.material(pipeline, clips, [0, 0, 1])


def motion_of(pipeline: AvatarPipeline, silent: material.Material, **setting) -> np.ndarray:
    return memory.motion_under(pipeline.denoiser, silent, memory.Setting("", **setting))[0]


def test_streams_side_by_side_are_those_that_run_alone(pipeline, silent):
    together = material.run(pipeline.denoiser, silent)
    assert together.shape == (3, 96, 40) and np.ptp(together, axis=1).max() > 0.1
    for part, motion in zip(silent.each(), together):
        np.testing.assert_allclose(material.run(pipeline.denoiser, part)[0], motion, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01  # each has noise of its own
    np.testing.assert_array_equal(material.run(pipeline.denoiser, silent), together)
    diagonal = material.run(pipeline.denoiser, silent, order="diagonal")
    assert diagonal.shape == together.shape and np.abs(diagonal - together).max() > 0.01


def test_the_setting_that_changes_nothing_is_the_memory_bank(pipeline, silent):
    np.testing.assert_array_equal(motion_of(pipeline, silent), material.run(pipeline.denoiser, silent))
    assert pipeline.denoiser.config.memory.long_term == 3  # other settings leave the network as it is


@pytest.mark.parametrize(
    ("setting", "first"),
    [  # the first frame that the setting can change
        ({"long_term": 0}, 24), ({"long_term": 1}, 36), ({"long_term": 5}, 60), ({"short_term": False}, 12),
        ({"reference": False}, 0), ({"noise": 0.3}, 12), ({"by_content": True}, 24),
    ],
)  # fmt: skip
def test_a_setting_changes_motion_from_where_its_memory_differs(pipeline, silent, setting, first):
    usual, varied = motion_of(pipeline, silent), motion_of(pipeline, silent, **setting)
    apart = np.abs(usual - varied).max((0, 2))
    assert apart[:first].max(initial=0) < 1e-5
    if "by_content" not in setting:  # random motion may be novel all the time
        assert apart[first : first + 12].max() > 1e-5


def test_figures_are_compared_with_the_queue_of_the_preset(pipeline):
    assert memory.reference_of(pipeline.denoiser) == "long-term 3"
    shorter = material.configured(pipeline.denoiser, {"memory": {"long_term": 1}})
    assert memory.reference_of(shorter) == "long-term 1"
    with pytest.raises(ValueError, match="memory.long_term is 2; the experiment compares 0, 1, 3, 5, 7"):
        memory.reference_of(material.configured(pipeline.denoiser, {"memory": {"long_term": 2}}))


def test_entries_are_counted_and_content_decides_how_many(pipeline, silent):
    counted = memory.motion_under(pipeline.denoiser, silent, memory.Setting("", long_term=7))[1]
    assert counted == [sum(range(8)) / 8] * 3
    bank = MemoryBank.start(pipeline.denoiser, torch.zeros(1, 4, 40))
    for level in (0.0, 0.1, 0.2, 1.0, 1.1):
        one = silent.each()[0].condition.slots(0, 3)
        bank = bank.commit(pipeline.denoiser, torch.full((1, 3, 4, 40), level), one)
    kept = [round(float(entry.latent.mean()), 1) for entry in memory.novel(bank.entries)]
    assert kept == [0.2, 1.1]


def test_the_truth_meets_its_own_figures(silent):
    figures = [f for f in motion_figures.ALL if f.figure.key not in ("closure_ratio", "jump_ratio")]
    row = motion_figures.row("truth", silent, [clip.controls.numpy() for clip in silent.clips], figures)
    for figure in figures:
        values = row.values[figure.figure.key]
        assert len(values) == silent.count == 2
        told = [v for v in values if np.isfinite(v)]  # nobody says a word: lips cannot be told
        if not figure.figure.key.startswith(("mouth", "opening", "silence")):
            assert told == pytest.approx([figure.figure.truth] * len(told), abs=1e-6), figure


def raised(*stretches: tuple[int, int]) -> np.ndarray:
    height = np.zeros(200)
    for start, end in stretches:
        height[start:end] = 1.0
    return np.convolve(height, np.ones(10) / 10, "same")


def test_phases_of_gestures_are_told():
    truth = raised((50, 100))
    own = horizon.phases(truth, truth)
    assert own.complete and own.raises == 1 and own.held == 1.0
    assert own.rise == own.fall == pytest.approx(0.24, abs=0.05) and own.hold == pytest.approx(1.8, abs=0.1)
    twice = horizon.phases(raised((50, 100), (140, 180)), truth)
    assert twice.raises == 2 and twice.hold == own.hold
    dropped = horizon.phases(raised((50, 75)), truth)
    assert dropped.complete and dropped.held == pytest.approx(0.5, abs=0.1)
    forever = horizon.phases(raised((50, 200)), truth)
    assert not forever.complete and forever.held == 1.0
    never = horizon.phases(np.zeros(200), truth)
    assert not never.complete and never.raises == 0 and never.held == 0.0


def test_gestures_of_the_truth_complete_and_half_raised_hands_do_not(pipeline):
    found = horizon.performances(pipeline, 1, 2)
    truth = [clip.controls.numpy() for clip in found.clips]
    values = horizon.values(found.clips, truth)
    for name in horizon.GESTURES:
        assert values[f"complete.{name}"] == values[f"hold.{name}"] == values[f"raises.{name}"] == 1.0
    low = [m.copy() for m in truth]
    for m in low:
        for side in ("left", "right"):
            m[:, column(f"hand_{side}_y")] = 1.2 - 0.6 * (1.2 - m[:, column(f"hand_{side}_y")])
    assert horizon.values(found.clips, low)["complete.chin"] == 0.0


EVERY = [symbol for symbols in lipsync.CLASSES.values() for symbol in symbols]


def speaking(clip: Clip, seed: int, symbols: Sequence[str] = EVERY) -> Clip:
    """A clip whose mouth shows up to 22 of `symbols` by the truth's own rules."""
    order = np.random.default_rng(seed).permutation(symbols)[:22]
    phonemes = [Phoneme(str(s), 0.2 + 0.16 * i, 0.36 + 0.16 * i) for i, s in enumerate(order)]
    pcm = np.full(clip.frames * 960, 0.1, np.float32)
    controls = clip.performance.controls.copy()
    lips = mouth(phonemes, pcm, clip.frames)
    for i, name in enumerate(MOUTH_CONTROLS):
        controls[:, column(name)] = lips[:, i]
    return replace(clip, performance=replace(clip.performance, pcm=pcm, controls=controls, phonemes=phonemes))


def test_lips_show_their_sounds_and_still_lips_do_not(silent):
    clips = [speaking(silent.clips[k % 3], k) for k in range(24)]
    classifier = lipsync.Classifier.learn(clips[:20])
    counts = classifier.confusion(clips[20:], [clip.controls.numpy() for clip in clips[20:]])
    assert counts.sum() == 4 * 22 and np.trace(counts) / counts.sum() > 0.7
    still = classifier.confusion(clips[20:], [np.repeat(c.controls.numpy()[:1], c.frames, 0) for c in clips[20:]])
    assert np.nanmean(np.diag(lipsync.shares(still))) < 0.2
    with pytest.raises(ValueError, match="no phoneme of the class 'closed'"):
        lipsync.Classifier.learn([speaking(silent.clips[0], 0, ("AA", "IY"))])


def test_schedules_are_compared_at_equal_evaluations(pipeline, silent):
    seen: list[float] = []
    table = schedule.compare(pipeline.denoiser, silent, lambda text, done: seen.append(done), (2, 3))
    assert [row.name for row in table.rows[:4]] == ["sequential, 2", "diagonal, 2", "sequential, 3", "diagonal, 3"]
    assert seen == sorted(seen) and max(seen) <= 1
    for row in table.rows[:4]:
        assert row.values["ahead_s"] == [0.96 if row.name.startswith("diagonal") else 0.0] * 2
        assert min(row.values["first_chunk_ms"]) > 0


def test_a_ratio_of_sums_has_the_interval_of_its_clips():
    ratio = ratio_of([(3, 4), (2, 4), (4, 4), (3, 4)])
    assert (ratio.value, ratio.n) == (0.75, 4)
    # of equal parts it is the interval of a mean: of 3/4, 2/4, 4/4, 3/4
    assert ratio.high == pytest.approx(mean_of([0.75, 0.5, 1.0, 0.75]).high)
    assert np.isnan(ratio_of([(0, 0)]).value) and np.isnan(ratio_of([(1, 2)]).low)


def test_tables_compare_seed_by_seed(tmp_path: Path):
    assert mean_of([1.0, 2.0, 3.0, float("nan")]).value == 2.0
    assert mean_of([1.0, 2.0, 3.0]).high - 2.0 == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    noisy = [0.1, 0.5, 0.9]
    rows = [Row("a", {"x": noisy}), Row("b", {"x": [v + 0.05 for v in noisy]}), Row("c", {"y": [1.0, 2.0, 3.0]})]
    table = Table("trial", "what is better?", [Figure("x", "an x"), Figure("y", "a y", None)], rows, 3, "a")
    difference = table.difference(rows[1], "x")
    assert difference is not None and difference.low == pytest.approx(0.05) == difference.high
    assert table.answers() == ["b: an x +0.05 (+0.05 to +0.05); 0 of 1 figures cannot be told from those of a"]
    assert table.difference(rows[2], "y") is None and table.difference(rows[0], "x") is None
    table.write(tmp_path / "trial.json", "flowact eval trial")
    record = json.loads((tmp_path / "trial.json").read_text())
    assert record["command"] == "flowact eval trial" and record["seeds"] == 3
    assert record["rows"][1]["figures"]["x"]["seeds"] == [0.15, 0.55, 0.95]
    assert record["rows"][2]["figures"].keys() == {"y"}
    with Image.open(tmp_path / "trial.png") as plot:
        assert plot.size[0] > 900 and len(set(plot.convert("L").getdata())) > 3
    with pytest.raises(ValueError, match="no row is called 'z'"):
        Table("trial", "?", [], rows, 3, "z")


def test_a_wider_noise_moves_the_gaze_alone_and_the_nearest_to_the_truth_is_named(pipeline, silent, monkeypatch):
    seen: list[float] = []
    tell = lambda text, done: seen.append(done)  # noqa: E731
    usual, wide = (
        material.run(material.configured(pipeline.denoiser, {"schedule": {"gaze_temperature": t}}), silent)[0, :4]
        for t in (1.0, 1.5)
    )
    gaze = [column("gaze_x"), column("gaze_y")]
    assert np.abs(wide - usual)[:, gaze].mean() > 0.01  # of the first latent, before memory spreads it

    def as_told(model, clips, *, tell) -> np.ndarray:
        """In place of a network: the truth, with a gaze that goes as far as the temperature says."""
        motion = np.stack([clip.controls.numpy() for clip in clips.clips])
        motion[:, :, gaze] *= model.config.schedule.gaze_temperature
        tell(1.0)
        return motion

    monkeypatch.setattr(temperature, "run", as_told)
    truth = [[clip.true() for clip in silent.clips[:2]], [silent.clips[2].true()]]
    monkeypatch.setattr(temperature, "performed", lambda of: truth)
    monkeypatch.setattr(temperature.rig, "saccade_ratio", lambda made, true: Ratio(1.0, 0.5, 2.0, 7, 7))
    table = temperature.compare(pipeline.denoiser, silent, [0.5, 1.0, 1.4], tell)
    assert [row.name for row in table.rows] == ["truth", "0.5", "1", "1.4"] and seen == sorted(seen)
    spread = [row.values["gaze_spread"][0] for row in table.rows]
    assert spread[1] == pytest.approx(0.5 * spread[0]) and spread[2] == spread[0] < spread[3]
    assert table.facts == {"split": "validation", "nearest": 1.0, "preset_has": 1.0}
    assert "0.5: 7 saccades in 0.2 minutes, 1.00 (0.50 to 2.00) of the truth's 7" in table.notes[0]
    assert table.record("")["notes"] == table.notes


def test_the_lips_of_each_temperature_stand_beside_those_of_the_preset(pipeline, silent, monkeypatch):
    def as_told(model, clips, *, tell) -> np.ndarray:
        """In place of a network: the truth, whose jaw opens as far as the temperature says."""
        motion = np.stack([clip.controls.numpy() for clip in clips.clips])
        wide = 0.3 * model.config.schedule.lips_temperature
        motion[:, :, column("jaw")] = wide * np.sin(np.arange(motion.shape[1])).clip(0)
        tell(1.0)
        return motion

    monkeypatch.setattr(temperature, "run", as_told)
    seen: list[float] = []
    table = temperature.compare_lips(pipeline.denoiser, silent, [0.5], lambda text, done: seen.append(done))
    assert [row.name for row in table.rows] == ["0.5", "1", "truth performed again"] and seen == sorted(seen)
    assert table.reference == "1" and table.facts["preset_has"] == 1.0
    moved = [row.values["acceleration_ratio"][0] for row in table.rows[:2]]
    assert moved[0] < moved[1]


def test_the_truth_of_the_temperatures_is_performed_anew_and_comes_from_validation(silent):
    takes = temperature.performed(silent)
    assert [len(of_seed) for of_seed in takes] == [2 * temperature.PERFORMED, temperature.PERFORMED]
    first = takes[0][: temperature.PERFORMED]
    assert len({take.series.tobytes() for take in first}) == temperature.PERFORMED
    pytest.importorskip("hibari", reason="speech with phoneme times needs hibari-tts")
    clip = long_clips(0.2, material.SIZE, temperature.SPLIT, 12.0, temperature.FIRST)[0]
    assert int(clip.name.removeprefix("seed:")) in CHARACTER_SEEDS["validation"]


def test_half_as_much_is_as_far_as_twice_as_much():
    assert temperature.farthest(1.0, 0.5, 1.2) == pytest.approx(temperature.farthest(2.0, 1.0, 1.1))


def walk(seed: int, amount: float) -> Long:
    rng = np.random.default_rng(seed)
    motion = rng.normal(0, 0.05, (4 * 1500, 40)) + amount * np.linspace(0, 1, 6000)[:, None]
    return Long(motion, np.zeros(6000))


def test_the_speed_of_drift_has_an_interval_and_a_difference(tmp_path):
    calm, drifting, truth = ([walk(10 * k + n, amount) for n in range(3)] for k, amount in enumerate((0, 0.5, 0)))
    record = self_forcing.compare(("with", "without"), (calm, drifting), truth)
    slow, fast, own = record["rows"]
    assert fast["low"] > slow["high"] and abs(own["speed"]) < 0.1 * fast["speed"]
    assert record["difference"]["high"] < 0
    assert self_forcing.table(record).endswith("they differ")
    self_forcing.plot(tmp_path / "plot.png", record, truth)
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_larger_canvas_shows_as_much_of_a_face():
    config = preset("avatar_cpu").renderer
    assert at_lines(config, 480) == config
    large = at_lines(config, 1080)
    assert large.size == 1088
    assert large.mouth_size[1] / large.size == pytest.approx(config.mouth_size[1] / config.size, rel=0.02)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["memory", "--seeds", "2"], "--seeds is 2; it must lie in 3 .. 64"),
        (["schedule", "--minutes", "0"], "--minutes is 0; it must lie in 0.2 .. 60"),
        (["temperature", "--temperatures", "1", "0"], "--temperatures holds 0; each must lie above 0, up to 2"),
        (["sigma", "--out", "a.txt"], "--out is a.txt; name a .json file, the plot is written beside it as .png"),
        (["self-forcing", "--with", "a", "--without", "b", "--streams", "1"], "--streams is 1; it must lie in 3 .. 64"),
    ],
)  # fmt: skip
def test_bad_options_are_told_in_one_line(options, wrong, capsys):
    assert main(options) == 2
    assert capsys.readouterr().err == f"flowact eval: {wrong}\n"


def test_a_missing_run_is_named(capsys):
    assert main(["distillation", "--preset", "debug", "--seeds", "3", "--student", "no/run"]) == 1
    assert "no/run is no run folder" in capsys.readouterr().err.splitlines()[-1]


def test_weights_of_another_network_are_refused_in_one_line(pipeline):
    with pytest.raises(ValueError, match=r"runs/other holds weights of another preset or version: size mismatch for"):
        weights = {name: tensor[..., :1] for name, tensor in pipeline.denoiser.state_dict().items()}
        material.load_state(material.DiT(pipeline.config), weights, "runs/other")


def test_a_denoiser_comes_from_a_file_or_its_folder(pipeline, tmp_path):
    path = tmp_path / "denoiser.safetensors"
    config = pipeline.config.denoiser_contract()
    save_weights(path, pipeline.denoiser, kind=KIND, config=config, card={}, dtype=torch.float32)
    for source in (path, tmp_path):
        loaded = material.load_denoiser(str(source), pipeline.config)
        assert self_forcing.fingerprint(loaded) == self_forcing.fingerprint(pipeline.denoiser)


def test_styles_are_compared_between_renderers(pipeline, tmp_path):
    pytest.importorskip("hibari", reason="speech with phoneme times needs hibari-tts")
    run, out = tmp_path / "without_robots", tmp_path / "styles.json"
    run.mkdir()
    weights = {name: torch.zeros_like(t) for name, t in pipeline.codec.renderer.state_dict().items()}
    torch.save({"ema": weights, "iteration": 1, "seconds": 1.0, "slices": []}, run / "state.pt")
    options = ["styles", "--preset", "debug", "--seeds", "3", "--frames", "12", "--renderer", str(run)]
    assert main([*options, "--out", str(out)]) == 0
    rows = {row["name"]: row["figures"] for row in json.loads(out.read_text())["rows"]}
    assert len(rows) == 8
    for style in ("soft", "robot"):
        assert rows[f"without_robots: {style}"] != rows[f"shipped: {style}"]


def test_the_command_writes_a_table_and_a_plot(tmp_path, capsys):
    out = tmp_path / "horizon.json"
    options = ["horizon", "--preset", "debug", "--seeds", "3", "--clips", "1", "--out", str(out)]
    assert main([*options, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(out.read_text())
    assert record["command"] == "flowact eval horizon --preset debug --seeds 3 --clips 1 --out horizon.json"
    assert record["rows"][-1]["name"] == "truth performed again" and record["gestures"]["long chin"] == 3
    assert out.with_suffix(".png").stat().st_size < 150_000
