# SPDX-License-Identifier: Apache-2.0
"""Figures of rig series against truth: lips, eyes, head, hands, smoothness. Pure functions of arrays.

A `Take` is one clip as somebody performed it: its series `[T, R]` in the columns of `rig_readout.READ`, what was said
and which behaviour was asked for. Every function takes takes of the same clips, generated ones first and true ones
second, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.evaluation import events
from flowact_ros.evaluation.events import get
from flowact_ros.evaluation.intervals import Mean, Ratio, mean_of, rate_ratio, ratio_of
from flowact_ros.evaluation.metrics import MetricError, best_lag, correlation, settled
from flowact_ros.evaluation.rig_readout import FACE, UNITS
from flowact_ros.timebase import FRAME_RATE

CHUNK = 12  # frames
STILL = 1e-3  # an opening (fraction of the canvas) that moves less is still to the eye: half a line of 512
WITH_HANDS = ("greeting", "thinking_chin", "speaking_gestures")  # behaviours that have a hand in the picture


@dataclass(frozen=True)
class Take:
    """series `[T, R]`; phonemes: times in seconds; kinds: (first frame, behaviour)."""

    series: np.ndarray
    phonemes: Sequence[Phoneme] = ()
    kinds: Sequence[tuple[int, str]] = field(default_factory=tuple)

    @property
    def frames(self) -> int:
        return len(self.series)

    @property
    def minutes(self) -> float:
        return self.frames / FRAME_RATE / 60

    def spans(self) -> list[tuple[str, int, int]]:
        """(behaviour, first frame, end) of every stretch."""
        ends = [start for start, _ in self.kinds[1:]] + [self.frames]
        return [
            (kind, start, min(end, self.frames)) for (start, kind), end in zip(self.kinds, ends, strict=True)
        ]

    def silent(self) -> np.ndarray:
        """bool `[T]`: silence by the phonemes' times, without the time that lips need to come to rest."""
        quiet = np.ones(self.frames, bool)
        for p in self.phonemes:
            quiet[int(p.start_s * FRAME_RATE) : int(np.ceil(p.end_s * FRAME_RATE))] = False
        return settled(quiet)


Takes = Sequence[Take]


def _paired(made: Takes, true: Takes) -> list[tuple[Take, Take]]:
    if not made or [t.frames for t in made] != [t.frames for t in true]:
        raise MetricError(
            f"takes of {[t.frames for t in made]} and {[t.frames for t in true]} frames; equal clips are needed"
        )
    return list(zip(made, true, strict=True))


# ---------------------------------------------------------------- lips


def curve_correlations(made: Takes, true: Takes, name: str) -> list[float]:
    """The correlation of one column in every clip."""
    return [correlation(get(a.series, name), get(b.series, name)) for a, b in _paired(made, true)]


def curve_correlation(made: Takes, true: Takes, name: str) -> float:
    """Mean over clips of the correlation of one column."""
    return float(np.mean(curve_correlations(made, true, name)))


def opening_lag_s(made: Takes, true: Takes) -> float:
    """Where the openings fit best [s]; > 0: the lips come late. NaN when they do not move."""
    return best_lag(
        [(get(a.series, "opening"), get(b.series, "opening")) for a, b in _paired(made, true)]
    ).seconds


def closures(takes: Takes, true: Takes) -> list[tuple[int, int]]:
    """Of each clip, (p b m in which the lips close, how many there are); closed by the range of the truth's opening."""
    out = []
    for take, own in _paired(takes, true):
        span = np.percentile(get(own.series, "opening"), 97)
        out.append(events.closures(get(take.series, "opening"), own.phonemes, float(span)))
    return out


def closure_ratio(made: Takes, true: Takes) -> Mean:
    """Closures of the lips ÷ truth's; n: all p b m."""
    both = [(a, b, n) for (a, n), (b, _) in zip(closures(made, true), closures(true, true), strict=True) if n]
    ratio = ratio_of([(a, b) for a, b, _ in both])
    return replace(ratio, n=sum(n for _, _, n in both))


def spread(takes: Takes, name: str) -> float:
    """Deviation of a column about each clip's own mean, over all clips."""
    return float(np.sqrt(np.mean(np.concatenate([_centred(get(t.series, name)) ** 2 for t in takes]))))


def spread_ratio(made: Takes, true: Takes, name: str) -> float:
    return spread(made, name) / max(spread(true, name), 1e-9)


def silence_ratio(made: Takes, true: Takes) -> float:
    """Movement of the lips in silence ÷ truth's, about the mean of each stretch. NaN without silence."""

    def calm(takes: Takes) -> float:
        parts = []
        for take, own in _paired(takes, true):
            still = own.silent()
            edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
            parts += [
                _centred(get(take.series, "opening")[a:b])
                for a, b in zip(edges[::2], edges[1::2])
                if b - a > 1
            ]
        return float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) if parts else float("nan")

    return calm(made) / max(calm(true), STILL)


def _centred(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) - values.mean()


# ---------------------------------------------------------------- eyes, head, hands


def event_ratio(made: Takes, true: Takes, count: Callable[[np.ndarray], int]) -> Ratio:
    """Events a minute ÷ truth's, with the interval of the two counts."""
    a, b = sum(count(t.series) for t in made), sum(count(t.series) for t in true)
    return rate_ratio(a, sum(t.minutes for t in made), b, sum(t.minutes for t in true))


def events_a_minute(takes: Takes, count: Callable[[np.ndarray], int]) -> float:
    return sum(count(t.series) for t in takes) / sum(t.minutes for t in takes)


