# SPDX-License-Identifier: Apache-2.0
"""What is evaluated: held-out clips, their truth, its VAE round trip, and what the stream makes of their sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import (
    NAMED,
    Identity,
    feature_boxes,
    identity_from_seed,
    mouth_opening,
    neutral,
    neutral_picture,
    render,
)
from flowact_ros.data.clips import make_performance
from flowact_ros.data.performance import Performance
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.engine.interfaces import ChunkRecord, Frame
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.engine.session import Session
from flowact_ros.evaluation.metrics import settled
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.models.encoding import encode
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)
from flowact_ros.vocabulary import BEHAVIOURS, SPEAKING

HALF_STEP = 6  # frames: an instruction takes effect with the step that begins nearest to it


class EvaluationError(RuntimeError):
    """An evaluation that cannot be carried out: one line."""


@dataclass(frozen=True)
class Clip:
    """A performance of one character. Frames are `[T, 3, size, size]` uint8, curves `[T]`."""

    name: str
    identity: Identity
    performance: Performance
    size: int

    @property
    def frames(self) -> int:
        return self.performance.frames

    @property
    def pcm(self) -> np.ndarray:
        return self.performance.pcm

    @cached_property
    def controls(self) -> Tensor:
        return torch.as_tensor(self.performance.controls, dtype=torch.float32)

    @cached_property
    def opening(self) -> np.ndarray:
        """True opening, fraction of the picture's height."""
        return mouth_opening(self.identity, self.controls).numpy()

    @cached_property
    def silent(self) -> np.ndarray:
        """bool [T]: silence by the phonemes' true times, without the time that lips need to come to rest."""
        quiet = np.ones(self.frames, bool)
        for phoneme in self.performance.phonemes:
            quiet[int(phoneme.start_s * FRAME_RATE) : int(np.ceil(phoneme.end_s * FRAME_RATE))] = False
        return settled(quiet)

    def truth(self) -> Tensor:
        return render(self.identity, self.controls, size=self.size)

    def truth_at(self, frames: np.ndarray) -> Tensor:
        return render(self.identity, self.controls[torch.as_tensor(frames)], size=self.size)

    def boxes(self) -> dict[str, np.ndarray]:
        return {
            name: box.numpy() for name, box in feature_boxes(self.identity, self.controls, self.size).items()
        }

    def picture(self) -> np.ndarray:
        """The reference, uint8 [H, W, 3]: the neutral character."""
        return neutral_picture(self.identity, self.size)

    def as_character(self, identity: Identity, name: str) -> Clip:
        """The same performance by another character."""
        return Clip(name, identity, self.performance, self.size)

    def with_sound_of(self, other: Clip) -> Clip:
        """The same character and instructions with another clip's sound: a control."""
        pcm = np.resize(other.pcm, self.pcm.shape)
        return Clip(self.name, self.identity, replace(self.performance, pcm=pcm), self.size)


def heldout_clips(
    count: int, seconds: float, size: int, first: int = 0, split: str = "heldout"
) -> list[Clip]:
    """Clips number `first` … of a split that is never trained on, each with another character (both styles)."""
    whole = FRAMES_PER_LATENT / FRAME_RATE
    seconds = max(1, round(seconds / whole)) * whole  # so that clips can follow each other without a gap
    clips = []
    for number in range(first, first + count):
        spec = make_performance(number, split, seconds, speaking=0.75)
        seed = CHARACTER_SEEDS[split][number % len(CHARACTER_SEEDS[split])]
        # styles in turn: mostly people, each third a robot
        identity = identity_from_seed(seed, "robot" if number % 3 == 2 else "human")
        clips.append(Clip(f"seed:{seed}", identity, spec.performance, size))
    return clips


def recorded_clip(path: str, character: str, size: int, most_s: float = 20.0) -> Clip:
    """A named character who says recorded speech. Its controls are neutral: there is no truth for the lips.

    Raises MediaError, EvaluationError for less than 2 s of sound.
    """
    pcm, rate = read_audio(path)
    pcm = resample(pcm, rate, SAMPLE_RATE)[: int(most_s * SAMPLE_RATE)]
    count = len(pcm) // SAMPLES_PER_LATENT * FRAMES_PER_LATENT
    if count < 2 * FRAME_RATE:
        raise EvaluationError(
            f"{path} holds {len(pcm) / SAMPLE_RATE:.1f} s of sound; at least 2 s are needed"
        )
    said = Performance(
        controls=neutral(count).numpy(),
        pcm=np.ascontiguousarray(pcm[: count * SAMPLES_PER_FRAME]),
        behaviour=np.full(count, BEHAVIOURS.index(SPEAKING), np.int8),
        instruction=[(0, "talking to the viewer")],
        phonemes=[],
    )
    return Clip(Path(path).stem, NAMED[character], said, size)


