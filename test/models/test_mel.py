# SPDX-License-Identifier: Apache-2.0
"""The log-mel: Whisper's filters, exact framing, no dependence on the rest of the window."""

from __future__ import annotations

import math

import pytest
import torch

from flowact_ros.models.mel import (
    FLOOR,
    HOP_LENGTH,
    N_FFT,
    AudioInputError,
    LogMel,
    check_pcm,
    hz_to_mel,
    mel_filters,
    mel_to_hz,
)


def test_filters_are_whispers() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201)
    # Values of the file mel_filters.npz in OpenAI's package.
    assert filters[0, 1].item() == pytest.approx(0.02486259, abs=1e-7)
    assert filters[0, 0].item() == filters[0, 2].item() == 0.0
    assert filters.max().item() == pytest.approx(0.02589, abs=1e-4)
    assert int(filters[40].argmax()) == 43


def test_mel_scale_is_linear_below_1_khz_and_inverts() -> None:
    hz = torch.tensor([0.0, 500.0, 999.0, 1000.0, 6400.0], dtype=torch.float64)
    assert hz_to_mel(hz).tolist() == pytest.approx([0.0, 7.5, 14.985, 15.0, 42.0])
    assert mel_to_hz(hz_to_mel(hz)).tolist() == pytest.approx(hz.tolist(), abs=1e-6)


def test_equals_the_short_time_fourier_transform() -> None:
    pcm = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.stft(
        pcm, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), center=False, return_complex=True
    )
    mel = mel_filters() @ spectrum.abs().square()
    expected = (mel.clamp(min=10**FLOOR).log10() + 4) / 4
    assert torch.allclose(LogMel()(pcm), expected, atol=1e-5)


def test_a_tone_lands_in_its_band_and_loudness_is_absolute() -> None:
    t = torch.arange(3200) / 16000
    tone = 0.1 * torch.sin(2 * math.pi * 1000 * t)[None]
    mel = LogMel()(tone)
    edges = mel_to_hz(torch.linspace(0, float(hz_to_mel(torch.tensor(8000.0))), 82))
    band = int(mel.mean(-1).argmax())
    assert edges[band] <= 1000 <= edges[band + 2]
    # 20 dB louder = 2 decades of power = 0.5 on Whisper's scale, whatever else the window holds.
    assert (LogMel()(10 * tone) - mel)[0, band].mean().item() == pytest.approx(0.5, abs=1e-4)


def test_a_later_loud_sound_changes_nothing_before_it() -> None:
    pcm = 0.01 * torch.randn(1, 3200, generator=torch.Generator().manual_seed(1))
    loud = pcm.clone()
    loud[:, 1600:] *= 90
    before = (1600 - N_FFT) // HOP_LENGTH + 1
    assert torch.equal(LogMel()(pcm)[..., :before], LogMel()(loud)[..., :before])
    assert not torch.equal(LogMel()(pcm)[..., before:], LogMel()(loud)[..., before:])


def test_silence_is_the_floor() -> None:
    assert torch.all(LogMel()(torch.zeros(1, 800)) == (FLOOR + 4) / 4)


def test_windows_are_counted_and_refused() -> None:
    assert check_pcm(torch.zeros(1, 1000 + 640 * 3), 1000, 640, "x") == 3
    with pytest.raises(AudioInputError, match=r"1000 \+ 640\*n .* for example 1640; got 1639"):
        check_pcm(torch.zeros(1, 1639), 1000, 640, "x")
    with pytest.raises(AudioInputError, match="got 1000"):
        check_pcm(torch.zeros(1, 1000), 1000, 640, "x")
    with pytest.raises(AudioInputError, match=r"\[batch, samples\]; got shape \(1640,\)"):
        check_pcm(torch.zeros(1640), 1000, 640, "x")
    with pytest.raises(AudioInputError, match="int16"):
        check_pcm(torch.zeros(1, 1640, dtype=torch.int16), 1000, 640, "x")
    bad = torch.zeros(1, 1640)
    bad[0, 5], bad[0, 9] = float("nan"), float("inf")
    with pytest.raises(AudioInputError, match="got 2 samples that are NaN or infinite"):
        check_pcm(bad, 1000, 640, "x")
