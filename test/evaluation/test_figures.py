# SPDX-License-Identifier: Apache-2.0
"""Figures meet their targets for the truth itself, miss them for what is wrong, and say when a control does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_rig_metrics import TRUE, bilabial_take, changed, living, slipped, waving

from flowact_ros.evaluation import figures
from flowact_ros.evaluation import rig_metrics as rig
from flowact_ros.evaluation.report import Figure, Report, baseline_value, load_baseline
from flowact_ros.evaluation.rig_metrics import Take


def spoken(seed: int) -> Take:
    """Living, with closures of p b m and silence at its end."""
    series, word = living(seed, frames=500), bilabial_take()
    series[:250, 0] = word.series[:, 0] + 0.01 * np.random.default_rng(seed).random(250) * (
        word.series[:, 0] > 0
    )
    series[250:, 0] = 0.02
    return Take(series, word.phonemes, ((0, "speaking"), (250, "idle")))


def lips_report(made: list[Take], true: list[Take]) -> dict[str, Figure]:
    report = Report("x")
    figures.lip_figures(report, figures.Lips(made, true, true, true, slipped(true)))
    figures.closure_figures(report, made, true, made[:1], true[:1], true)
    return {f.key: f for f in report.figures}


SPOKEN = [spoken(1), spoken(2), Take(np.roll(spoken(3).series, 125, 0), spoken(3).phonemes, spoken(3).kinds)]


def test_true_lips_meet_every_target_and_controls_miss_theirs():
    found = lips_report(SPOKEN[:2], SPOKEN[:2])
    for key in ("mouth_opening_correlation", "mouth_width_correlation", "mouth_rounding_correlation"):
        assert found[key].met and found[key].least <= 0.95 and "frozen" not in found[key].passing_controls
    for key in ("mouth_opening_lag_s", "closure_ratio", "opening_spread_ratio", "silence_movement_ratio"):
        assert found[key].met, key
    assert not found["closure_ratio"].passing_controls
    assert (found["closure_ratio"].n, found["closure_ratio"].more["pixels_n"]) == (16, 8)


def test_a_voice_that_the_lips_follow_badly_shows_beside_the_others():
    wrong = [changed(t, opening=np.roll(t.series[:, 0], 60)) for t in SPOKEN[:2]]
    truth = SPOKEN[:2]
    voices = {
        "one": figures.Spoken(truth, truth, truth),
        "other:deep": figures.Spoken(wrong, truth, truth, wrong[:1], truth[:1]),
    }
    report = Report("x")
    figures.voice_figures(report, voices)
    found = report.record()["lips_by_voice"]
    assert set(found) == set(voices)
    assert found["one"]["opening"]["value"] == found["one"]["opening"]["ceiling"] == pytest.approx(1.0)
    assert found["other:deep"]["opening"]["value"] < 0.5 and found["other:deep"]["width"]["value"] == 1.0
    assert found["other:deep"]["opening"]["n"] == 2 and found["other:deep"]["opening"]["pixels_n"] == 1
    assert found["other:deep"]["opening"]["met"] is None and "pixels" not in found["one"]["opening"]


def test_a_poor_ceiling_does_not_lower_the_target():
    assert figures.least_correlation(0.9, 0.99) == 0.9
    assert figures.least_correlation(0.9, 0.9) == 0.855
    assert figures.least_correlation(0.9, -0.1) == 0.9


def test_lips_to_other_sound_miss_their_targets():
    wrong = [changed(t, opening=np.roll(t.series[:, 0], 60), width=0.0, round=0.0) for t in SPOKEN[:2]]
    found = lips_report(wrong, SPOKEN[:2])
    for key in (
        "mouth_opening_correlation",
        "mouth_width_correlation",
        "mouth_rounding_correlation",
        "closure_ratio",
    ):
        assert found[key].met is False, key


def event_report(made: list[Take]) -> dict[str, Figure]:
    report = Report("x")
    figures.event_figures(report, made, TRUE, made, TRUE, TRUE)
    figures.smoothness_figures(report, made, TRUE, made, TRUE, TRUE, 1.0)
    return {f.key: f for f in report.figures}


def test_truth_lives_and_a_still_picture_does_not():
    alive, still = event_report(TRUE), event_report(rig.frozen(TRUE))
    for key, figure in alive.items():
        assert figure.met, key
        assert not figure.passing_controls, key
    for key in (
        "blink_rate_ratio",
        "gaze_spread_ratio",
        "saccade_rate_ratio",
        "head_spread_ratio.yaw",
        "lids_together",
    ):
        assert still[key].met is False, key
    assert (
        alive["blink_rate_ratio"].n == 20
        and alive["blink_rate_ratio"].low < 1 < alive["blink_rate_ratio"].high
    )


def test_trembling_and_steps_miss_the_targets_of_smoothness():
    assert event_report(figures.trembling(TRUE))["acceleration_ratio"].met is False
    assert event_report(figures.trembling(TRUE))["jerk_ratio"].met is False
    assert event_report(figures.stepping(TRUE))["jump_ratio"].met is False


def test_hands_at_a_wrong_place_or_missing_are_told():
    def found(made: Take) -> dict[str, bool | None]:
        report = Report("x")
        several, true = [made] * 3, [waving(0.65)] * 3
        figures.hand_figures(report, several, true, several, true, true)
        return {f.key: f.met for f in report.figures}

    assert found(waving(0.66)) == {"hand_presence_ratio": True, "hand_place_error": True}
    assert found(waving(0.85))["hand_place_error"] is False
    assert found(waving(0.65, seen=0.1)) == {"hand_presence_ratio": False, "hand_place_error": False}


def test_the_worst_behaviour_counts_for_sharpness():
    def edges(value: float) -> dict[str, float]:
        return dict.fromkeys(("face", "eyes", "mouth"), value) | {
            f"{p}_blurred": 0.6 for p in ("face", "eyes", "mouth")
        }

    psnr = {"whole": 34.0, "eyes": 31.0, "mouth": 29.0} | {
        f"{p}_still": 20.0 for p in ("whole", "eyes", "mouth")
    }
    report = Report("x")
    figures.picture_figures(
        report, figures.Pictures({"idle": edges(0.95), "smile": edges(0.8)}, psnr, flicker=1.1)
    )
    found = {f.key: f for f in report.figures}
    assert (
        found["edges.eyes"].value == 0.8
        and found["edges.eyes"].met is False
        and "smile" in found["edges.eyes"].name
    )
    assert found["oracle_psnr.eyes"].met and found["oracle_psnr.mouth"].met is False
    assert not found["edges.face"].passing_controls and not found["oracle_psnr.whole"].passing_controls


def test_recorded_speech_is_compared_with_truths_own_clips():
    rng = np.random.default_rng(0)
    loud = np.convolve(rng.random(300), np.ones(5) / 5, "same")

    def met(opening: np.ndarray) -> Figure:
        report = Report("x")
        figures.recorded_figure(report, [(opening, loud)], [(loud + 0.05 * rng.random(300), loud)])
        return report.figures[0]

    assert met(loud).met and not met(loud).passing_controls and met(loud).more["shuffled"] < 0.2
    assert met(np.roll(loud, 90)).met is False


# ---------------------------------------------------------------- verdicts and output


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", "a", 1.0, least=0.9), True),
        (Figure("a", "a", 0.8, least=0.9), False),
        (Figure("a", "a", 1.3, least=0.8, most=1.25), False),
        (Figure("a", "a", float("nan"), most=1.0), False),
        (Figure("a", "a", 5.0), None),
        (Figure("a", "a", 0.75, least=0.8, most=1.2, low=0.6, high=0.9), True),  # reaches in, within 10 %
        (Figure("a", "a", 0.75, least=0.8, most=1.2, low=0.72, high=0.78), False),
        (Figure("a", "a", 0.70, least=0.8, most=1.2, low=0.3, high=1.4), False),  # few events are no excuse
    ],
)
def test_verdicts(figure: Figure, met: bool | None):
    assert figure.met is met


def test_a_control_that_meets_the_target_is_told():
    figure = Figure("a", "a", 1.0, least=0.9, controls={"frozen": 0.1, "other sound": 0.95})
    assert figure.passing_controls == ["other sound"]


def test_report_nests_keys_and_shows_version_one(capsys):
    report = Report(
        "title", facts={"seconds": 3}, baseline={"a": {"b": {"value": 0.25}}, "c": {"value": None}}
    )
    report.add("a.b", "something measured", 0.5, "dB", least=0.9, controls={"still": 0.95})
    report.add("c", "another", 1.0, least=0.9, low=0.8, high=1.2, n=7)
    record = json.loads(report.json())
    assert record["a"]["b"]["value"] == 0.5 and record["a"]["b"]["met"] is False and record["c"]["n"] == 7
    report.show()
    text = capsys.readouterr().out
    for words in (
        "something measured [dB]",
        "NOT MET",
        "so do still",
        "≥ 0.9",
        "0.250",
        "0.800 … 1.200",
        "seconds: 3",
    ):
        assert words in text


def test_the_baseline_holds_the_keys_of_the_table():
    baseline = load_baseline()
    for key in (
        "mouth_opening_correlation",
        "blink_rate_ratio",
        "head_spread_ratio.yaw",
        "motion_energy_ratio",
    ):
        assert baseline_value(baseline, key) is not None, key
    assert baseline["commit"] == "a508268" and baseline["blink_rate_ratio"]["n"] <= 3
    assert baseline_value(baseline, "nothing") is None
