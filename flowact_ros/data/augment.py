# SPDX-License-Identifier: Apache-2.0
"""Other voices and other rooms, so that a network trained on synthesised speech accepts recorded speech.

A ``Voice`` changes who speaks: the backend's melody (``pitch``) and speed (``rate``), and the length of the vocal
tract (``tract``: resampling moves pitch and formants together; the backend speaks slower or faster beforehand, so
that the speed stays what ``rate`` says). A ``Channel`` changes how it reaches us: level, noise, shelves, telephone,
room.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr
from scipy.signal import fftconvolve, lfilter

from flowact_ros.data.splits import HELDOUT_KOKORO, HELDOUT_VOICES, KOKORO_TRACT, TRAIN_VOICES, check_split
from flowact_ros.dialogue.speech import Phoneme, Speech, SynthesizerError, Word
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.timebase import SAMPLE_RATE
from flowact_ros.vocabulary import KOKORO
from flowact_ros.weights_table import KOKORO_VOICES

Table = tuple[tuple[str, tuple[float, float], float], ...]  # backend, factors of the vocal tract, share


@dataclass(frozen=True)
class Voice:
    """Who speaks. ``tract`` > 1: a shorter vocal tract (higher pitch and formants)."""

    backend: str = "hibari"
    rate: float = 1.0
    pitch: float = 1.0
    tract: float = 1.0


@dataclass(frozen=True)
class Channel:
    """How the voice reaches us. Levels in dB; ``noise_db`` is relative to the speech (None: no noise)."""

    gain_db: float = 0.0
    noise_db: float | None = None
    noise_colour: float = 0.0  # slope: 0 white .. 1 brown
    low_db: float = 0.0  # shelf below 250 Hz
    high_db: float = 0.0  # shelf above 3 kHz
    telephone: bool = False  # 300 - 3400 Hz
    reverb_s: float = 0.0  # decay by 60 dB
    reverb_db: float = -20.0  # level of the room relative to the direct sound


def voices_of(split: str) -> Table:
    """Who speaks in a split: (backend, factors of the vocal tract, share) each."""
    return HELDOUT_VOICES if check_split(split) == "heldout" else TRAIN_VOICES


def kokoro_voices(split: str) -> Table:
    """Kokoro's voices of a split, as such a table."""
    held = check_split(split) == "heldout"
    names = [name for name in KOKORO_VOICES if (name in HELDOUT_KOKORO) == held]
    return tuple((f"{KOKORO}:{name}", KOKORO_TRACT, 1.0) for name in names)


def draw_voice(rng: np.random.Generator, split: str, *, of_kokoro: bool = False) -> Voice:
    """A random voice of a split. ``available`` replaces what is not installed."""
    table = kokoro_voices(split) if of_kokoro else voices_of(split)
    shares = np.array([share for _, _, share in table])
    backend, (low, high), _ = table[int(rng.choice(len(table), p=shares / shares.sum()))]
    tract = float(rng.uniform(low, high))
    # A long tract speaks low: the melody goes down as well, as in a man's voice.
    pitch = float(np.clip(tract ** rng.uniform(0.0, 1.6), 0.7, 1.3) * rng.uniform(0.95, 1.05))
    return Voice(backend, rate=float(rng.uniform(0.85, 1.2)), pitch=pitch, tract=tract)


def draw_channel(rng: np.random.Generator) -> Channel:
    """A random channel; one in five is clean."""
    values = rng.random(8)
    if values[0] < 0.2:
        return Channel(gain_db=float(-6 * values[1]))
    return Channel(
        gain_db=float(-18 * values[1] + 3),
        noise_db=float(-50 + 35 * values[2]) if values[3] < 0.6 else None,
        noise_colour=float(rng.random()),
        low_db=float(rng.uniform(-9, 6)),
        high_db=float(rng.uniform(-12, 6)),
        telephone=bool(values[4] < 0.08),
        reverb_s=float(0.1 + 0.4 * values[5]) if values[6] < 0.4 else 0.0,
        reverb_db=float(rng.uniform(-26, -13)),
    )


def available(voice: Voice) -> Voice:
    """The voice itself, or the same on hibari if its optional backend is not installed here."""
    if voice.backend == "hibari":
        return voice
    try:
        load_synthesizer(voice.backend)
    except SynthesizerError:
        return Voice("hibari", voice.rate, voice.pitch, voice.tract)
    return voice


def missing_voices(split: str) -> list[str]:
    """Voices of a split that hibari stands in for, since their synthesizers are not installed here."""
    names = dict.fromkeys(backend for backend, _, _ in voices_of(split))
    return [name for name in names if available(Voice(name)).backend != name]


