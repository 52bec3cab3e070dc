# SPDX-License-Identifier: Apache-2.0
"""Voices and channels."""

from __future__ import annotations

import numpy as np
import pytest
from fake_speech import FakeSynthesizer, only_fake

from flowact_ros.data.augment import (
    Channel,
    Voice,
    apply_channel,
    available,
    draw_channel,
    draw_voice,
    missing_voices,
    speak,
    stretch,
)
from flowact_ros.data.splits import HELDOUT_VOICES, TRAIN_VOICES

RATE = 24_000


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def level_db(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.asarray(pcm, np.float64) ** 2) + 1e-12))


def peak_frequency(pcm: np.ndarray) -> float:
    return float(
        np.fft.rfftfreq(len(pcm), 1 / RATE)[np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))).argmax()]
    )


@pytest.mark.parametrize("factor", [0.76, 0.9, 1.18])
def test_times_follow_the_sound(factor: float) -> None:
    speech = FakeSynthesizer().synthesize("amber boat")
    out = stretch(speech, factor)
    assert out.seconds == pytest.approx(speech.seconds / factor, abs=1e-3)
    assert peak_frequency(out.pcm) == pytest.approx(140 * factor, rel=0.03)
    assert [p.symbol for p in out.phonemes] == [p.symbol for p in speech.phonemes]
    for before, after in zip(speech.phonemes, out.phonemes, strict=True):
        assert after.start_s == pytest.approx(before.start_s / factor, abs=2e-3)
    assert out.words[1].start_s == pytest.approx(speech.words[1].start_s / factor, abs=2e-3)
    with pytest.raises(ValueError, match="2.0"):
        stretch(speech, 3.0)


def test_a_longer_tract_does_not_change_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    only_fake(monkeypatch)
    lengths = []
    for tract in (0.8, 1.0, 1.2):
        said = [p for p in speak("amber", Voice(tract=tract)).phonemes if p.symbol != "SIL"]
        lengths.append(said[-1].end_s - said[0].start_s)
    assert lengths == pytest.approx([lengths[1]] * 3, rel=0.02)


def test_what_is_not_installed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    only_fake(monkeypatch)
    assert available(Voice("flite:rms", 1.1, 0.9, 0.95)) == Voice("hibari", 1.1, 0.9, 0.95)
    assert available(Voice()) == Voice()
    assert missing_voices("heldout") == ["flite:awb"]
    assert missing_voices("train") == ["flite:slt", "flite:rms", "flite:kal16", "espeak"]


def test_drawing_is_deterministic_and_within_the_split() -> None:
    for split, table in (("train", TRAIN_VOICES), ("heldout", HELDOUT_VOICES)):
        drawn = [draw_voice(np.random.default_rng(seed), split) for seed in range(200)]
        assert drawn[7] == draw_voice(np.random.default_rng(7), split)
        assert {voice.backend for voice in drawn} == {backend for backend, _, _ in table}
        for voice in drawn:
            assert any(voice.backend == name and low <= voice.tract <= high for name, (low, high), _ in table)
    channels = [draw_channel(np.random.default_rng(seed)) for seed in range(300)]
    assert channels[3] == draw_channel(np.random.default_rng(3))
    assert 20 < sum(c.noise_db is None and not c.low_db for c in channels) < 110  # clean ones
    assert any(c.telephone for c in channels) and any(c.reverb_s for c in channels)


@pytest.mark.parametrize(
    "channel",
    [
        Channel(),
        Channel(low_db=-6, high_db=-6),
        Channel(telephone=True),
        Channel(reverb_s=0.4, reverb_db=-15),
    ],
)
def test_nothing_is_delayed(channel: Channel) -> None:
    rng = np.random.default_rng(0)
    pcm = np.zeros(RATE, np.float32)
    pcm[6000:6600] = 0.3 * rng.standard_normal(600)
    out = apply_channel(pcm, channel, rng)
    assert out.shape == pcm.shape and out.dtype == np.float32
    lag = int(np.correlate(out, pcm, "full").argmax()) - (len(pcm) - 1)
    assert abs(lag) <= 12  # half a millisecond


def test_channels_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    low, high, middle = tone(60), tone(9000), tone(1000)
    assert level_db(apply_channel(middle, Channel(gain_db=-12), rng)) == pytest.approx(
        level_db(middle) - 12, abs=0.1
    )
    assert level_db(apply_channel(low, Channel(low_db=-9), rng)) < level_db(low) - 6
    assert level_db(apply_channel(high, Channel(low_db=-9), rng)) == pytest.approx(level_db(high), abs=1)
    assert level_db(apply_channel(high, Channel(high_db=-9), rng)) < level_db(high) - 6
    phone = Channel(telephone=True)
    assert level_db(apply_channel(low, phone, rng)) < level_db(low) - 30
    assert level_db(apply_channel(middle, phone, rng)) == pytest.approx(level_db(middle), abs=0.5)
    noise = apply_channel(middle, Channel(noise_db=-10.0), rng) - middle
    assert level_db(noise) == pytest.approx(level_db(middle) - 10, abs=1)
    silence = np.zeros(RATE, np.float32)
    assert np.all(apply_channel(silence, Channel(reverb_s=0.3), rng) == 0.0)
    assert np.abs(apply_channel(silence, Channel(noise_db=-30.0), rng)).max() < 0.02
    tail = apply_channel(np.concatenate([middle, silence]), Channel(reverb_s=0.4, reverb_db=-12), rng)[RATE:]
    assert level_db(tail[:2400]) > level_db(tail[4800:7200]) + 6
    assert np.abs(apply_channel(10 * middle, Channel(gain_db=6), rng)).max() <= 1.0
