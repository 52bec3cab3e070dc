# SPDX-License-Identifier: Apache-2.0
"""From what was made and read to figures with their targets, which are those of the project's quality bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from flowact_ros.evaluation import rig_metrics as rig
from flowact_ros.evaluation.intervals import Ratio, mean_of, rate
from flowact_ros.evaluation.metrics import correlation
from flowact_ros.evaluation.report import Report
from flowact_ros.evaluation.rig_metrics import Take, Takes
from flowact_ros.evaluation.rig_readout import column

LIPS = {"opening": 0.90, "width": 0.80, "rounding": 0.80}  # least correlations; or 0.95 of the ceiling
COLUMNS = {"opening": "opening", "width": "width", "rounding": "round"}
OF_CEILING = 0.95
LEAST_CEILING = 0.7  # a readout that finds two truths less alike than this sets no target
NO_CORRELATION = 0.2  # of lips to another clip's sound, at most


@dataclass
class Lips:
    """Takes of the speech clips, all read from pixels but `exact`, which is what the truth was painted with."""

    made: Takes
    truth: Takes
    exact: Takes
    again: Takes  # the truth performed once more
    shuffled: Takes  # the first clips with the sound of others


@dataclass
class Pictures:
    """Sharpness by behaviour (face, eyes, mouth) and the fidelity of true motion through the renderer."""

    edges: dict[str, dict[str, float]] = field(default_factory=dict)
    psnr: dict[str, float] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)  # the same of the worst tenth of the frames
    energy: float = float("nan")  # movement of pixels ÷ truth's
    flicker: float = float("nan")  # of disturbed motion ÷ that of the world's renderer


def lip_figures(report: Report, lips: Lips) -> None:
    """The lips against what truth was painted with; truth's column is the readout's own limit."""
    some = lips.exact[: len(lips.shuffled)]
    ceilings = {}
    for name, least in LIPS.items():
        c = COLUMNS[name]
        ceilings[name] = ceiling = rig.curve_correlation(lips.again, lips.exact, c)
        controls = {"frozen": rig.curve_correlation(rig.frozen(lips.made), lips.exact, c)}
        if lips.shuffled:
            controls["other sound"] = rig.curve_correlation(lips.shuffled, some, c)
        report.add(
            f"mouth_{name}_correlation", f"mouth {name}: correlation",
            rig.curve_correlation(lips.made, lips.exact, c), least=least_correlation(least, ceiling),
            truth=rig.curve_correlation(lips.truth, lips.exact, c), ceiling=ceiling, controls=controls,
        )  # fmt: skip
        if name == "opening":
            report.add(
                "mouth_opening_lag_s", "mouth opening: best lag (+: late)", rig.opening_lag_s(lips.made, lips.exact),
                "s", least=-0.02, most=0.02, truth=rig.opening_lag_s(lips.truth, lips.exact),
            )  # fmt: skip
    report.add(
        "opening_spread_ratio", "spread of the opening ÷ truth", rig.spread_ratio(lips.made, lips.truth, "opening"),
        least=0.85, most=1.15, ceiling=rig.spread_ratio(lips.again, lips.truth, "opening"), controls={"frozen": 0.0},
    )  # fmt: skip
    report.add(
        "silence_movement_ratio", "movement of the lips in silence ÷ truth", rig.silence_ratio(lips.made, lips.truth),
        most=1.5, ceiling=rig.silence_ratio(lips.again, lips.truth),
    )  # fmt: skip
    if lips.shuffled:
        report.add(
            "shuffled_mouth_correlation", "mouth opening to another clip's sound",
            rig.curve_correlation(lips.shuffled, some, "opening"), most=NO_CORRELATION,
        )  # fmt: skip
    report.facts["ceiling"] = {name: round(value, 4) for name, value in ceilings.items()}


def whisper_figures(
    report: Report, made: Takes, embedded: Takes, exact: Takes, again: Takes, shuffled: Takes
) -> None:
    """The lips of the same clips heard by Whisper, all read from raw motion; embedded: by the package's encoder."""
    some = exact[: len(shuffled)]
    for name, least in LIPS.items():
        c = COLUMNS[name]
        ceiling = rig.curve_correlation(again, exact, c)
        controls = {"other sound": rig.curve_correlation(shuffled, some, c)} if shuffled else {}
        report.add(
            f"whisper.{name}", f"lips, heard by Whisper: {name}", rig.curve_correlation(made, exact, c),
            least=least_correlation(least, ceiling), ceiling=ceiling, controls=controls,
            more={"embedded": round(rig.curve_correlation(embedded, exact, c), 4)},
        )  # fmt: skip