def blink_ratio(made: Takes, true: Takes) -> Ratio:
    return event_ratio(made, true, lambda s: len(events.blinks(s)))


def saccade_ratio(made: Takes, true: Takes) -> Ratio:
    return event_ratio(made, true, lambda s: len(events.saccades(s)))


def lids_together(takes: Takes) -> tuple[float, int]:
    """(share of blinks that close both lids within a frame, number of blinks); NaN without blinks."""
    pairs = [events.together(t.series) for t in takes]
    total = sum(n for _, n in pairs)
    return (sum(k for k, _ in pairs) / total if total else float("nan")), total


def gaze_spread(takes: Takes) -> float:
    """Deviation of the gaze, both ways together, about each clip's own mean."""
    parts = [events.gaze(t.series) for t in takes]
    return float(np.sqrt(np.mean(np.concatenate([((p - p.mean(0)) ** 2).sum(1) for p in parts]))))


def gaze_spread_ratio(made: Takes, true: Takes) -> float:
    return gaze_spread(made) / max(gaze_spread(true), 1e-9)


def viewer_share(takes: Takes) -> float:
    """Share of the time in which the eyes are on the viewer."""
    return float(np.concatenate([events.on_viewer(t.series) for t in takes]).mean())


def viewer_ratio(made: Takes, true: Takes) -> float:
    return viewer_share(made) / max(viewer_share(true), 1e-9)


def _where(takes: Takes, kinds: Sequence[str]) -> list[np.ndarray]:
    """Parts of the series in which one of `kinds` was asked for, from half a second after it was."""
    wait = FRAME_RATE // 2
    return [
        t.series[a + wait : b]
        for t in takes
        for kind, a, b in t.spans()
        if kind in kinds and b - a > 2 * wait
    ]


def hand_presence(takes: Takes, kinds: Sequence[str] = WITH_HANDS) -> Mean:
    """Share of the time with a hand in the picture, over the times that those behaviours are asked for."""
    return mean_of([float(events.hand_seen(part).mean()) for part in _where(takes, kinds)])


def hand_presence_ratio(made: Takes, true: Takes) -> Mean:
    """The same ÷ truth's, with an interval; NaN where truth has no hands."""
    found, own = hand_presence(made), hand_presence(true).value
    if not own > 0:
        return mean_of([])
    return Mean(found.value / own, found.low / own, found.high / own, found.n)


def hand_place_error(made: Takes, true: Takes) -> float:
    """How far hands are from where truth's are, as a fraction of the canvas: the distance of mean places of each
    behaviour, mirrored to one side, because either hand may be raised. NaN when no behaviour has a hand in both."""
    errors = []
    for kind in WITH_HANDS:
        places = []
        for takes in (made, true):
            parts = _where(takes, (kind,))
            places.append(
                np.concatenate([events.hand_places(p) for p in parts]) if parts else np.zeros((0, 2))
            )
        if len(places[0]) and len(places[1]):
            errors.append(float(np.hypot(*(places[0].mean(0) - places[1].mean(0)))))
    return float(np.mean(errors)) if errors else float("nan")


# ---------------------------------------------------------------- smoothness


def _moves(series: np.ndarray, order: int = 1) -> np.ndarray:
    """Mean absolute difference of order `order` over the face's columns in their units, `[T - order]`."""
    scaled = series[:, : len(FACE)].astype(np.float64) / np.asarray(UNITS)
    return np.abs(np.diff(scaled, order, axis=0)).mean(1)


def change_ratio(made: Takes, true: Takes, order: int) -> float:
    """Mean size of the differences of `order` ÷ truth's: 1 movement, 2 acceleration, 3 jerk."""
    sizes = [
        float(np.mean(np.concatenate([_moves(t.series, order) for t in takes]))) for takes in (made, true)
    ]
    return sizes[0] / max(sizes[1], 1e-9)


def jump(takes: Takes, every: int = CHUNK, first: int = 0) -> float:
    """Mean movement into the first frames of chunks ÷ that inside of chunks. NaN when nothing moves."""
    ends, inside = [], []
    for take in takes:
        moves = _moves(take.series)
        into = (np.arange(1, take.frames) - first) % every == 0
        ends.append(moves[into])
        inside.append(moves[~into])
    within = float(np.mean(np.concatenate(inside)))
    return float(np.mean(np.concatenate(ends))) / within if within > 1e-9 else float("nan")


def jump_ratio(made: Takes, true: Takes) -> float:
    """Against truth's own figure at the same frames, which has no seams."""
    return jump(made) / jump(true)


def frozen(takes: Takes) -> list[Take]:
    """A control: the first frame of every clip, held."""
    return [Take(np.repeat(t.series[:1], t.frames, 0), t.phonemes, t.kinds) for t in takes]


def mean_motion(takes: Takes) -> list[Take]:
    """A control: no denoiser at all, its mean in every frame."""
    mean = np.concatenate([t.series for t in takes]).mean(0, keepdims=True)
    return [Take(np.repeat(mean, t.frames, 0), t.phonemes, t.kinds) for t in takes]


def drifting(takes: Takes, amount: float = 4.0) -> list[Take]:
    """A control: every column walks away by `amount` of its units over the clip."""
    out = []
    for t in takes:
        ramp = np.linspace(0, amount, t.frames)[:, None] * np.asarray(UNITS)
        series = t.series.copy()
        series[:, : len(FACE)] += ramp.astype(series.dtype)
        out.append(Take(series, t.phonemes, t.kinds))
    return out
