# SPDX-License-Identifier: Apache-2.0
"""Pictures of a renderer beside those that the world's own renderer paints of the same motion, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from flowact_ros.evaluation import pictures
from flowact_ros.evaluation.clips import Clip
from flowact_ros.evaluation.experiments.table import Figure
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.codec.motion import clamp, normalise

PARTS = {"face": ("face",), "eyes": ("eye_left", "eye_right"), "mouth": ("mouth",)}
FIGURES = (
    *(Figure(f"edges.{part}", f"edges in the {part} / truth") for part in PARTS),
    *(Figure(f"oracle_psnr.{part}", f"{part}, PSNR [dB]", None, 1) for part in ("whole", "eyes", "mouth")),
)
FLICKER = Figure("oracle_flicker", "flicker / truth with the same noise")


class Subject:
    """A clip's character, as the renderer knows it from its reference picture."""

    def __init__(self, codec: LiveCodec, clip: Clip) -> None:
        self.codec, self.clip = codec, clip
        picture = torch.from_numpy(np.ascontiguousarray(clip.picture())).permute(2, 0, 1)[None]
        self.appearance = codec.encode(picture.float() / 127.5 - 1)[0]


@dataclass
class Sums:
    """What figures of a seed are made of, over its stretches of frames."""

    edges: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)
    flicker: list[tuple[float, float]] = field(default_factory=list)

    def add(self, subject: Subject, motion: Tensor) -> None:
        """Draw and paint raw motion `[4 n, K]` of consecutive frames."""
        raw = clamp(motion)
        drawn = torch.from_numpy(subject.codec.render(subject.appearance, normalise(raw))).permute(0, 3, 1, 2)
        true, boxes = subject.clip.paint(raw), subject.clip.boxes(raw)
        for part, names in PARTS.items():
            for name in names:
                made, own = (pictures.edges(frames, boxes[name]) for frames in (drawn, true))
                self.edges.setdefault(part, []).extend(made)
                self.edges.setdefault(f"{part} true", []).extend(own)
                if part != "face":
                    self._error(part, pictures.psnr(drawn, true, boxes[name]))
        self._error("whole", pictures.psnr(drawn, true))
        self.flicker.append((pictures.flicker(drawn), pictures.flicker(true)))

    def _error(self, part: str, psnr: float) -> None:
        self.errors.setdefault(part, []).append(10 ** (-psnr / 10))

    def values(self) -> dict[str, float]:
        out = {f"edges.{p}": float(np.mean(self.edges[p]) / np.mean(self.edges[f"{p} true"])) for p in PARTS}
        out |= {f"oracle_psnr.{p}": float(-10 * np.log10(np.mean(e))) for p, e in self.errors.items()}
        made, own = np.mean(self.flicker, axis=0)
        return out | {FLICKER.key: float(made / own)}


def by_seed(every: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """From the values of each seed to a row's."""
    return {key: [values[key] for values in every] for key in every[0]}