@dataclass
class Spoken:
    """One voice's clips: takes of raw motion, the truth, and the truth once more; of pixels made and exact, where there
    are any."""

    made: list[Take] = field(default_factory=list)
    truth: list[Take] = field(default_factory=list)
    again: list[Take] = field(default_factory=list)
    seen: list[Take] = field(default_factory=list)
    exact: list[Take] = field(default_factory=list)


def voice_figures(report: Report, voices: Mapping[str, Spoken]) -> None:
    """The lips by who speaks, read from long motion: a mean over all voices hides one that they follow badly."""
    for voice, spoken in sorted(voices.items()):
        for name in LIPS:
            c = COLUMNS[name]
            mean = mean_of(rig.curve_correlations(spoken.made, spoken.truth, c))
            more: dict[str, Any] = {"pixels_n": len(spoken.seen)}
            if spoken.seen:
                more["pixels"] = round(rig.curve_correlation(spoken.seen, spoken.exact, c), 4)
            report.add(
                f"lips_by_voice.{voice}.{name}", f"  {voice}: {name}, in raw motion", mean.value,
                low=mean.low, high=mean.high, n=mean.n, ceiling=rig.curve_correlation(spoken.again, spoken.truth, c),
                more=more,
            )  # fmt: skip
        closed = rig.closure_ratio(spoken.made, spoken.truth)
        report.add(
            f"lips_by_voice.{voice}.closures", f"  {voice}: p b m that close ÷ truth", closed.value,
            low=closed.low, high=closed.high, n=closed.n, ceiling=rig.closure_ratio(spoken.again, spoken.truth).value,
        )  # fmt: skip


def least_correlation(bar: float, ceiling: float) -> float:
    """The target of a correlation: no more than two truths have, but a ceiling that is no good does not lower it."""
    return round(min(bar, OF_CEILING * ceiling), 3) if ceiling > LEAST_CEILING else bar


def closure_figures(
    report: Report, made: Takes, truth: Takes, seen: Takes, seen_truth: Takes, script: Takes
) -> None:
    """Closed lips in raw motion (made, truth, script), and what of them the pixels of clips show (seen)."""
    share, pixels = rig.closure_ratio(made, truth), rig.closure_ratio(seen, seen_truth)
    report.add(
        "closure_ratio", "p b m that close ÷ truth", share.value, low=share.low, high=share.high, n=share.n,
        least=0.9, ceiling=rig.closure_ratio(script, truth).value,
        controls={"half open": rig.closure_ratio(half_open(made), truth).value},
        more={
            "pixels": round(pixels.value, 4), "pixels_low": round(pixels.low, 4), "pixels_high": round(pixels.high, 4),
            "pixels_n": pixels.n,
        },
    )  # fmt: skip


def half_open(takes: Takes) -> list[Take]:
    """A control: lips that never come nearer than 30 % of their range."""
    out = []
    for take in takes:
        series = take.series.copy()
        series[:, 0] = np.maximum(series[:, 0], 0.3 * np.percentile(series[:, 0], 97) + 0.004)
        out.append(Take(series, take.phonemes, take.kinds))
    return out