def speak(text: str, voice: Voice) -> Speech:
    """Synthesise ``text`` in a voice; times of phonemes and words are those of the returned sound."""
    rate = float(np.clip(voice.rate / voice.tract, 0.5, 2.0))
    pitch = float(np.clip(voice.pitch, 0.5, 2.0))
    if voice.backend.startswith(KOKORO):
        return stretch(_said(voice.backend, text, round(rate, 6), pitch), voice.tract)
    return stretch(load_synthesizer(voice.backend).synthesize(text, rate=rate, pitch=pitch), voice.tract)


@lru_cache(maxsize=16)  # the sentences of a clip: the next ones may say them with other throats
def _said(backend: str, text: str, rate: float, pitch: float) -> Speech:
    return load_synthesizer(backend).synthesize(text, rate=rate, pitch=pitch)


def stretch(speech: Speech, factor: float) -> Speech:
    """Play a speech ``factor`` times as fast (pitch and formants rise with it), with its times."""
    if not 0.5 <= factor <= 2.0:
        raise ValueError(f"factor is {factor}, it must lie in 0.5 .. 2.0")
    if abs(factor - 1.0) < 1e-4:
        return speech
    pcm = soxr.resample(speech.pcm, SAMPLE_RATE * factor, SAMPLE_RATE).astype(np.float32)
    end = len(pcm) / SAMPLE_RATE
    scale = end / max(speech.seconds, 1e-9)
    phonemes = [Phoneme(p.symbol, p.start_s * scale, p.end_s * scale, p.stressed) for p in speech.phonemes]
    words = [Word(w.text, w.start_s * scale, w.end_s * scale) for w in speech.words]
    return Speech(pcm, phonemes, words)


def apply_channel(pcm: np.ndarray, channel: Channel, rng: np.random.Generator) -> np.ndarray:
    """float32 [T] at 24 kHz as it arrives through the channel: same length, not delayed, within [-1, 1]."""
    out = np.asarray(pcm, np.float64)
    level = np.sqrt(np.mean(out[np.abs(out) > 1e-3] ** 2)) if np.any(np.abs(out) > 1e-3) else 0.03
    if channel.reverb_s > 0:
        out = _reverb(out, channel, rng)
    if channel.low_db:
        out = _shelf(out, 250.0, channel.low_db, high=False)
    if channel.high_db:
        out = _shelf(out, 3000.0, channel.high_db, high=True)
    if channel.telephone:
        out = _band(out, 300.0, 3400.0)
    if channel.noise_db is not None:
        noise = _noise(rng, len(out), channel.noise_colour)
        out = out + level * 10 ** (channel.noise_db / 20) * noise
    out = out * 10 ** (channel.gain_db / 20)
    return np.clip(out, -1.0, 1.0).astype(np.float32)


def _noise(rng: np.random.Generator, count: int, colour: float) -> np.ndarray:
    """Noise of unit power between white (0) and brown (1)."""
    white = rng.standard_normal(count)
    out = lfilter([1.0 - 0.98 * colour], [1.0, -0.98 * colour], white)
    return out / max(float(np.std(out)), 1e-9)


def _shelf(pcm: np.ndarray, corner: float, gain_db: float, *, high: bool) -> np.ndarray:
    """First-order shelf: one half of the band keeps its level, the other changes by ``gain_db``."""
    warped = np.tan(np.pi * corner / SAMPLE_RATE)
    low = lfilter(
        [warped, warped], [warped + 1, warped - 1], pcm
    )  # Butterworth, zero at the Nyquist frequency
    gain = 10 ** (gain_db / 20)
    return low + gain * (pcm - low) if high else gain * low + (pcm - low)


def _band(pcm: np.ndarray, low: float, high: float) -> np.ndarray:
    """Band-pass without delay, by a smooth window on the spectrum."""
    spectrum = np.fft.rfft(pcm)
    frequency = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    keep = 1 / (1 + (low / np.maximum(frequency, 1.0)) ** 8) / (1 + (frequency / high) ** 12)
    return np.fft.irfft(spectrum * keep, len(pcm))


def _reverb(pcm: np.ndarray, channel: Channel, rng: np.random.Generator) -> np.ndarray:
    """The direct sound and a tail of decaying noise behind it."""
    count = int(channel.reverb_s * SAMPLE_RATE)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail[: int(0.004 * SAMPLE_RATE)] = 0.0
    tail *= 10 ** (channel.reverb_db / 20) / np.sqrt(np.sum(tail**2))
    return pcm + fftconvolve(pcm, tail)[: len(pcm)]
