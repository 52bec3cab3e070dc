# SPDX-License-Identifier: Apache-2.0
"""A timeline of behaviours and texts -> what the character does, says and is told, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flowact_ros.data.augment import Channel, Voice, apply_channel, available, speak
from flowact_ros.data.behaviours import CODES, WORDINGS, Span, body, column, limit
from flowact_ros.data.visemes import MOUTH_CONTROLS, mouth
from flowact_ros.dialogue.speech import Phoneme, Speech
from flowact_ros.dialogue.synthesizer_phonemes import SILENCE
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from flowact_ros.vocabulary import SPEAKING


@dataclass(frozen=True)
class Segment:
    """One stretch of a timeline. With ``text`` it lasts as long as saying it (``seconds`` is ignored)."""

    kind: str
    seconds: float = 0.0
    text: str = ""
    wording: str = ""  # the instruction; empty: one of WORDINGS[kind]


@dataclass(frozen=True)
class Performance:
    """What is rendered and learned from. T frames at 25/s.

    ``controls`` float32 [T, K] in the order of CONTROL_NAMES; ``pcm`` float32 [T * 960] at 24 kHz; ``behaviour``
    int8 [T] (numbers of the messages); ``instruction``: (first frame, text), the first at frame 0; ``phonemes``:
    times in seconds, without silence; ``kinds``: (first frame, key of WORDINGS).
    """

    controls: np.ndarray
    pcm: np.ndarray
    behaviour: np.ndarray
    instruction: list[tuple[int, str]]
    phonemes: list[Phoneme]
    kinds: list[tuple[int, str]] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.controls)


def perform(
    timeline: Sequence[Segment],
    rng: np.random.Generator,
    *,
    voice: Voice | None = None,
    channel: Channel | None = None,
    seconds: float | None = None,
) -> Performance:
    """Play a timeline. With ``seconds`` the result has exactly that length: cut, or with the last segment going on.

    Deterministic for the generator's state and the installed speech backends. Raises ValueError for an unknown kind
    or an empty timeline, SynthesizerError when speech is needed and hibari-tts is not installed.
    """
    if not timeline:
        raise ValueError("the timeline is empty; it needs at least one segment")
    voice = available(voice or Voice())
    frames_wanted = None if seconds is None else max(1, round(seconds * FRAME_RATE))
    spans: list[Span] = []
    instruction: list[tuple[int, str]] = []
    phonemes: list[Phoneme] = []
    sounds: list[tuple[int, np.ndarray]] = []
    now = 0
    for segment in timeline:
        if segment.kind not in WORDINGS:
            raise ValueError(f"unknown behaviour {segment.kind!r}; it is one of {', '.join(WORDINGS)}")
        speech = _trimmed(speak(segment.text, voice), rng) if segment.text else None
        length = _length(segment, speech, rng)
        beats: tuple[float, ...] = ()
        if speech is not None:
            offset = now / FRAME_RATE
            placed = [p.moved(offset) for p in speech.phonemes if p.symbol != SILENCE]
            phonemes += placed
            beats = tuple((p.start_s + p.end_s) / 2 for p in placed if p.stressed)
            sounds.append((now * SAMPLES_PER_FRAME, speech.pcm))
        spans.append(Span(segment.kind, now, now + length, beats, speech is not None))
        instruction.append((now, segment.wording or str(rng.choice(WORDINGS[segment.kind]))))
        now += length
        if frames_wanted is not None and now >= frames_wanted:
            break
    frames = frames_wanted or now
    spans[-1] = Span(spans[-1].kind, spans[-1].start, frames, spans[-1].beats, spans[-1].speaks)
    clean = _mix(sounds, frames * SAMPLES_PER_FRAME)
    phonemes = [p for p in phonemes if p.start_s < frames / FRAME_RATE]
    controls = body(spans, frames, rng)
    _add_mouth(controls, mouth(phonemes, clean, frames))
    behaviour = np.empty(frames, np.int8)
    for span in spans:
        behaviour[span.start : span.end] = CODES[SPEAKING] if span.speaks else CODES[span.kind]
    pcm = apply_channel(clean, channel, rng) if channel is not None else clean
    kinds = [(span.start, span.kind) for span in spans]
    return Performance(limit(controls), pcm, behaviour, instruction, phonemes, kinds)


def again(performance: Performance, rng: np.random.Generator) -> Performance:
    """The same sound, phonemes and instructions lived through once more: other blinks, glances, nods and gestures."""
    frames = performance.frames
    ends = [start for start, _ in performance.kinds[1:]] + [frames]
    spans = []
    for (start, kind), end in zip(performance.kinds, ends, strict=True):
        heard = [p for p in performance.phonemes if start <= p.start_s * FRAME_RATE < end]
        beats = tuple((p.start_s + p.end_s) / 2 for p in heard if p.stressed)
        spans.append(Span(kind, start, end, beats, bool(heard)))
    controls = body(spans, frames, rng)
    _add_mouth(controls, mouth(performance.phonemes, performance.pcm, frames))
    return replace(performance, controls=limit(controls))


def _length(segment: Segment, speech: Speech | None, rng: np.random.Generator) -> int:
    seconds = segment.seconds if speech is None else speech.seconds
    return max(8, round(seconds * FRAME_RATE))


def _trimmed(speech: Speech, rng: np.random.Generator) -> Speech:
    """Backends leave a fixed silence around a sentence; here it is random, so that nothing can be counted on."""
    said = [p for p in speech.phonemes if p.symbol != SILENCE]
    if not said:
        return speech
    start = max(0, round((said[0].start_s - rng.uniform(0.08, 0.4)) * SAMPLE_RATE))
    end = round((said[-1].end_s + rng.uniform(0.1, 0.5)) * SAMPLE_RATE)
    pcm = speech.pcm[start:end]
    pcm = np.concatenate([pcm, np.zeros(max(0, end - start - len(pcm)), np.float32)])
    shift = start / SAMPLE_RATE
    return Speech(pcm, [p.moved(-shift) for p in said])


def _mix(sounds: Sequence[tuple[int, np.ndarray]], samples: int) -> np.ndarray:
    out = np.zeros(samples, np.float32)
    for start, pcm in sounds:
        end = min(samples, start + len(pcm))
        out[start:end] += pcm[: end - start]
    return np.clip(out, -1.0, 1.0)


def _add_mouth(controls: np.ndarray, lips: np.ndarray) -> None:
    """Speech over expression: while something is said, the mouth's shape is the speech's; a smile stays around it."""
    said = np.clip(lips.max(axis=1) / 0.15, 0.0, 1.0)
    for i, name in enumerate(MOUTH_CONTROLS):
        c = column(name)
        controls[:, c] = (1.0 - said) * controls[:, c] + lips[:, i]
    # Rounded lips cannot smile broadly.
    rounded = lips[:, MOUTH_CONTROLS.index("mouth_round")]
    controls[:, column("smile")] *= 1.0 - 0.5 * rounded


def seconds_said(performance: Performance) -> float:
    """Seconds of a performance in which a phoneme sounds."""
    end = len(performance.pcm) / SAMPLE_RATE
    return sum(max(0.0, min(p.end_s, end) - p.start_s) for p in performance.phonemes)