def event_figures(
    report: Report, made: Takes, truth: Takes, seen: Takes, seen_truth: Takes, script: Takes
) -> None:
    """Rates of events over long motion (made, truth, script), and what of them the pixels of clips show (seen)."""

    def add(key: str, name: str, figure: Callable[[Takes, Takes], Any], drifts: bool = False) -> None:
        value, pixels = figure(made, truth), figure(seen, seen_truth)
        more: dict[str, Any] = {"pixels": round(_number(pixels), 4)}
        interval: dict[str, Any] = {}
        if isinstance(value, Ratio):
            interval = {"low": value.low, "high": value.high, "n": value.n}
            more |= {"pixels_n": pixels.n, "truth_n": value.n_truth}
            minutes = sum(t.minutes for t in made)
            more["per_minute"] = {k: round(v, 2) for k, v in asdict(rate(value.n, minutes)).items()}
        controls = {"no denoiser": _number(figure(rig.mean_motion(truth), truth))}
        if drifts:
            controls["drift"] = _number(figure(rig.drifting(made), truth))
        report.add(
            key, name, _number(value), least=0.8, most=1.2, ceiling=_number(figure(script, truth)), **interval,
            controls=controls, more=more,
        )  # fmt: skip

    report.facts["event_minutes"] = round(sum(t.minutes for t in made), 1)
    add("blink_rate_ratio", "blinks a minute ÷ truth", rig.blink_ratio)
    share, count = rig.lids_together(seen)
    own, own_count = rig.lids_together(seen_truth)
    report.add(
        "lids_together", "blinks that close both lids within a frame", share, least=0.98, n=count, truth=own,
        controls={"one eye": rig.lids_together([one_eyed(t) for t in seen])[0]}, more={"truth_n": own_count},
    )  # fmt: skip
    add("gaze_spread_ratio", "spread of the gaze ÷ truth", rig.gaze_spread_ratio)
    add("saccade_rate_ratio", "saccades a minute ÷ truth", rig.saccade_ratio)
    add("viewer_share_ratio", "time with the eyes on the viewer ÷ truth", rig.viewer_ratio)
    for axis in ("yaw", "pitch", "roll"):
        add(f"head_spread_ratio.{axis}", f"spread of the head's {axis} ÷ truth",
            lambda a, b, axis=axis: rig.spread_ratio(a, b, axis), drifts=True)  # fmt: skip


def one_eyed(take: Take) -> Take:
    """A control: the eye on the picture's right never shuts."""
    series = take.series.copy()
    series[:, column("lid_right")] = 0.0
    return Take(series, take.phonemes, take.kinds)


def hand_figures(
    report: Report, made: Takes, truth: Takes, seen: Takes, seen_truth: Takes, script: Takes
) -> None:
    """Hands over long motion (made, truth, script), and what of them the pixels of clips show (seen)."""
    share = rig.hand_presence_ratio(made, truth)
    report.add(
        "hand_presence_ratio", "time with a hand where the behaviour has one ÷ truth", share.value,
        low=share.low, high=share.high, n=share.n, least=0.8, most=1.2,
        ceiling=rig.hand_presence_ratio(script, truth).value,
        controls={"frozen": rig.hand_presence_ratio(rig.frozen(made), truth).value},
        more={"pixels": round(rig.hand_presence_ratio(seen, seen_truth).value, 4)},
    )  # fmt: skip
    report.add(
        "hand_place_error", "place of the hands: distance to truth's, of the canvas",
        rig.hand_place_error(made, truth), most=0.04, ceiling=rig.hand_place_error(script, truth),
        more={"pixels": round(rig.hand_place_error(seen, seen_truth), 4)},
    )  # fmt: skip


def behaviour_figure(
    report: Report,
    made: tuple[float, int, dict],
    truth: tuple[float, int, dict],
    script: float,
    controls: dict[str, float],
) -> None:
    """made, truth: (share told right, windows, right share of each)."""
    report.add(
        "behaviour_accuracy", "nine behaviours told apart from 4 s", made[0], least=0.9, n=made[1], truth=truth[0],
        ceiling=script, controls=controls, more={"each": made[2], "truth_each": truth[2]},
    )  # fmt: skip


