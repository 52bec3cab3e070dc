# SPDX-License-Identifier: Apache-2.0
"""Which sounds do the lips show, which do they take for another, and how late are they? Recorded speech, too.

A linear classifier learns from the truth of other voices and sentences which of eight classes of phonemes a mouth
shows, from the mouth's controls in the middle of the phoneme and a frame to either side. What it tells of held-out
truth is the limit; lips that follow another clip's sound are the control that must fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation import rig_metrics as rig
from flowact_ros.evaluation.clips import Clip, recorded_clip, speech_clips
from flowact_ros.evaluation.events import get
from flowact_ros.evaluation.experiments.material import SIZE, Material, Tell, material, run, within
from flowact_ros.evaluation.experiments.motion_figures import LIPS, columns
from flowact_ros.evaluation.experiments.motion_figures import values as motion_values
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.evaluation.metrics import best_lag, correlation, loudness
from flowact_ros.models.codec.motion import RIG, control_index
from flowact_ros.models.codec.motion_statistics import MOUTH
from flowact_ros.models.dit import DiT
from flowact_ros.timebase import FRAME_RATE

CLASSES = {
    "closed": ("P", "B", "M"),
    "lip-teeth": ("F", "V"),
    "rounded": ("W", "UW", "UH", "OW", "AO", "OY"),
    "sh ch r": ("SH", "ZH", "CH", "JH", "R", "ER"),
    "open": ("AA", "AE", "AH", "AW", "AY", "EH"),
    "wide": ("IY", "IH", "EY", "Y"),
    "tongue": ("T", "D", "N", "L", "S", "Z", "TH", "DH"),
    "back": ("K", "G", "NG", "HH", "AX"),
}
NAMES = tuple(CLASSES)
_CLASS = {symbol: i for i, symbols in enumerate(CLASSES.values()) for symbol in symbols}
_COLUMNS = [control_index(name) for name in MOUTH]
_SCALE = np.array([RIG[c].scale for c in _COLUMNS])
RIDGE = 0.05  # added to variances, in squared scales
TRAINED_ON = 24  # clips of the split on which settings are chosen
CHARACTER = "mia"  # who says recorded speech; motion does not depend on it

FIGURES = [
    *columns(LIPS),
    Figure("class_accuracy", "classes told apart (balanced)"),
    *(Figure(f"recall.{name}", f"told: {name}") for name in NAMES),
    Figure("lag_width_s", "mouth width, lag [s]", 0.0, 3),
    Figure("lag_round_s", "mouth rounding, lag [s]", 0.0, 3),
    Figure("loudness_correlation", "opening against loudness", None),
    Figure("loudness_lag_s", "opening after loudness [s]", None, 3),
]


def mouths(clip: Clip, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what the mouth shows in every phoneme `[N, 3 M]`, the phonemes' classes `[N]`), for raw motion `[T, K]`."""
    scaled = motion[:, _COLUMNS] / _SCALE
    rows, kinds = [], []
    for p in clip.performance.phonemes:
        k = int((p.start_s + p.end_s) / 2 * FRAME_RATE)
        if p.symbol in _CLASS and 1 <= k < len(motion) - 1:
            rows.append(scaled[k - 1 : k + 2].ravel())
            kinds.append(_CLASS[p.symbol])
    return np.array(rows).reshape(len(kinds), 3 * len(_COLUMNS)), np.array(kinds, int)


@dataclass(frozen=True, eq=False)
class Classifier:
    """Linear discriminants of Gaussians with one covariance, all classes equally likely: weight `[3 M, C]`, bias."""

    weight: np.ndarray
    bias: np.ndarray

    @staticmethod
    def learn(clips: Sequence[Clip]) -> Classifier:
        """From the truth of `clips`. Raises ValueError when they lack a class."""
        parts = [mouths(clip, clip.controls.numpy()) for clip in clips]
        x, kinds = np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])
        missing = [name for i, name in enumerate(NAMES) if not (kinds == i).any()]
        if missing:
            raise ValueError(f"clips hold no phoneme of the class {missing[0]!r}; more of them are needed")
        means = np.stack([x[kinds == i].mean(0) for i in range(len(NAMES))])
        rest = x - means[kinds]
        inverse = np.linalg.inv(rest.T @ rest / len(rest) + RIDGE * np.eye(x.shape[1]))
        return Classifier(inverse @ means.T, -0.5 * np.einsum("ci,ij,cj->c", means, inverse, means))

    def confusion(self, clips: Sequence[Clip], motion: Sequence[np.ndarray]) -> np.ndarray:
        """Counts `[C, C]`: row: what sounds, column: what the mouth is taken for."""
        out = np.zeros((len(NAMES), len(NAMES)))
        for clip, m in zip(clips, motion, strict=True):
            x, kinds = mouths(clip, m)
            np.add.at(out, (kinds, (x @ self.weight + self.bias).argmax(1)), 1)
        return out


