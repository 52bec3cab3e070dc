# SPDX-License-Identifier: Apache-2.0
"""Mouth shapes from phonemes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.data.visemes import MOUTH_CONTROLS, mouth
from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.dialogue.synthesizer_phonemes import INVENTORY, SILENCE

RATE = 24_000


def say(
    *timed: tuple[str, float], before: float = 0.4, after: float = 0.6, level: float = 0.3
) -> dict[str, np.ndarray]:
    """Mouth controls by name for phonemes of given lengths, with a hum for a voice; "frames" holds their times."""
    phonemes, now = [], before
    for symbol, length in timed:
        phonemes.append(Phoneme(symbol, now, now + length))
        now += length
    frames = int((now + after) * 25)
    t = np.arange(frames * 960) / RATE
    heard = np.zeros_like(t)
    for p in phonemes:
        if p.symbol != SILENCE:
            heard[(t >= p.start_s) & (t < p.end_s)] = 1.0
    pcm = (level * heard * np.sin(2 * np.pi * 150 * t)).astype(np.float32)
    values = mouth(phonemes, pcm, frames)
    return {"frames": (np.arange(frames) + 0.5) / 25, **dict(zip(MOUTH_CONTROLS, values.T, strict=True))}


def between(track: dict[str, np.ndarray], name: str, start: float, end: float) -> np.ndarray:
    return track[name][(track["frames"] >= start) & (track["frames"] < end)]


@pytest.mark.parametrize("symbol", ["P", "B", "M"])
@pytest.mark.parametrize("length", [0.03, 0.05, 0.08, 0.12])
@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.03])
def test_bilabials_close_fully_however_short(symbol: str, length: float, shift: float) -> None:
    track = say(("AA", 0.2), (symbol, length), ("AA", 0.2), before=0.4 + shift)
    start = 0.6 + shift
    assert between(track, "lip_press", start - 0.02, start + length + 0.02).max() > 0.99
    assert between(track, "lip_press", 0.45 + shift, 0.53 + shift).max() < 0.05  # and the vowels are open
    assert between(track, "jaw", start + length + 0.05, start + length + 0.15).max() > 0.7


@pytest.mark.parametrize("symbol", ["F", "V"])
def test_labiodentals_bring_the_lip_to_the_teeth(symbol: str) -> None:
    track = say(("AA", 0.2), (symbol, 0.07), ("AA", 0.2))
    assert between(track, "teeth", 0.6, 0.67).max() > 0.85
    assert between(track, "lip_lower", 0.6, 0.67).min() < 0.05
    assert between(track, "jaw", 0.6, 0.67).min() < 0.2
    assert between(track, "lip_press", 0.4, 0.9).max() < 0.05


def test_vowels_have_their_shapes() -> None:
    def middle(symbol: str) -> dict[str, float]:
        track = say((symbol, 0.24))
        return {name: float(between(track, name, 0.48, 0.56).mean()) for name in MOUTH_CONTROLS}

    ah, ee, oo = middle("AA"), middle("IY"), middle("UW")
    assert ah["jaw"] > 0.7 and ee["jaw"] < 0.35 and oo["jaw"] < 0.35
    assert ee["mouth_width"] > 0.6 and oo["mouth_width"] < -0.5
    assert oo["mouth_round"] > 0.7 and ah["mouth_round"] < 0.05 and ee["mouth_round"] < 0.05


def test_a_diphthong_glides() -> None:
    track = say(("AY", 0.3))
    first, last = between(track, "jaw", 0.44, 0.52), between(track, "jaw", 0.62, 0.7)
    assert first.max() > 0.55 and last.min() < first.max() - 0.25
    assert between(track, "mouth_width", 0.62, 0.7).max() > 0.4


def test_rounding_looks_ahead_and_the_jaw_does_not() -> None:
    track = say(("S", 0.12), ("T", 0.08), ("UW", 0.2))  # "stoo": the lips round during the s
    assert between(track, "mouth_round", 0.50, 0.58).max() > 0.1
    plain = say(("S", 0.12), ("T", 0.08), ("AA", 0.2))
    assert between(plain, "mouth_round", 0.50, 0.58).max() < 0.02
    assert between(plain, "jaw", 0.42, 0.48).max() < 0.2


def test_rest_in_silence_and_opening_just_before_the_sound() -> None:
    track = say(("AA", 0.2), (SILENCE, 0.5), ("AA", 0.2))
    for name in MOUTH_CONTROLS:
        assert np.abs(between(track, name, 0.0, 0.24)).max() == 0.0
        assert np.abs(between(track, name, 0.78, 0.94)).max() < 0.02
        assert np.abs(between(track, name, 1.5, 1.9)).max() < 0.02
    opened = track["frames"][np.flatnonzero(track["jaw"] > 0.1)[0]]
    assert 0.40 - 0.10 <= opened <= 0.40


def test_a_gap_that_the_list_does_not_name_is_silence() -> None:
    phonemes = [Phoneme("AA", 0.2, 0.4), Phoneme("AA", 1.4, 1.6)]
    values = mouth(phonemes, np.full(2 * RATE, 0.1, np.float32), 50)
    assert np.abs(values[16:31]).max() < 0.01


def test_a_louder_vowel_opens_wider() -> None:
    t = np.arange(RATE * 2) / RATE
    pcm = np.where(t < 1.0, 0.3, 0.02) * np.sin(2 * np.pi * 150 * t)
    values = mouth([Phoneme("AA", 0.3, 0.6), Phoneme("AA", 1.3, 1.6)], pcm.astype(np.float32), 50)
    jaw = values[:, MOUTH_CONTROLS.index("jaw")]
    assert jaw[10:14].max() > jaw[35:39].max() + 0.08
    assert np.allclose(
        values, mouth([Phoneme("AA", 0.3, 0.6), Phoneme("AA", 1.3, 1.6)], 0.1 * pcm, 50), atol=0.02
    )


def test_a_held_vowel_does_not_tremble() -> None:
    track = say(("AA", 1.0))
    assert np.ptp(between(track, "jaw", 0.6, 1.2)) < 0.02


def test_no_phonemes_no_movement_and_unknown_ones_are_refused() -> None:
    assert np.all(mouth([], np.zeros(0, np.float32), 10) == 0.0)
    assert np.all(mouth([Phoneme(SILENCE, 0.0, 0.4)], np.zeros(9600, np.float32), 10) == 0.0)
    with pytest.raises(ValueError, match="XX"):
        mouth([Phoneme("XX", 0.0, 0.4)], np.zeros(9600, np.float32), 10)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(INVENTORY), st.floats(0.005, 0.4)), min_size=1, max_size=20),
    st.floats(0, 0.5),
)
def test_always_inside_the_limits(timed: list[tuple[str, float]], before: float) -> None:
    track = say(*timed, before=before)
    for name in MOUTH_CONTROLS:
        assert np.isfinite(track[name]).all()
        assert track[name].min() >= (-1.0 if name == "mouth_width" else 0.0) and track[name].max() <= 1.0
