# SPDX-License-Identifier: Apache-2.0
"""Silero's network on a synthetic voice: found at every rate, in noise, and nowhere else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowact_ros.dialogue import vad, vad_silero
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.dialogue.vad import EnergyVad, VadError, VoiceEvent, load_vad
from flowact_ros.dialogue.vad_silero import SileroVad, SileroVadConfig
from flowact_ros.media.resample import resample

RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000]
TEXT = "Good morning, where is the museum?"

pytestmark = pytest.mark.skipif(bool(vad_silero.missing()), reason=vad_silero.missing())


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """At 24 kHz, without the silence around it."""
    pcm = load_synthesizer("hibari").synthesize(TEXT).pcm
    loud = np.flatnonzero(np.abs(pcm) > 0.02)
    return pcm[loud[0] : loud[-1]]


def scene(voice: np.ndarray, rate: int, noise_db: float) -> tuple[np.ndarray, float]:
    """1.5 s of noise, the voice in it, 1.5 s of noise; and where the voice ends [s]."""
    quiet = np.zeros(36_000, np.float32)
    sound = resample(np.concatenate([quiet, voice, quiet]), 24_000, rate)
    noise = np.random.default_rng(1).standard_normal(len(sound)) * 10 ** (noise_db / 20)
    return (sound + noise).astype(np.float32), 1.5 + len(voice) / 24_000


def kinds(events: list[VoiceEvent]) -> list[bool]:
    return [event.voiced for event in events]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("noise_db", [-90.0, -50.0])
def test_one_utterance_is_found_where_it_is(voice: np.ndarray, rate: int, noise_db: float) -> None:
    sound, end = scene(voice, rate, noise_db)
    detector = SileroVad(rate)
    events = detector.push(sound)
    assert kinds(events) == [True, False]
    assert events[0].time_s == pytest.approx(1.5, abs=0.15)
    assert events[1].time_s == pytest.approx(end, abs=0.25)
    assert not detector.voiced and detector.quiet_since_s is None


@pytest.mark.parametrize("block", [7, 511, 640, 5000])
def test_the_cut_into_blocks_changes_nothing(voice: np.ndarray, block: int) -> None:
    sound, _ = scene(voice, 16_000, -60.0)
    detector = SileroVad(16_000)
    parts = [event for i in range(0, len(sound), block) for event in detector.push(sound[i : i + block])]
    assert parts == SileroVad(16_000).push(sound)


@pytest.mark.parametrize("detector", [SileroVad(16_000), EnergyVad(16_000)])
def test_a_pause_that_is_the_end_has_the_time_of_the_offset(detector, voice: np.ndarray) -> None:
    sound, _ = scene(voice, 16_000, -70.0)
    pauses, events = [], []
    for start in range(0, len(sound), 160):
        before = detector.quiet_since_s
        new = detector.push(sound[start : start + 160])
        events += new
        if new and not new[0].voiced:
            pauses.append(before)
    assert kinds(events) == [True, False]
    assert pauses == [events[1].time_s]


def test_noises_are_nobody() -> None:
    random = np.random.default_rng(2)
    hiss = random.standard_normal(64_000) * 0.05
    knocks = np.zeros(64_000)
    for start in (8_000, 24_000, 26_000, 50_000):
        knocks[start : start + 800] = random.standard_normal(800) * np.exp(-np.arange(800) / 100) * 0.8
    hum = 0.1 * np.sin(2 * np.pi * 100 * np.arange(64_000) / 16_000)
    for sound in (hiss, knocks, hum, np.zeros(64_000)):
        detector = SileroVad(16_000)
        assert detector.push(sound.astype(np.float32)) == []
        assert 0.0 <= detector.probability < 0.5


def test_a_long_hangover_bridges_a_pause(voice: np.ndarray) -> None:
    pause = np.zeros(round(0.7 * 24_000), np.float32)
    sound = resample(np.concatenate([voice, pause, voice, pause, pause]), 24_000, 16_000)
    assert kinds(SileroVad(16_000, SileroVadConfig(hangover_s=0.4)).push(sound)) == [True, False, True, False]
    assert kinds(SileroVad(16_000, SileroVadConfig(hangover_s=1.2)).push(sound)) == [True, False]


def test_reset_forgets(voice: np.ndarray) -> None:
    sound, _ = scene(voice, 44_100, -60.0)
    detector = SileroVad(44_100)
    first = detector.push(sound[: len(sound) // 2])
    detector.reset()
    assert detector.push(sound[: len(sound) // 2]) == first and kinds(first) == [True]


def test_load_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_vad("auto", 16_000), SileroVad)
    assert isinstance(load_vad("energy", 16_000), EnergyVad)
    config = SileroVadConfig(threshold=0.7)
    assert load_vad("silero", 48_000, silero=config).config is config
    monkeypatch.setattr(vad_silero, "missing", lambda: "silero needs a package: pip install silero-vad")
    assert isinstance(load_vad("auto", 16_000), EnergyVad)
    vad_silero._session.cache_clear()
    with pytest.raises(VadError, match="pip install silero-vad"):
        load_vad("silero", 16_000)
    with pytest.raises(VadError, match="auto, silero, energy"):
        load_vad("webrtc", 16_000)
    assert vad.BACKENDS == ("auto", "silero", "energy")


def test_the_network_alone_is_loaded() -> None:
    code = (
        "import sys; from flowact_ros.dialogue.vad import load_vad; load_vad('silero', 16000)\n"
        "sys.exit(str({'torch', 'torchaudio', 'silero_vad'} & set(sys.modules) or 0) if "
        "{'torch', 'silero_vad'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SileroVad(4000), "8000"),
        (lambda: SileroVad(16_000).push(np.zeros((2, 100), np.float32)), "mono"),
        (lambda: SileroVad(16_000).push(np.zeros(100, np.int16)), "int16"),
        (lambda: SileroVad(16_000).push(np.full(100, np.nan, np.float32)), "NaN"),
        (lambda: EnergyVad(16_000).push(np.full(100, np.inf, np.float32)), "infinite"),
        (lambda: SileroVadConfig(threshold=1.0), "threshold"),
        (lambda: SileroVadConfig(threshold=0.4, release=0.5), "release"),
        (lambda: SileroVadConfig(release=0.0), "release"),
        (lambda: SileroVadConfig(onset_s=0.01), "onset_s"),
        (lambda: SileroVadConfig(hangover_s=9.0), "hangover_s"),
    ],
)
def test_bad_settings_are_named(make, says: str) -> None:
    with pytest.raises(VadError, match=says):
        make()