def smoothness_figures(
    report: Report, made: Takes, truth: Takes, seen: Takes, seen_truth: Takes, script: Takes, energy: float
) -> None:
    """Of long motion, where no readout's error adds to it; pixels beside it."""
    report.add(
        "motion_energy_ratio", "movement of pixels ÷ truth", energy, least=0.8, most=1.25, controls={"frozen": 0.0},
        more={"rig": round(rig.change_ratio(made, truth, 1), 4)},
    )  # fmt: skip
    for order, key, name, most in ((2, "acceleration", "acceleration", 1.15), (3, "jerk", "jerk", 1.2)):
        report.add(
            f"{key}_ratio", f"{name} ÷ truth", rig.change_ratio(made, truth, order), most=most,
            ceiling=rig.change_ratio(script, truth, order),
            controls={"trembling": rig.change_ratio(trembling(made), truth, order)},
            more={"pixels": round(rig.change_ratio(seen, seen_truth, order), 4)},
        )  # fmt: skip
    report.add(
        "jump_ratio", "jump at chunks' ends ÷ inside, against truth's own", rig.jump_ratio(made, truth), most=1.10,
        ceiling=rig.jump_ratio(script, truth), controls={"stepping": rig.jump_ratio(stepping(made), truth)},
        more={"pixels": round(rig.jump_ratio(seen, seen_truth), 4)},
    )  # fmt: skip


def trembling(takes: Takes, amount: float = 0.15) -> list[Take]:
    """A control: white noise on every column, of a size that is seen as trembling."""
    rng = np.random.default_rng(0)
    units = amount * np.asarray(rig.UNITS)
    out = []
    for take in takes:
        series = take.series.copy()
        series[:, : len(units)] += (units * rng.standard_normal((take.frames, len(units)))).astype(
            series.dtype
        )
        out.append(Take(series, take.phonemes, take.kinds))
    return out


def stepping(takes: Takes, amount: float = 0.1) -> list[Take]:
    """A control: every second chunk lies a little beside the others."""
    units = amount * np.asarray(rig.UNITS)
    out = []
    for take in takes:
        series = take.series.copy()
        odd = (np.arange(take.frames) // rig.CHUNK) % 2 == 1
        series[odd, : len(units)] += units.astype(series.dtype)
        out.append(Take(series, take.phonemes, take.kinds))
    return out


def picture_figures(report: Report, pictures: Pictures) -> None:
    """The worst behaviour counts for sharpness."""
    for part in ("face", "eyes", "mouth"):
        by_kind = {kind: values[part] for kind, values in pictures.edges.items()}
        worst = min(by_kind, key=lambda kind: by_kind[kind])
        report.add(
            f"edges.{part}", f"edges in the {part} ÷ truth, worst behaviour ({worst})", by_kind[worst], least=0.92,
            controls={"blurred": pictures.edges[worst][f"{part}_blurred"]},
            more={"mean": round(float(np.mean(list(by_kind.values()))), 4),
                  "each": {kind: round(value, 3) for kind, value in sorted(by_kind.items())}},
        )  # fmt: skip
    for part, least in (("whole", 33.0), ("eyes", 30.0), ("mouth", 30.0)):
        report.add(
            f"oracle_psnr.{part}", f"true motion through the renderer: {part}", pictures.psnr[part], "dB", least=least,
            controls={"still": pictures.psnr[f"{part}_still"]}, digits=1,
        )  # fmt: skip
    for part, value in pictures.worst.items():
        report.add(f"oracle_worst_psnr.{part}", f"… of the worst tenth of the frames: {part}", value, "dB", digits=1)
    report.add("oracle_flicker", "flicker under motion noise of 0.1 ÷ truth", pictures.flicker, most=1.3)


def recorded_figure(
    report: Report,
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
    own: Sequence[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Recorded speech has no true lips: pairs of (opening, loudness), of what was made and of truth's own clips."""
    value, truth = (float(np.mean([correlation(a, b) for a, b in pairs])) for pairs in (curves, own))
    turned = [
        abs(correlation(a, np.roll(b, shift)))
        for a, b in curves
        for shift in range(25, max(26, len(b) - 25), 11)
    ]
    share, shuffled = value / max(truth, 1e-9), float(np.mean(turned)) / max(truth, 1e-9)
    report.add(
        "recorded_speech", "recorded speech: opening against loudness ÷ truth's", share, least=0.85,
        controls={"other sound": shuffled},
        more={"correlation": round(value, 4), "truth": round(truth, 4), "shuffled": round(shuffled, 4)},
    )  # fmt: skip


def _number(value: float | Ratio) -> float:
    return value.value if isinstance(value, Ratio) else float(value)
