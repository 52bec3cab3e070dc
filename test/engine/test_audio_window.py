# SPDX-License-Identifier: Apache-2.0
"""24 kHz windows to features: stateless, aligned, and the same however the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.models.audio_encoder import EmbeddedAudioEncoder
from flowact_ros.models.whisper_encoder import WhisperConfig, WhisperEncoder
from flowact_ros.timebase import FEATURE_DIM


class Energy(nn.Module):
    """An encoder whose feature is the energy of its frame: makes alignment visible."""

    context_samples, lookahead_samples = 320, 640

    def forward(self, pcm: Tensor) -> Tensor:
        inner = pcm[:, self.context_samples : pcm.shape[1] - self.lookahead_samples]
        energy = inner.unflatten(1, (-1, 640)).square().sum(-1, keepdim=True)
        return energy.expand(-1, -1, FEATURE_DIM)


def window_of(window: AudioWindow, pcm: np.ndarray, first: int, frames: int) -> np.ndarray:
    padded = np.pad(pcm, (window.context_samples, window.lookahead_samples))
    return padded[first * 960 : first * 960 + window.context_samples + frames * 960 + window.lookahead_samples]


@pytest.mark.parametrize("sample", [10, 480, 950, 960 * 7 + 3, 960 * 12 - 5])
def test_an_impulse_lands_in_its_frame(sample: int) -> None:
    window = AudioWindow(Energy())
    pcm = np.zeros(960 * 16, np.float32)
    pcm[sample] = 1.0
    energy = window.whole_features(pcm)[:, 0]
    assert int(energy.argmax()) == sample // 960
    assert float(energy[sample // 960]) > 0.5 * float(energy.sum())


def test_a_tone_keeps_its_level_and_what_16_khz_cannot_hold_is_gone() -> None:
    window, time = AudioWindow(Energy()), np.arange(960 * 20) / 24_000
    low = window.whole_features(np.sin(2 * np.pi * 1000 * time).astype(np.float32))[5:15, 0]
    high = window.whole_features(np.sin(2 * np.pi * 11_000 * time).astype(np.float32))[5:15, 0]
    assert torch.allclose(low, torch.full_like(low, 320.0), rtol=0.01)
    assert float(high.max()) < 0.01 * 320


@pytest.mark.parametrize("make", [Energy, EmbeddedAudioEncoder])
def test_windows_equal_the_whole(make: type) -> None:
    torch.manual_seed(0)
    window = AudioWindow(make().eval().requires_grad_(False))
    assert window.lookahead_samples <= 1920  # 80 ms
    pcm = (0.1 * np.random.default_rng(0).standard_normal(960 * 24)).astype(np.float32)
    whole = window.whole_features(pcm)
    first = 0
    for frames in (4, 12, 4, 4):
        part = window(window_of(window, pcm, first, frames))
        torch.testing.assert_close(part, whole[first : first + frames], rtol=1e-3, atol=1e-4)
        first += frames


def test_steps_are_heard_as_a_stream_hears_them() -> None:
    """Whisper attends to its whole window: a pass over everything is no training data for it, steps are."""
    torch.manual_seed(0)
    config = WhisperConfig(width=16, heads=2, depth=2, positions=100, context_frames=6)
    window = AudioWindow(WhisperEncoder(config).eval().requires_grad_(False))
    pcm = (0.1 * np.random.default_rng(0).standard_normal(960 * 22)).astype(np.float32)
    found = window.whole_features(pcm, step=4)
    assert found.shape == (22, 16)
    after = np.pad(pcm, (0, 2 * 960))  # the last step hears silence
    for first in range(0, 24, 4):
        live = window(window_of(window, after, first, 4))
        torch.testing.assert_close(found[first : first + 4], live[: 22 - first], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, window.whole_features(pcm), atol=1e-2)


def test_the_future_beyond_the_look_ahead_does_not_matter() -> None:
    torch.manual_seed(0)
    window = AudioWindow(EmbeddedAudioEncoder().eval().requires_grad_(False))
    pcm = (0.1 * np.random.default_rng(1).standard_normal(960 * 20)).astype(np.float32)
    other = pcm.copy()
    other[960 * 10 + window.lookahead_samples :] = 0.5
    a, b = window.whole_features(pcm), window.whole_features(other)
    torch.testing.assert_close(a[:10], b[:10], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a[12:], b[12:], atol=1e-2)


def test_a_wrong_length_is_named() -> None:
    window = AudioWindow(Energy())
    with pytest.raises(ValueError, match=r"window is 1000 samples; .* at 24000 Hz are needed"):
        window(np.zeros(1000, np.float32))
    for samples in (0, 1000):
        with pytest.raises(ValueError, match=f"{samples} samples of sound are no whole frames of 960"):
            window.whole_features(np.zeros(samples, np.float32))
