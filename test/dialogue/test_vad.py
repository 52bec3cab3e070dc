# SPDX-License-Identifier: Apache-2.0
"""Voice activity: onsets and offsets where they are, whatever the rate, the noise and the cut of the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.dialogue.vad import EnergyVad, EnergyVadConfig, VadError


def noise(rng: np.random.Generator, seconds: float, rate: int, db: float) -> np.ndarray:
    return (rng.standard_normal(int(seconds * rate)) * 10 ** (db / 20)).astype(np.float32)


def voice(rng: np.random.Generator, seconds: float, rate: int, db: float = -20.0) -> np.ndarray:
    """A buzz with a few harmonics, swelling four times a second as syllables do."""
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(
        np.sin(2 * np.pi * 150 * k * t + rng.uniform(0, 6)) / k for k in range(1, 15) if 150 * k < rate / 2
    )
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    sound = tone * swell
    return (sound / np.sqrt(np.mean(sound**2)) * 10 ** (db / 20)).astype(np.float32)


def scene(rate: int, floor_db: float, seed: int = 1) -> np.ndarray:
    """1.5 s noise, 2 s voice, 2 s noise."""
    rng = np.random.default_rng(seed)
    sound = noise(rng, 5.5, rate, floor_db)
    first, last = int(1.5 * rate), int(3.5 * rate)
    sound[first:last] += voice(rng, 2.0, rate)
    return sound


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("floor_db", [-90.0, -60.0, -42.0])
def test_one_utterance_is_found_where_it_is(rate: int, floor_db: float) -> None:
    vad = EnergyVad(rate)
    events = vad.push(scene(rate, floor_db))
    assert [event.voiced for event in events] == [True, False]
    assert events[0].time_s == pytest.approx(1.5, abs=0.12)
    assert events[1].time_s == pytest.approx(3.5, abs=0.15)
    assert not vad.voiced


@pytest.mark.parametrize("block", [7, 37, 160, 5000])
def test_the_cut_into_blocks_changes_nothing(block: int) -> None:
    sound = scene(16000, -60.0)[: 16000 * 2]
    whole = EnergyVad(16000).push(sound)
    vad = EnergyVad(16000)
    parts = [event for i in range(0, len(sound), block) for event in vad.push(sound[i : i + block])]
    assert parts == whole
    assert [event.voiced for event in whole] == [True]


@pytest.mark.parametrize("db", [-120.0, -70.0, -45.0])
def test_steady_noise_is_nobody(db: float) -> None:
    rng = np.random.default_rng(3)
    vad = EnergyVad(16000)
    # The floor is learned within seconds; after them a noise that lasts is never a voice.
    vad.push(noise(rng, 6.0, 16000, db))
    assert vad.push(noise(rng, 5.0, 16000, db)) == []
    assert not vad.voiced


def test_a_noise_that_appears_is_learned() -> None:
    rng = np.random.default_rng(4)
    vad = EnergyVad(16000)
    vad.push(noise(rng, 2.0, 16000, -80.0))
    vad.push(noise(rng, 15.0, 16000, -40.0))  # an air conditioner was switched on
    assert not vad.voiced
    assert [event.voiced for event in vad.push(voice(rng, 1.0, 16000, -15.0))] == [True]


def test_a_pause_inside_a_sentence_does_not_end_it() -> None:
    rng = np.random.default_rng(5)
    quiet = noise(rng, 0.4, 16000, -70.0)
    sound = np.concatenate(
        [noise(rng, 1.0, 16000, -70.0), voice(rng, 1.0, 16000), quiet, voice(rng, 1.0, 16000)]
    )
    vad = EnergyVad(16000, EnergyVadConfig(hangover_s=0.6))
    assert [event.voiced for event in vad.push(sound)] == [True]
    strict = EnergyVad(16000, EnergyVadConfig(hangover_s=0.2))
    assert [event.voiced for event in strict.push(sound)] == [True, False, True]


def test_a_click_is_nobody() -> None:
    sound = noise(np.random.default_rng(6), 2.0, 16000, -70.0)
    sound[16000:16160] += 0.5
    assert EnergyVad(16000).push(sound) == []


def test_reset_forgets() -> None:
    sound = scene(16000, -60.0)
    vad = EnergyVad(16000)
    first = vad.push(sound)
    vad.reset()
    assert vad.push(sound) == first


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: EnergyVad(4000), "8000"),
        (lambda: EnergyVadConfig(margin_db=5, release_db=6), "release_db"),
        (lambda: EnergyVadConfig(hangover_s=0), "hangover_s"),
        (lambda: EnergyVadConfig(onset_s=0.5, onset_window_s=0.1), "onset_s"),
        (lambda: EnergyVad(16000).push(np.zeros((2, 100), np.float32)), "mono"),
    ],
)
def test_bad_settings_are_named(make, says: str) -> None:
    with pytest.raises(VadError, match=says):
        make()
