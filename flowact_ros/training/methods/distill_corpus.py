# SPDX-License-Identifier: Apache-2.0
"""Speech for distilling the audio encoder: clean for the teacher, through rooms and noise for the student.

Everything lies on one axis of video frames, 25 a second.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import soxr

from flowact_ros.data.augment import (
    Channel,
    apply_channel,
    available,
    draw_channel,
    draw_voice,
    speak,
    stretch,
)
from flowact_ros.data.sentences import sentence
from flowact_ros.data.splits import KOKORO_TRACT
from flowact_ros.data.visemes import mouth
from flowact_ros.dialogue.speech import Phoneme, Speech
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.timebase import (
    ENCODER_RATE,
    ENCODER_SAMPLES_PER_FRAME,
    FRAME_RATE,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
)

STEP = 4  # frames: utterances are padded to whole latents
TRACTS = 3  # lengths of the vocal tract that a sentence of Kokoro's is heard with
VARIANTS = 3  # channels drawn for each utterance, beside the clean sound
LEVEL = 10 ** (-22 / 20)  # RMS of an utterance before its channel's gain
NOISE_ONLY = 0.06  # share of utterances that are silence, in which the student hears noise only
# Classes that can be told apart on lips, and silence. A probe that reads them sees what a lip needs.
GROUPS = (
    "SIL", "P B M", "F V", "TH DH", "T D N L", "S Z", "SH ZH CH JH", "K G NG HH Y", "R ER", "AA AE AH AY AW",
    "EH AX EY", "IH IY", "AO OW OY", "UW UH W",
)  # fmt: skip
VISEME = {symbol: index for index, group in enumerate(GROUPS) for symbol in group.split()}


@dataclass(frozen=True)
class Corpus:
    """clean float16 [T*640]; heard float16 [VARIANTS, T*640]; mouth float32 [T, M]; viseme int64 [T] (see GROUPS)."""

    clean: np.ndarray
    heard: np.ndarray
    mouth: np.ndarray
    viseme: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.viseme)

    @property
    def loudness(self) -> np.ndarray:
        """log10 of the clean power of each frame, float32 [T]; -7 is silence."""
        power = np.square(self.clean.astype(np.float32)).reshape(-1, ENCODER_SAMPLES_PER_FRAME).mean(1)
        return np.log10(power + 1e-7)


def visemes(phonemes: list[Phoneme], frames: int) -> np.ndarray:
    """Class sounding in the middle of each frame, int64 [frames]."""
    centre = (np.arange(frames) + 0.5) / FRAME_RATE
    out = np.zeros(frames, np.int64)
    for phoneme in phonemes:
        out[(centre >= phoneme.start_s) & (centre < phoneme.end_s)] = VISEME[phoneme.symbol]
    return out


def utterances(rng: np.random.Generator, split: str, of_kokoro: bool = False) -> list[Corpus]:
    """A random sentence in a random voice, with silence around it; or silence. Of Kokoro's, which are dear, each is
    heard from `TRACTS` throats.
    """
    if rng.random() < NOISE_ONLY:
        return [heard(rng, None)]
    voice, text = draw_voice(rng, split, of_kokoro=of_kokoro), sentence(rng, split)
    if not of_kokoro:
        return [heard(rng, speak(text, available(voice)))]
    said = load_synthesizer(voice.backend).synthesize(text, rate=voice.rate)
    return [heard(rng, stretch(said, float(rng.uniform(*KOKORO_TRACT)))) for _ in range(TRACTS)]


def heard(rng: np.random.Generator, speech: Speech | None) -> Corpus:
    """Speech, or a while of silence, with silence around it, and as it comes through `VARIANTS` channels."""
    lead, trail = rng.uniform(0.1, 0.7), rng.uniform(0.2, 0.7)
    phonemes: list[Phoneme] = []
    if speech is None:
        frames = STEP * int(rng.integers(8, 20))
        clean = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    else:
        frames = STEP * int(np.ceil((lead + speech.seconds + trail) * FRAME_RATE / STEP))
        clean = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
        start = int(lead * SAMPLE_RATE)
        clean[start : start + len(speech.pcm)] = speech.pcm * (LEVEL / max(1e-4, float(np.std(speech.pcm))))
        phonemes = [Phoneme(p.symbol, p.start_s + lead, p.end_s + lead, p.stressed) for p in speech.phonemes]
    lips = mouth([p for p in phonemes if p.symbol != "SIL"], clean, frames)
    gain = 10 ** (draw_channel(rng).gain_db / 20)
    hiss = rng.standard_normal(len(clean)).astype(np.float32) * np.float32(10 ** rng.uniform(-4.5, -3.5))
    clean = np.clip(gain * clean, -1, 1)
    through = []
    for _ in range(VARIANTS):
        channel: Channel = replace(draw_channel(rng), gain_db=0.0)
        if speech is None:  # -65 to -30 dBFS: `apply_channel` takes silence for a voice at -30
            channel = replace(channel, noise_db=float(rng.uniform(-35, 0)))
        through.append(_to_encoder(apply_channel(clean, channel, rng), frames))
    return Corpus(
        _to_encoder(clean + hiss, frames), np.stack(through), lips.astype(np.float32), visemes(phonemes, frames)
    )


def _to_encoder(pcm: np.ndarray, frames: int) -> np.ndarray:
    out = soxr.resample(pcm, SAMPLE_RATE, ENCODER_RATE)
    return np.pad(out, (0, max(0, frames * ENCODER_SAMPLES_PER_FRAME - len(out))))[
        : frames * ENCODER_SAMPLES_PER_FRAME
    ].astype(np.float16)


def build(seed: int, split: str, minutes: float, of_kokoro: bool = False) -> Corpus:
    """At least `minutes` of utterances, the same for the same arguments and speech backends."""
    rng = np.random.default_rng([seed, split == "heldout"])
    parts: list[Corpus] = []
    while sum(p.frames for p in parts) < minutes * 60 * FRAME_RATE:
        parts += utterances(rng, split, of_kokoro)
    return joined(parts)


def joined(parts: list[Corpus]) -> Corpus:
    """One corpus of several, one after another."""
    return Corpus(
        **{
            f.name: np.concatenate([getattr(p, f.name) for p in parts], axis=int(f.name == "heard"))
            for f in fields(Corpus)
        }
    )


def name_of(seed: int, split: str, minutes: float, of_kokoro: bool) -> str:
    """What files of a corpus are called by."""
    return f"{'kokoro_' if of_kokoro else ''}{split}_{seed}_{minutes:g}"


def load_or_build(folder: Path, seed: int, split: str, minutes: float, of_kokoro: bool = False) -> Corpus:
    """The corpus of these arguments from `folder`, made and kept there if it is not."""
    path = folder / f"speech_{name_of(seed, split, minutes, of_kokoro)}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        corpus = build(seed, split, minutes, of_kokoro)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{f.name: getattr(corpus, f.name) for f in fields(Corpus)})
        partial.replace(path)
    with np.load(path) as stored:
        return Corpus(**{f.name: stored[f.name] for f in fields(Corpus)})
