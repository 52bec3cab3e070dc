# SPDX-License-Identifier: Apache-2.0
"""Log-mel spectrogram on a fixed scale: what a window sounds like does not depend on what else is in it.

Constants as in Whisper (arXiv 2212.04356, section 2.2). One thing differs: Whisper clips a spectrogram 8 decades
below its own global maximum, which is not causal (a later loud sound changes earlier values); here the clip level is
a constant.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from flowact_ros.timebase import ENCODER_RATE

N_FFT = 400  # 25 ms window
HOP_LENGTH = 160  # 10 ms
N_MELS = 80
FLOOR = (
    -6.5
)  # log10 power; a voice at -20 dBFS peaks near +1.5, so Whisper's own clip (8 decades) would land here


class AudioInputError(ValueError):
    """Samples that no encoder can use; the message says what came and what is expected."""


def check_pcm(pcm: Tensor, fixed: int, multiple: int, name: str) -> int:
    """Return n >= 1 of `pcm` [B, fixed + multiple*n]. Raises AudioInputError otherwise, or for NaN or infinity."""
    if pcm.ndim != 2:
        raise AudioInputError(f"{name} wants samples as [batch, samples]; got shape {tuple(pcm.shape)}")
    if not pcm.is_floating_point():
        raise AudioInputError(f"{name} wants floating-point samples in [-1, 1]; got {pcm.dtype}")
    n, rest = divmod(pcm.shape[1] - fixed, multiple)
    if n < 1 or rest:
        near = fixed + multiple * max(1, n)
        raise AudioInputError(
            f"{name} wants {fixed} + {multiple}*n samples (n >= 1), for example {near}; got {pcm.shape[1]}"
        )
    if not torch.isfinite(pcm).all():
        bad = int((~torch.isfinite(pcm)).sum())
        raise AudioInputError(
            f"{name} got {bad} samples that are NaN or infinite; samples must be finite, in [-1, 1]"
        )
    return n


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's scale: linear to 1 kHz (15 mel), logarithmic above (27 mel per factor 6.4)."""
    log_part = 15.0 + 27.0 * torch.log(hz.clamp(min=1e-3) / 1000.0) / math.log(6.4)
    return torch.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


@functools.lru_cache(maxsize=4)
def mel_filters(n_mels: int = N_MELS, n_fft: int = N_FFT, rate: int = ENCODER_RATE) -> Tensor:
    """Triangular filters of unit area (Slaney), [n_mels, n_fft // 2 + 1]. On the CPU even where a module is on meta."""
    exact = {"dtype": torch.float64, "device": "cpu"}
    bins = torch.linspace(0, rate / 2, n_fft // 2 + 1, **exact)
    top = hz_to_mel(torch.tensor(rate / 2, **exact))
    edges = mel_to_hz(torch.linspace(0, float(top), n_mels + 2, **exact))
    widths = edges.diff()
    slopes = edges[:, None] - bins[None, :]  # [n_mels + 2, bins]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp(min=0) * area[:, None]).float()


class LogMel(nn.Module):
    """[B, T] samples -> [B, mels, 1 + (T - 400) // 160]: column m covers samples 160*m .. 160*m + 399, no padding.

    Values as Whisper scales them: (log10 power + 4) / 4, clipped below at `FLOOR`. Computed in float32.
    """

    def __init__(self, mels: int = N_MELS) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT, device="cpu"), persistent=False)
        self.register_buffer("filters", mel_filters(mels), persistent=False)

    def forward(self, pcm: Tensor) -> Tensor:
        with torch.autocast(pcm.device.type, enabled=False):
            frames = pcm.float().unfold(-1, N_FFT, HOP_LENGTH) * self.window  # [B, M, 400]
            power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)  # [B, M, 201]
            mel = (power @ self.filters.T).clamp(min=10.0**FLOOR).log10()
            return ((mel + 4.0) / 4.0).transpose(1, 2)
