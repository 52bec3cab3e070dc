# SPDX-License-Identifier: Apache-2.0
"""`flowact eval quick`: is the picture good, do the lips follow the sound, does the character stay itself?

Characters, voices and sentences are ones that training never saw (`data/splits.py`). Every figure stands beside the
renderer's own frames (truth), their VAE round trip (bound) and a control that must fail. Deterministic for a seed,
a machine kind and a thread count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.data.characters import NAMED
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.evaluation import metrics
from flowact_ros.evaluation.clips import (
    Clip,
    EvaluationError,
    Generated,
    generate,
    heldout_clips,
    recorded_clip,
    round_trip,
    to_bytes,
)
from flowact_ros.evaluation.figures import (
    LINES,
    ClipResult,
    clip_record,
    lip_figures,
    motion_figures,
    picture_figures,
)
from flowact_ros.evaluation.readout import MouthReadout, crop, mouth_place, read_opening
from flowact_ros.evaluation.report import Report
from flowact_ros.evaluation.sheets import SHEET_COLUMNS, curves, sheet, small
from flowact_ros.evaluation.steady import steady_run
from flowact_ros.timebase import FRAME_RATE

NAMED_SHOWN = ("mia", "kenji", "amara")
MOUTH_COLUMNS = 18


@dataclass(frozen=True)
class Settings:
    """clips, seconds: held-out clips and their length; controls: clips made again with another clip's sound; named:
    named characters; long_s: length of the drift run; wavs: recorded speech; seed: of the stream's noise."""

    clips: int = 6
    seconds: float = 10.0
    controls: int = 3
    named: int = 2
    long_s: float = 120.0
    wavs: tuple[str, ...] = ()
    character: str = "mia"  # of the drift run and of recorded speech
    seed: int = 0
    split: str = "heldout"  # settings are chosen on "validation", whose characters are others
    out: Path | None = None