@torch.inference_mode()
def round_trip(pipeline: AvatarPipeline, frames: Tensor, piece: int = 8) -> Tensor:
    """uint8 frames through the VAE and back, streamed; frames beyond a multiple of four are left out."""
    encoder: dict = {}
    decoder: dict = {}
    parts = []
    for part in frames[: len(frames) - len(frames) % FRAMES_PER_LATENT].split(piece):
        video = (part.to(pipeline.device, pipeline.dtype) / 127.5 - 1.0).unsqueeze(0)
        latents, encoder = encode(pipeline.vae, video, pipeline.config.encoding_steps, encoder)
        decoded, decoder = pipeline.vae.decode(latents, decoder)
        parts.append(to_bytes(decoded[0]))
    return torch.cat(parts)


def to_bytes(video: Tensor) -> Tensor:
    """float `[T, 3, H, W]` in -1 .. 1 -> uint8."""
    return video.float().add(1.0).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu()


@torch.inference_mode()
def image_latents(pipeline: AvatarPipeline, frames: Tensor) -> Tensor:
    """Latents `[T, C, h, w]` of single frames, each as a still picture."""
    parts = []
    for part in frames.split(4):
        video = part.to(pipeline.device, pipeline.dtype) / 127.5 - 1.0
        parts.append(pipeline.vae.encode_image(video).float().cpu())
    return torch.cat(parts)


@dataclass
class Generated:
    """What the stream made. `starts`: first frames of its steps; `seconds`: wall time."""

    frames: Tensor
    starts: list[int] = field(default_factory=list)
    seconds: float = 0.0


def stream(
    pipeline: AvatarPipeline,
    picture: np.ndarray,
    performances: list[Performance],
    *,
    seed: int = 0,
    starts: list[int] | None = None,
) -> Iterator[Frame]:
    """Frames of performances one after the other, from an offline `Session`: the code path of the live stream.

    Every performance's sound is one utterance of whole latents, so that frame k belongs to the sample 960 k of it.
    """
    total = sum(p.frames for p in performances)
    records: list[ChunkRecord] = []
    session = Session(pipeline, picture, seed=seed, on_chunk=records.append)
    script: dict[int, tuple[str, str]] = {}
    first = 0
    for performance in performances:
        for at, text in performance.instruction:
            if at < performance.frames:
                script[first + at] = text, BEHAVIOURS[int(performance.behaviour[at])]
        first += performance.frames
    with session:
        pending = list(enumerate(performances))
        frames = session.frames(realtime=False)
        for k in range(total):
            # A step is made when its first frame is asked for: what starts within it is told before.
            for at in sorted(at for at in script if at <= k + HALF_STEP):
                text, behaviour = script.pop(at)
                session.set_instruction(text, behaviour=behaviour)
            while pending and session.queued_s < 30.0:
                number, performance = pending.pop(0)
                session.push_audio(performance.pcm, 24_000, utterance_id=f"clip-{number}", last=True)
            frame = next(frames)
            if k == 0 and frame.utterance_id != "clip-0":
                raise EvaluationError(
                    "the sound did not start with the first frame: truth and stream are out of step"
                )
            yield frame
        if starts is not None:
            starts.extend(record.first_frame for record in records)


def generate(
    pipeline: AvatarPipeline, clip: Clip, *, seed: int = 0, tell: Callable[[int], None] | None = None
) -> Generated:
    """The stream's version of a clip, from its reference picture, sound and instructions."""
    began = time.perf_counter()
    out = torch.empty(clip.frames, 3, pipeline.height, pipeline.width, dtype=torch.uint8)
    starts: list[int] = []
    for k, frame in enumerate(stream(pipeline, clip.picture(), [clip.performance], seed=seed, starts=starts)):
        out[k] = torch.from_numpy(frame.rgb).permute(2, 0, 1)
        if tell is not None:
            tell(1)
    return Generated(out, starts, time.perf_counter() - began)
