# SPDX-License-Identifier: Apache-2.0
"""Intervals of counted events and of means: how much a figure can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, chi2
from scipy.stats import t as student

from flowact_ros.evaluation.report import plain

LEVEL = 0.95


@dataclass(frozen=True)
class Rate:
    """Events a minute with the exact 95 % interval of a Poisson count."""

    value: float
    low: float
    high: float
    n: int
    minutes: float


def rate(events: int, minutes: float, level: float = LEVEL) -> Rate:
    """Raises ValueError for a length that is not positive."""
    if minutes <= 0:
        raise ValueError(f"{events} events in {minutes:g} minutes: a rate needs a length above 0")
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(1 - tail, 2 * events + 2) / 2
    return Rate(events / minutes, float(low) / minutes, float(high) / minutes, events, minutes)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two rates with its exact 95 % interval; `n`: the events of the first."""

    value: float
    low: float
    high: float
    n: int
    n_truth: int


def rate_ratio(events: int, minutes: float, own: int, own_minutes: float, level: float = LEVEL) -> Ratio:
    """How much more often than truth. Given the sum of both counts the first is binomial (Clopper and Pearson 1934).

    Infinite when truth has none, NaN when neither has.
    """
    if minutes <= 0 or own_minutes <= 0:
        raise ValueError(f"rates over {minutes:g} and {own_minutes:g} minutes; both must be longer than 0")
    if events + own == 0:
        return Ratio(float("nan"), 0.0, float("inf"), 0, 0)
    tail = (1 - level) / 2
    low = beta.ppf(tail, events, own + 1) if events else 0.0
    high = beta.ppf(1 - tail, events + 1, own) if own else 1.0

    def odds(share: float) -> float:
        return float(share / (1 - share) * own_minutes / minutes) if share < 1 else float("inf")

    value = events / minutes / (own / own_minutes) if own else float("inf")
    return Ratio(value, odds(low), odds(high), events, own)


@dataclass(frozen=True)
class Mean:
    """A mean of `n` values and its 95 % interval (Student), NaN where it cannot be told."""

    value: float
    low: float
    high: float
    n: int

    def record(self) -> dict[str, Any]:
        return {"value": plain(self.value), "low": plain(self.low), "high": plain(self.high), "n": self.n}


def mean_of(values: Sequence[float]) -> Mean:
    """Of those values that are numbers; an interval needs two."""
    x = np.array([v for v in values if math.isfinite(v)], float)
    if not len(x):
        return Mean(math.nan, math.nan, math.nan, 0)
    if len(x) == 1:
        return Mean(float(x[0]), math.nan, math.nan, 1)
    reach = float(student.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(float(x.mean()), float(x.mean()) - reach, float(x.mean()) + reach, len(x))


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Mean:
    """The sum of the first ÷ the sum of the second, of clips, and its 95 % interval.

    Events of a clip are alike, so clips are what is counted (a ratio estimate; Cochran, Sampling Techniques, section
    6.3). NaN where the second sum is 0; an interval needs two clips.
    """
    x = np.array(pairs, float).reshape(-1, 2)
    count, below = len(x), x[:, 1].sum()
    if below == 0:
        return Mean(math.nan, math.nan, math.nan, count)
    value = float(x[:, 0].sum() / below)
    if count == 1:
        return Mean(value, math.nan, math.nan, 1)
    off = x[:, 0] - value * x[:, 1]
    error = math.sqrt(count / (count - 1) * float(off @ off)) / float(below)
    reach = float(student.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Mean(value, value - reach, value + reach, count)