class Quick:
    """One run. `tell(text, done)`: progress, `done` in 0 .. 1."""

    def __init__(
        self,
        pipeline: AvatarPipeline,
        readout: MouthReadout,
        settings: Settings,
        tell: Callable[[str, float], None] = lambda text, done: None,
    ) -> None:
        self.pipeline, self.readout, self.settings, self.tell = pipeline, readout, settings, tell
        self.size = pipeline.config.height
        self.report = Report("flowact eval quick")
        s = settings
        self._units = float(
            s.clips * s.seconds * 2.2
            + s.controls * s.seconds
            + s.named * s.seconds
            + s.long_s
            + 10 * len(s.wavs)
        )
        self._done = 0.0
        self._label = ""

    def run(self) -> Report:
        """All parts; the report's facts hold each clip's figures too."""
        began = time.monotonic()
        s = self.settings
        clips = heldout_clips(s.clips, s.seconds, self.size, split=s.split)
        results = [self._clip(clip, i) for i, clip in enumerate(clips)]
        shuffled = self._shuffled(results)
        named = self._named(clips)
        picture_figures(self.report, results)
        lip_figures(self.report, results, shuffled, named)
        motion_figures(self.report, results)
        if self.settings.long_s:
            self._step(0.0, f"{self.settings.character} for {self.settings.long_s:.0f} s")
            self._long_rows = steady_run(
                self.report,
                self.pipeline,
                self.settings.character,
                self.settings.long_s,
                seed=self.settings.seed,
                tell=lambda frames: self._step(frames / FRAME_RATE),
            )
        for path in self.settings.wavs:
            self._recorded(path, results)
        self.report.facts["clips"] = [clip_record(r) for r in results]
        made = sum(r.clip.frames for r in results) / FRAME_RATE
        factor = sum(r.made_in for r in results) / max(made, 1e-9)
        self.report.facts["real_time_factor_here"] = round(factor, 3)
        self.report.facts["seconds"] = round(time.monotonic() - began, 1)
        if self.settings.out is not None:
            self._draw(results, named)
        return self.report

    # ---------------------------------------------------------------- parts

    def _step(self, seconds: float, label: str = "") -> None:
        self._done += seconds
        self._label = label or self._label
        self.tell(self._label, min(1.0, self._done / max(self._units, 1e-9)))

    def _read(self, clip: Clip, frames: Tensor) -> np.ndarray:
        return read_opening(self.readout, frames, mouth_place(clip.identity)) * LINES

    def _mouths(self, clip: Clip, frames: Tensor) -> Tensor:
        """Surroundings of the mouth in every second frame of the liveliest second and a half."""
        lively = np.convolve(np.abs(np.diff(clip.opening)), np.ones(2 * MOUTH_COLUMNS), "valid")
        first = int(np.argmax(lively)) if len(lively) else 0
        crops = crop(frames[first : first + 2 * MOUTH_COLUMNS : 2], mouth_place(clip.identity))
        return to_bytes(crops)

    def _make(self, clip: Clip, label: str) -> Generated:
        self._step(0.0, label)
        return generate(
            self.pipeline, clip, seed=self.settings.seed, tell=lambda n: self._step(n / FRAME_RATE)
        )

    def _clip(self, clip: Clip, number: int) -> ClipResult:
        label = f"clip {number + 1} of {self.settings.clips} ({clip.name})"
        self._step(0.0, f"{label}: drawing")
        truth = clip.truth()
        self._step(0.7 * self.settings.seconds, f"{label}: VAE")
        bound = round_trip(self.pipeline, truth)
        if len(bound) < len(truth):
            raise EvaluationError(f"{len(truth)} frames are not whole latents")
        self._step(0.5 * self.settings.seconds)
        made = self._make(clip, f"{label}: stream")
        boxes = clip.boxes()
        few = slice(0, None, 5)
        eyes = [metrics.psnr(truth[few], bound[few], boxes[name][few]) for name in ("eye_left", "eye_right")]
        times = np.linspace(0.5, clip.frames / FRAME_RATE - 0.5, SHEET_COLUMNS) * FRAME_RATE
        chosen = torch.from_numpy(times.astype(int))
        face, own = boxes["face"][few], metrics.detail(truth[few], boxes["face"][few])
        still = torch.from_numpy(clip.picture()).permute(2, 0, 1).expand_as(truth[few])
        blurred = F.avg_pool2d(truth[few].float(), 5, 1, 2).to(torch.uint8)
        others = (("VAE", bound[few]), ("stream", made.frames[few]), ("still", still))
        return ClipResult(
            clip=clip,
            face={name: metrics.psnr(truth[few], frames, face) for name, frames in others},
            detail={
                name: metrics.detail(frames, face) / own for name, frames in (*others[:2], ("blur", blurred))
            },
            psnr=metrics.psnr(truth[few], bound[few]),
            ssim=metrics.ssim(truth[few], bound[few]),
            eyes=float(np.mean(eyes)),
            mouth=metrics.psnr(truth[few], bound[few], boxes["mouth"][few]),
            true=clip.opening * LINES,
            read_truth=self._read(clip, truth),
            read_bound=self._read(clip, bound),
            read=self._read(clip, made.frames),
            changes_truth=metrics.differences(truth),
            changes_bound=metrics.differences(bound),
            changes=metrics.differences(made.frames),
            starts=made.starts,
            made_in=made.seconds,
            rows=[
                (f"{clip.name} truth", small(truth[chosen])),
                ("VAE", small(bound[chosen])),
                ("stream", small(made.frames[chosen])),
            ],
            mouths=[
                (label, self._mouths(clip, frames))
                for label, frames in ((f"{clip.name} truth", truth), ("VAE", bound), ("stream", made.frames))
            ],
        )

    def _shuffled(self, results: list[ClipResult]) -> list[tuple[ClipResult, np.ndarray]]:
        """Clips made again with the sound of another one: what the lips owe to anything but the sound."""
        out = []
        for i in range(min(self.settings.controls, len(results))):
            other = results[(i + 1) % len(results)].clip
            clip = results[i].clip.with_sound_of(other)
            made = self._make(clip, f"control {i + 1} of {self.settings.controls}: another clip's sound")
            out.append((results[i], self._read(clip, made.frames)))
        return out

    def _named(self, clips: list[Clip]) -> list[tuple[Clip, np.ndarray, Tensor]]:
        out = []
        for i, name in enumerate(NAMED_SHOWN[: self.settings.named]):
            clip = clips[i % len(clips)].as_character(NAMED[name], name)
            made = self._make(clip, f"named character {name}")
            chosen = torch.linspace(12, clip.frames - 13, SHEET_COLUMNS).long()
            out.append((clip, self._read(clip, made.frames), small(made.frames[chosen])))
        return out

    # ---------------------------------------------------------------- recorded speech

    def _recorded(self, path: str, results: list[ClipResult]) -> None:
        """Recorded speech has no true lips: the opening is compared with the loudness, as the truth's own is."""
        clip = recorded_clip(path, self.settings.character, self.size)
        made = self._make(clip, f"recorded speech {clip.name}")
        read, loud = self._read(clip, made.frames), metrics.loudness(clip.pcm, clip.frames)
        own = [metrics.correlation(r.true, metrics.loudness(r.clip.pcm, r.clip.frames)) for r in results]
        least = 0.8 * float(np.mean(own))
        shifts = range(FRAME_RATE, clip.frames - FRAME_RATE, 7)
        turned = [abs(metrics.correlation(read, np.roll(loud, shift))) for shift in shifts]
        self.report.add(
            f"recorded_{clip.name}", f"opening against loudness, {clip.name}", metrics.correlation(read, loud),
            truth=float(np.mean(own)), control=float(np.mean(turned)), least=round(least, 3),
        )  # fmt: skip

    # ---------------------------------------------------------------- output

    def _draw(self, results: list[ClipResult], named: list[tuple[Clip, np.ndarray, Tensor]]) -> None:
        out = self.settings.out
        assert out is not None
        out.mkdir(parents=True, exist_ok=True)
        sheet(out / "clips.png", [row for r in results for row in r.rows])
        sheet(out / "mouths.png", [row for r in results for row in r.mouths])
        if named:
            sheet(out / "named.png", [(clip.name, frames) for clip, _, frames in named])
        if self.settings.long_s:
            sheet(out / "long.png", self._long_rows)
        lines = [(r.clip.name, {"truth": r.true, "VAE": r.read_bound, "stream": r.read}) for r in results]
        curves(out / "lips.png", lines)
        (out / "report.json").write_text(self.report.json() + "\n", encoding="utf-8")
