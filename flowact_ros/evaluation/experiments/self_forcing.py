# SPDX-License-Identifier: Apache-2.0
"""Does training on memory of the model's own make slower drift? Two denoisers, trained alike but for that.

Drift of a stream is the Fréchet distance of its later minutes from its first (`evaluation.drift`); its speed is the
slope of these distances over minutes. All streams of a model make one distance, so the interval is that of a bootstrap:
streams are drawn again, with replacement, the same ones of both models.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowact_ros.evaluation import drift
from flowact_ros.evaluation.drift import Row, drift_row, minutes_of
from flowact_ros.evaluation.long_motion import Long
from flowact_ros.models.codec.motion_statistics import frechet
from flowact_ros.models.dit import DiT

DRAWS = 400
LEVEL = 0.95


def fingerprint(model: DiT) -> str:
    """Of the weights: a name for the motion that they made."""
    total = 0
    for tensor in model.state_dict().values():
        total = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), total)
    return f"{total:08x}"


def speed(streams: Sequence[Long]) -> float:
    """How much farther from the first minute each minute is than the one before: a least-squares slope."""
    row = drift_row("", streams)
    return _slope(np.array(row.minutes, float), np.array(row.distance))


def _slope(minutes: np.ndarray, distance: np.ndarray) -> float:
    return float(np.polyfit(minutes, distance, 1)[0]) if len(minutes) > 1 else float("nan")


def bootstrap(models: Sequence[Sequence[Long]], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Speeds `[draws, models]` of streams drawn again with replacement, the same numbers of every model."""
    rng = np.random.default_rng(seed)
    count = len(models[0])
    features = [[minutes_of([stream]) for stream in streams] for streams in models]
    last = min(len(minutes) for streams in features for minutes in streams)
    at = np.arange(2, last + 1, dtype=float)
    out = np.empty((draws, len(models)))
    for d in range(draws):
        drawn = rng.integers(count, size=count)
        for m, streams in enumerate(features):
            first, *others = [np.concatenate([streams[i][k] for i in drawn]) for k in range(last)]
            out[d, m] = _slope(at, np.array([frechet(first, other) for other in others]))
    return out


def compare(names: Sequence[str], models: Sequence[Sequence[Long]], truth: Sequence[Long]) -> dict:
    """The experiment's record: speeds and their difference (first minus second), with intervals."""
    drawn = bootstrap([*models, truth])
    rows = []
    for name, streams, speeds in zip([*names, "truth"], [*models, truth], drawn.T):
        row = drift_row(name, streams)
        rows.append({
            "name": name, "speed": round(speed(streams), 4), **_interval(speeds),
            "minutes": row.minutes, "distance": [round(x, 3) for x in row.distance],
        })  # fmt: skip
    return {
        "experiment": "self-forcing", "question": "does memory of the model's own, in training, slow drift down?",
        "unit": "Fréchet distance from minute 1, a minute", "streams": len(truth), "draws": DRAWS,
        "interval": f"{100 * LEVEL:g} % of a bootstrap over streams", "rows": rows,
        "difference": {"value": round(rows[0]["speed"] - rows[1]["speed"], 4), **_interval(drawn[:, 0] - drawn[:, 1])},
    }  # fmt: skip


def _interval(values: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {"low": round(float(low), 4), "high": round(float(high), 4)}


def table(record: dict) -> str:
    """For people."""
    lines = [f"{r['name']}: {r['speed']:.3f} a minute ({r['low']:.3f} to {r['high']:.3f})" for r in record["rows"]]
    d = record["difference"]
    verdict = "no difference can be told" if d["low"] <= 0 <= d["high"] else "they differ"
    return "\n".join([*lines, f"difference {d['value']:.3f} ({d['low']:.3f} to {d['high']:.3f}): {verdict}"])


def plot(path: Path, record: dict, truth: Sequence[Long]) -> None:
    """Distances by minute of both models, with the range of the truth's minutes, as `flowact eval drift` draws them."""
    rows = [Row(r["name"], r["minutes"], r["distance"]) for r in record["rows"] if r["name"] != "truth"]
    drift.plot(path, rows, drift.truth_distances(truth))
