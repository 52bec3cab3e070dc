# SPDX-License-Identifier: Apache-2.0
"""`flowact eval quick`: does it live, do the lips follow the sound, is it sharp, does it do what it is told?

Characters, voices and sentences are ones that training never saw (`data/splits.py`). Figures are read from pixels by a
network of the evaluation's own (`rig_readout.py`); rates of events come from minutes of raw motion, with what the
pixels of the clips show beside them. Every figure stands beside truth (the renderer's own frames, read the same way), a
ceiling (the same sound performed once more by the behaviour scripts: also what a script animator with phoneme times
would show), version 1, and controls that must miss the target. Deterministic for a seed, a machine kind and a thread
count.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.engine.interfaces import Pipeline
from flowact_ros.evaluation import figures, pictures
from flowact_ros.evaluation.clips import Clip, behaviour_clips, long_clips, recorded_clip, speech_clips
from flowact_ros.evaluation.events import get
from flowact_ros.evaluation.generate import draw, generate
from flowact_ros.evaluation.metrics import loudness
from flowact_ros.evaluation.recognition import Recogniser, behaviour_of
from flowact_ros.evaluation.report import Report, load_baseline
from flowact_ros.evaluation.rig_metrics import Take, mean_motion
from flowact_ros.evaluation.rig_readout import LINES, Readout, read
from flowact_ros.evaluation.sheets import SHEET_COLUMNS, curves, sheet, small
from flowact_ros.models.codec.motion import clamp, denormalise, normalise
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

LOOK_EVERY = 20  # frames between two looks at sharpness
GROUPS = 6  # latents of a clip whose true motion is drawn
FLICKER_S, FLICKER_NOISE = 2.0, 0.1


@dataclass(frozen=True)
class Settings:
    """clips, seconds: speech clips and their length; behaviours: clips with all nine; minutes: of motion for rates of
    events; controls: clips made again with another clip's sound; wavs: recorded speech, said by `character`; seed: of
    the stream's noise; split: settings are chosen on "validation", whose characters are others."""

    clips: int = 6
    seconds: float = 10.0
    behaviours: int = 3
    minutes: float = 10.0
    controls: int = 3
    wavs: tuple[str, ...] = ()
    character: str = "mia"
    seed: int = 0
    split: str = "heldout"
    out: Path | None = None


@dataclass
class Seen:
    """One clip as it was made and as the truth is, both read from pixels. motion: raw `[T, K]`."""

    clip: Clip
    motion: np.ndarray
    made: Take
    truth: Take
    moved: tuple[float, float]  # pixels' movement, made and true
    looks: dict[int, Tensor]  # frame: picture uint8 [3, H, W]


