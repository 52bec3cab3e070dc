# SPDX-License-Identifier: Apache-2.0
"""Which of nine behaviours a few seconds of a rig series show: can a viewer tell what was asked for?

A small network on summary statistics of a window, trained on what a perfect readout would say of performances, with the
readout's own error (from its card) added, so that it need not be trained on pictures. Truth's own frames, read from
pixels, are recognised beside every figure: a classifier that is at fault shows there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.data.augment import available, draw_voice
from flowact_ros.data.performance import Performance, Segment, perform
from flowact_ros.data.sentences import sentence
from flowact_ros.data.splits import SPLITS
from flowact_ros.evaluation.events import of_motion
from flowact_ros.evaluation.rig_metrics import Take
from flowact_ros.evaluation.rig_readout import READ
from flowact_ros.timebase import FRAME_RATE

NINE = (
    "idle",
    "listening",
    "thinking",
    "thinking_chin",
    "speaking",
    "smile",
    "surprise",
    "laugh",
    "greeting",
)
WAIT_S, WINDOW_S, LEAST_S = 1.0, 4.0, 1.5  # a window begins a second after the instruction
SEGMENT_S = WAIT_S + WINDOW_S
PERFORMANCES = 60  # the classifier learns from so many, each with all nine


def behaviour_of(kind: str) -> str:
    """The one of the nine that a kind of the wordings belongs to: all ways of speaking are speaking."""
    return "speaking" if kind.startswith("speaking") else kind


def all_nine(number: int, split: str, seconds: float = SEGMENT_S) -> Performance:
    """A performance of a split with every behaviour once, in an order of its own."""
    rng = np.random.default_rng([number, SPLITS.index(split), 0xBEA])
    voice = available(draw_voice(rng, split))
    timeline = []
    for kind in rng.permutation(NINE):
        if kind == "speaking":
            timeline.append(Segment(str(kind), text=sentence(rng, split)))
        else:
            timeline.append(Segment(str(kind), seconds=seconds))
    return perform(timeline, rng, voice=voice)


def windows(take: Take) -> list[tuple[str, np.ndarray]]:
    """(one of the nine, part of the series) of every stretch that is long enough."""
    out = []
    for kind, start, end in take.spans():
        first = start + round(WAIT_S * FRAME_RATE)
        last = min(end, first + round(WINDOW_S * FRAME_RATE))
        if behaviour_of(kind) in NINE and last - first >= round(LEAST_S * FRAME_RATE):
            out.append((behaviour_of(kind), take.series[first:last]))
    return out


def statistics(series: np.ndarray) -> np.ndarray:
    """What is looked at in a window `[T, R]`: level, spread, extremes, speed and acceleration of every column.

    Means over three frames come first: a readout trembles a little from frame to frame, behaviours do not.
    """
    x = uniform_filter1d(series.astype(np.float64), 3, axis=0, mode="nearest")
    speed, bend = np.abs(x[3:] - x[:-3]), np.abs(x[6:] - 2 * x[3:-3] + x[:-6])
    low, high = np.percentile(x, [10, 90], axis=0)
    return np.concatenate([x.mean(0), x.std(0), low, high, speed.mean(0), bend.mean(0)]).astype(np.float32)


def _misread(rng: np.random.Generator, frames: int, size: np.ndarray) -> np.ndarray:
    """An error of a readout `[T, R]`, of every kind and of any amount up to a little more than `size` `[R]`: some of it
    stays for the window (a face's own proportions), some wanders, some trembles."""
    offset = rng.normal(0, rng.uniform(0, 1) * size)
    coarse = rng.normal(0, rng.uniform(0, 1) * size, (frames // 4 + 2, len(size)))
    wander = np.stack([np.interp(np.arange(frames) / 4, np.arange(len(coarse)), c) for c in coarse.T], 1)
    return offset + wander + rng.normal(0, rng.uniform(0, 0.7) * size, (frames, len(size)))


class Recogniser:
    """Trained on performances of the training split. errors: mean absolute error of each column, as on the card."""

    def __init__(
        self, errors: Mapping[str, Mapping[str, float]], count: int = PERFORMANCES, seed: int = 0
    ) -> None:
        rng = np.random.default_rng([seed, 0xC1A5])
        size = np.array([0.0 if n.endswith("_in") else 1.25 * errors[n]["mae"] for n in READ])
        rows, kinds = [], []
        for number in range(count):
            p = all_nine(number, "train")
            for kind, part in windows(Take(of_motion(p.controls), p.phonemes, p.kinds)):
                rows.append(statistics(part + _misread(rng, len(part), size)))
                kinds.append(NINE.index(kind))
        x, y = torch.from_numpy(np.stack(rows)), torch.tensor(kinds)
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-3
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(x.shape[1], 48), nn.SiLU(), nn.Dropout(0.3), nn.Linear(48, len(NINE))
        )
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=5e-3, weight_decay=0.1)
        z = self._scaled(x)
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(250):
                loss = F.cross_entropy(self.net(z + 0.1 * torch.randn_like(z)), y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        self.net.eval().requires_grad_(False)

    def _scaled(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.deviation).clamp(-6, 6)

    def recognise(self, series: np.ndarray) -> str:
        """One of the nine for a window `[T, R]`."""
        scores = self.net(self._scaled(torch.from_numpy(statistics(series))[None]))
        return NINE[int(scores.argmax())]

    def accuracy(self, takes: Sequence[Take], asked: Sequence[Take] | None = None) -> tuple[float, int, dict]:
        """(share of windows told right, number of windows, right share of each behaviour).

        asked: whose instructions count, if not those of the takes themselves.
        """
        right: dict[str, list[bool]] = {}
        for take, own in zip(takes, asked or takes, strict=True):
            for kind, part in windows(Take(take.series, own.phonemes, own.kinds)):
                right.setdefault(kind, []).append(self.recognise(part) == kind)
        every = [r for values in right.values() for r in values]
        share = float(np.mean(every)) if every else float("nan")
        return share, len(every), {kind: round(float(np.mean(v)), 3) for kind, v in sorted(right.items())}