def shares(counts: np.ndarray) -> np.ndarray:
    """Of each row; NaN where the class did not occur."""
    total = counts.sum(1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


@dataclass
class Lips:
    """Motion of a material by one hand (the model's, the truth's), and its figures."""

    name: str
    material: Material
    motion: list[np.ndarray]
    classifier: Classifier

    def confusions(self) -> list[np.ndarray]:
        """One a seed."""
        parts = zip(self.material.by_seed(self.material.clips), self.material.by_seed(self.motion))
        return [self.classifier.confusion(clips, motion) for clips, motion in parts]

    def row(self) -> Row:
        made, true = self.material.takes(self.motion), self.material.truth()
        out = motion_values(made, true, LIPS)
        recalls = [np.diag(shares(counts)) for counts in self.confusions()]
        out["class_accuracy"] = [float(np.nanmean(r)) for r in recalls]
        for i, name in enumerate(NAMES):
            out[f"recall.{name}"] = [float(r[i]) for r in recalls]
        for column in ("width", "round"):
            out[f"lag_{column}_s"] = [
                best_lag([(get(a.series, column), get(b.series, column)) for a, b in zip(x, y)]).seconds
                for x, y in zip(made, true)
            ]
        return Row(self.name, out | against_loudness(self.material.by_seed(self.material.clips), made))


def against_loudness(clips: Sequence[Sequence[Clip]], takes: Sequence[Sequence[rig.Take]]) -> dict[str, list[float]]:
    """All that can be told of recorded speech, which has no true lips; by seed."""
    pairs = [
        [(get(t.series, "opening"), loudness(c.pcm, c.frames)) for c, t in zip(own, made)]
        for own, made in zip(clips, takes)
    ]
    return {
        "loudness_correlation": [float(np.mean([correlation(a, b) for a, b in p])) for p in pairs],
        "loudness_lag_s": [best_lag(p).seconds for p in pairs],
    }


def recordings(paths: Sequence[str]) -> list[Clip]:
    """Recorded speech as clips. Raises MediaError, EvaluationError."""
    return [recorded_clip(path, CHARACTER, SIZE) for path in paths]


def recorded(pipeline: AvatarPipeline, clip: Clip, seeds: int) -> Row:
    """Recorded speech, said with the noise of several seeds."""
    said = material(pipeline, [clip] * seeds, list(range(seeds)))
    made = said.takes(run(pipeline.denoiser, said))
    return Row(f"recorded: {clip.name}", against_loudness(said.by_seed(said.clips), made))


def compare(
    pipeline: AvatarPipeline, speech: Material, said: Sequence[Clip], tell: Tell
) -> tuple[Table, list[np.ndarray]]:
    """The experiment, and confusions `[C, C]` (counts) of the truth and of the model."""
    model: DiT = pipeline.denoiser
    tell("a classifier of mouths", 0.2)
    classifier = Classifier.learn(speech_clips(TRAINED_ON, 12.0, SIZE, "validation"))
    truth = Lips("truth", speech, [clip.controls.numpy() for clip in speech.clips], classifier)
    hands = [truth]
    for k, (name, heard) in enumerate((("model", speech), ("another clip's sound", speech.with_other_sound()))):
        motion = run(model, heard, tell=within(tell, name, 0.3 + 0.3 * k, 0.6 + 0.3 * k))
        cut = [m[: clip.frames] for clip, m in zip(speech.clips, motion)]
        hands.append(Lips(name, speech, cut, classifier))
    rows = [lips.row() for lips in hands]
    for k, clip in enumerate(said):
        tell("recorded speech", 0.9 + 0.1 * k / len(said))
        rows.append(recorded(pipeline, clip, speech.count))
    confusions = [np.sum(lips.confusions(), axis=0) for lips in hands[:2]]
    facts = {
        "classes": {name: " ".join(symbols) for name, symbols in CLASSES.items()},
        "phonemes": {name: int(n) for name, n in zip(NAMES, confusions[0].sum(1))},
        "confusion": {
            hand.name: [[round(float(x), 3) for x in line] for line in shares(counts)]
            for hand, counts in zip(hands, confusions)
        },
    }
    question = "which sounds do the lips show, and how late?"
    return Table("lipsync", question, FIGURES, rows, speech.count, "truth", facts), confusions