class Quick:
    """One run. `tell(text, done)`: progress, `done` in 0 .. 1; whisper: the same networks, hearing by Whisper."""

    def __init__(
        self,
        pipeline: Pipeline,
        readout: Readout,
        card: dict,
        settings: Settings,
        tell: Callable[[str, float], None] = lambda text, done: None,
        whisper: Pipeline | None = None,
    ) -> None:
        self.whisper = whisper
        self.pipeline, self.readout, self.card, self.settings, self.tell = (
            pipeline,
            readout,
            card,
            settings,
            tell,
        )
        self.report = Report("flowact eval quick", baseline=load_baseline())
        s = settings
        looked = s.clips * s.seconds + 45 * s.behaviours
        self._units = (
            3 * looked
            + s.controls * 2 * s.seconds
            + 60 * s.minutes * 0.4
            + 45 * s.behaviours * 0.4
            + 40 * len(s.wavs)
            + (0.4 * (s.clips + s.controls) * s.seconds if whisper else 0.0)
        )
        self._done, self._label = 0.0, ""

    def run(self) -> Report:
        began = time.monotonic()
        s = self.settings
        speech = speech_clips(s.clips, s.seconds, self.pipeline.height, s.split)
        acted = behaviour_clips(s.behaviours, self.pipeline.height, s.split)
        seen = [self._see(clip, f"speech {k + 1} of {len(speech)}") for k, clip in enumerate(speech)]
        shown = [self._see(clip, f"behaviours {k + 1} of {len(acted)}") for k, clip in enumerate(acted)]
        self._lips(seen)
        if self.whisper is None:
            self.report.facts["whisper"] = None
        else:
            self._heard_by_whisper(seen)
        self._events(seen, shown)
        if shown:
            self._behaviours(shown)
        self._pictures(seen + shown)
        if s.wavs:
            self._recorded(seen)
        else:
            self.report.facts["recorded_speech"] = {
                "value": None,
                "truth": None,
                "shuffled": None,
                "why": "no --wav",
            }
        self.report.facts["seconds"] = round(time.monotonic() - began, 1)
        if s.out is not None:
            self._draw(seen, shown)
        return self.report

    def _step(self, seconds: float, text: str = "") -> None:
        self._label = text or self._label
        self._done = min(self._done + seconds, self._units)
        self.tell(self._label, self._done / max(self._units, 1e-9))

    # ---------------------------------------------------------------- making and reading

    def _seed(self, clip: Clip) -> int:
        """Of the noise of a clip: its own, since what the sound does not explain comes from the noise. With one seed
        for all clips, ten minutes of blinks would be those of one clip, over and over.
        """
        return self.settings.seed + zlib.crc32(clip.pcm.tobytes())

    def _motion(self, clip: Clip, share: float = 0.4, pipeline: Pipeline | None = None) -> np.ndarray:
        """What the denoiser makes of a clip, without pictures."""
        _, motion = generate(
            pipeline or self.pipeline, clip.picture(), clip.pcm, clip.performance.instruction, self._seed(clip),
            lambda frames: self._step(share * frames / FRAME_RATE),
        )  # fmt: skip
        return motion

    def _watch(self, clip: Clip) -> tuple[Tensor, np.ndarray, dict[int, Tensor]]:
        """(small frames `[T, 3, 256, 256]`, motion, pictures in full size now and then)."""
        frames, motion = generate(
            self.pipeline, clip.picture(), clip.pcm, clip.performance.instruction, self._seed(clip)
        )
        rows, looks = [], {}
        for k, frame in enumerate(frames):
            picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
            if k % LOOK_EVERY == LOOK_EVERY // 2:
                looks[k] = picture
            rows.append(_reduced(picture))
            self._step(1.4 / FRAME_RATE)
        return torch.stack(rows), motion, looks

    def _see(self, clip: Clip, text: str) -> Seen:
        self._step(0.0, f"{text} ({clip.name})")
        frames, motion, looks = self._watch(clip)
        made = self._take(clip, frames)
        drawn = clip.paint(clip.controls, LINES)
        truth = self._take(clip, drawn)
        self._step(1.6 * clip.frames / FRAME_RATE)
        moved = pictures.movement(frames), pictures.movement(drawn)
        return Seen(clip, motion, made, truth, moved, looks)

    def _take(self, clip: Clip, frames: Tensor) -> Take:
        """What is read from a clip's frames `[T, 3, H, H]`, beside its reference."""
        reference = torch.from_numpy(clip.picture()).permute(2, 0, 1)
        return clip.take(read(self.readout, frames, reference))

    # ---------------------------------------------------------------- parts of the table

    def _lips(self, seen: Sequence[Seen]) -> None:
        again, shuffled = [], []
        for k, one in enumerate(seen):
            other = one.clip.again(k)
            again.append(self._take(other, other.paint(other.controls, LINES)))
        for k in range(min(self.settings.controls, len(seen) - 1)):
            self._step(0.0, f"control {k + 1}: another clip's sound")
            clip = seen[k].clip.with_sound_of(seen[k + 1].clip)
            shuffled.append(self._take(clip, self._watch(clip)[0]))
        lips = figures.Lips(
            [s.made for s in seen], [s.truth for s in seen], [s.clip.true() for s in seen], again, shuffled
        )
        figures.lip_figures(self.report, lips)

    def _heard_by_whisper(self, seen: Sequence[Seen]) -> None:
        """The same clips with the same noise, of which only the lips are looked at, in raw motion."""
        self._step(0.0, "lips, heard by Whisper")
        clips = [s.clip for s in seen]
        others = [
            clips[k].with_sound_of(clips[k + 1]) for k in range(min(self.settings.controls, len(clips) - 1))
        ]
        made, shuffled = (
            [clip.of_motion(self._motion(clip, pipeline=self.whisper)) for clip in several]
            for several in (clips, others)
        )
        figures.whisper_figures(
            self.report, made, [s.clip.of_motion(s.motion) for s in seen], [clip.true() for clip in clips],
            [clip.again(k).true() for k, clip in enumerate(clips)], shuffled,
        )  # fmt: skip

    def _events(self, spoken: Sequence[Seen], shown: Sequence[Seen]) -> None:
        """Long motion for rates and smoothness, and for hands that of the behaviours' clips as well."""
        seen = [*spoken, *shown]
        clips = long_clips(self.settings.minutes, self.pipeline.height, self.settings.split)
        self._step(0.0, f"{self.settings.minutes:g} minutes of motion")
        made = [clip.of_motion(self._motion(clip)) for clip in clips]
        truth = [clip.true() for clip in clips]
        script = [clip.again(k).true() for k, clip in enumerate(clips)]
        self._voices(clips, made, seen)
        pixels, own = [s.made for s in seen], [s.truth for s in seen]
        raw, said = [s.clip.of_motion(s.motion) for s in spoken], [s.clip for s in spoken]
        figures.closure_figures(
            self.report, made + raw, truth + [clip.true() for clip in said], [s.made for s in spoken],
            [s.truth for s in spoken], script + [clip.again(k).true() for k, clip in enumerate(said)],
        )  # fmt: skip
        figures.event_figures(self.report, made, truth, pixels, own, script)
        if shown:
            raw, acted = [s.clip.of_motion(s.motion) for s in shown], [s.clip for s in shown]
            figures.hand_figures(
                self.report, made + raw, truth + [clip.true() for clip in acted], [s.made for s in shown],
                [s.truth for s in shown], script + [clip.again(k).true() for k, clip in enumerate(acted)],
            )  # fmt: skip
        energy = sum(s.moved[0] * s.clip.frames for s in seen) / sum(s.moved[1] * s.clip.frames for s in seen)
        figures.smoothness_figures(self.report, made, truth, pixels, own, script, energy)

    def _voices(self, clips: Sequence[Clip], made: Sequence[Take], seen: Sequence[Seen]) -> None:
        voices: dict[str, figures.Spoken] = {}
        for k, (clip, take) in enumerate(zip(clips, made, strict=True)):
            if clip.performance.phonemes:
                spoken = voices.setdefault(clip.voice, figures.Spoken())
                spoken.made.append(take)
                spoken.truth.append(clip.true())
                spoken.again.append(clip.again(k).true())
        for one in seen:
            if one.clip.performance.phonemes and one.clip.voice in voices:
                voices[one.clip.voice].seen.append(one.made)
                voices[one.clip.voice].exact.append(one.clip.true())
        figures.voice_figures(self.report, voices)

    def _behaviours(self, shown: Sequence[Seen]) -> None:
        self._step(0.0, "behaviours told apart")
        recogniser = Recogniser(self.card["errors"]["performances"])
        made, truth = [s.made for s in shown], [s.truth for s in shown]
        again = [s.clip.again(k).true() for k, s in enumerate(shown)]
        wrong = [s.clip.of_motion(self._motion(s.clip.with_texts_of_others())) for s in shown]
        figures.behaviour_figure(
            self.report, recogniser.accuracy(made), recogniser.accuracy(truth), recogniser.accuracy(again)[0],
            {"other text": recogniser.accuracy(wrong)[0], "no denoiser": recogniser.accuracy(mean_motion(truth))[0]},
        )  # fmt: skip

    def _pictures(self, seen: Sequence[Seen]) -> None:
        self._step(0.0, "sharpness, and true motion through the renderer")
        out = figures.Pictures(edges=self._edges(seen))
        parts: dict[str, list[tuple[Tensor, Tensor, np.ndarray | None]]] = {}
        for one in seen:
            for name, row in self._oracle(one.clip).items():
                parts.setdefault(name, []).extend(row)
        for name, rows in parts.items():
            out.psnr[name] = pictures.mean_db(np.array([pictures.psnr(a, b, box) for a, b, box in rows]))
            if not name.endswith("_still"):
                out.worst[name] = pictures.worst_tenth(np.concatenate([pictures.frame_psnrs(*row) for row in rows]))
        out.flicker = self._flicker(seen[0].clip)
        figures.picture_figures(self.report, out)

    def _edges(self, seen: Sequence[Seen]) -> dict[str, dict[str, float]]:
        """Gradients of what was drawn ÷ those of the world's renderer with the very same motion, by behaviour."""
        sums: dict[str, dict[str, list[float]]] = {}
        for one in seen:
            at = sorted(one.looks)
            motion = clamp(torch.from_numpy(one.motion[at]))
            true, boxes = one.clip.paint(motion), one.clip.boxes(motion)
            drawn = torch.stack([one.looks[k] for k in at])
            blurred = F.avg_pool2d(true.float(), 5, 1, 2).to(torch.uint8)
            kinds = _kinds(one.made)
            for part, names in (
                ("face", ("face",)),
                ("eyes", ("eye_left", "eye_right")),
                ("mouth", ("mouth",)),
            ):
                for name in names:
                    for suffix, frames in (("", drawn), ("_true", true), ("_blurred", blurred)):
                        for k, value in zip(at, pictures.edges(frames, boxes[name]), strict=True):
                            sums.setdefault(kinds[k], {}).setdefault(part + suffix, []).append(value)
        out: dict[str, dict[str, float]] = {}
        for kind, values in sums.items():
            out[kind] = {
                f"{part}{suffix}": float(np.mean(values[f"{part}{suffix}"]) / np.mean(values[f"{part}_true"]))
                for part in ("face", "eyes", "mouth")
                for suffix in ("", "_blurred")
            }
        return out

    def _oracle(self, clip: Clip) -> dict[str, list[tuple[Tensor, Tensor, np.ndarray | None]]]:
        """(drawn, true, boxes) of some latents with the true motion; `…_still`: the reference in place of drawn."""
        starts = np.linspace(0, clip.frames - FRAMES_PER_LATENT, GROUPS).astype(int)
        starts -= starts % FRAMES_PER_LATENT
        at = np.concatenate([np.arange(k, k + FRAMES_PER_LATENT) for k in starts])
        motion = clip.controls[torch.from_numpy(at)]
        drawn = torch.from_numpy(draw(self.pipeline, clip.picture(), motion.numpy())).permute(0, 3, 1, 2)
        true, boxes = clip.paint(motion), clip.boxes(motion)
        still = torch.from_numpy(clip.picture()).permute(2, 0, 1).expand_as(true)
        out: dict[str, list[tuple[Tensor, Tensor, np.ndarray | None]]] = {}
        for suffix, frames in (("", drawn), ("_still", still)):
            out[f"whole{suffix}"] = [(frames, true, None)]
            out[f"eyes{suffix}"] = [(frames, true, boxes[name]) for name in ("eye_left", "eye_right")]
            out[f"mouth{suffix}"] = [(frames, true, boxes["mouth"])]
        return out

    def _flicker(self, clip: Clip) -> float:
        """Trembling of the renderer's pictures ÷ that of the world's, both with the same disturbed motion."""
        count = min(clip.frames, round(FLICKER_S * FRAME_RATE)) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
        noise = torch.randn(count, clip.controls.shape[1], generator=torch.Generator().manual_seed(0))
        motion = clamp(denormalise(normalise(clip.controls[:count]) + FLICKER_NOISE * noise))
        drawn = torch.from_numpy(draw(self.pipeline, clip.picture(), motion.numpy())).permute(0, 3, 1, 2)
        return pictures.flicker(drawn) / pictures.flicker(clip.paint(motion))

    def _recorded(self, seen: Sequence[Seen]) -> None:
        made = []
        for path in self.settings.wavs:
            clip = recorded_clip(path, self.settings.character, self.pipeline.height)
            self._step(0.0, f"recorded speech {clip.name}")
            opening = get(self._take(clip, self._watch(clip)[0]).series, "opening")
            made.append((opening, loudness(clip.pcm, clip.frames)))
        own = [(get(s.truth.series, "opening"), loudness(s.clip.pcm, s.clip.frames)) for s in seen]
        figures.recorded_figure(self.report, made, own)

    # ---------------------------------------------------------------- output

    def _draw(self, seen: Sequence[Seen], shown: Sequence[Seen]) -> None:
        out = self.settings.out
        assert out is not None
        out.mkdir(parents=True, exist_ok=True)
        rows = []
        for one in [*seen, *shown]:
            at = [sorted(one.looks)[k] for k in np.linspace(0, len(one.looks) - 1, SHEET_COLUMNS).astype(int)]
            rows.append((f"{one.clip.name} truth", small(one.clip.paint(one.clip.controls[at]))))
            rows.append(("stream", small(torch.stack([one.looks[k] for k in at]))))
        sheet(out / "clips.png", rows)
        pairs = [
            (s.clip.name, {"truth": get(s.truth.series, "opening"), "stream": get(s.made.series, "opening")})
            for s in seen
        ]
        curves(out / "lips.png", pairs)
        np.savez_compressed(
            out / "series.npz",
            **{
                f"{kind}_{k}": getattr(one, kind).series
                for k, one in enumerate([*seen, *shown])
                for kind in ("made", "truth")
            },
        )
        (out / "report.json").write_text(self.report.json() + "\n", encoding="utf-8")


def _reduced(picture: Tensor) -> Tensor:
    """uint8 `[3, H, W]` -> `[3, 256, 256]`, as the readout sees it."""
    if picture.shape[-1] == LINES:
        return picture
    value = F.interpolate(picture[None].float(), (LINES, LINES), mode="bilinear", antialias=True)
    return value.round().clamp(0, 255).to(torch.uint8)[0]


def _kinds(take: Take) -> list[str]:
    """The one of nine behaviours of every frame."""
    out = [""] * take.frames
    for kind, start, end in take.spans():
        out[start:end] = [behaviour_of(kind)] * (end - start)
    return out
