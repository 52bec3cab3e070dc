# SPDX-License-Identifier: Apache-2.0
"""Audio backend `embedded`: a small convolutional encoder that ships with the package and needs no download.

25 features a second, one per video frame, in the feature space of Whisper tiny (see `whisper_encoder`), from which
`flowact train audio-encoder` distils it. No convolution pads: a feature is a function of its own `span` samples
and of nothing else, so any window gives the same values as a pass over the whole utterance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.mel import HOP_LENGTH, N_FFT, N_MELS, LogMel, check_pcm
from flowact_ros.timebase import ENCODER_SAMPLES_PER_FRAME, FEATURE_DIM
from flowact_ros.vocabulary import EMBEDDED, WHISPER

KIND = "audio_encoder"
STEM = ((7, 1), (4, 2), (4, 2))  # (kernel, stride) over mel columns: 100 a second become 25
KERNEL = 3  # of a block, in video frames


class AudioEncoder(Protocol):
    """What the engine asks of an audio backend (any nn.Module with these)."""

    context_samples: int  # past samples at 16 kHz before the first frame of a window
    lookahead_samples: int  # samples after its last frame, at most 1280 (80 ms)
    width: int  # numbers of a feature: a preset takes one width, 384 or that of a larger Whisper

    def __call__(self, pcm: Tensor) -> Tensor:
        """[B, context + 640*n + lookahead] float in [-1, 1] -> [B, n, width]; stateless."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioEncoderConfig:
    """Sizes of the embedded encoder; about 3.1 M parameters by default."""

    stem_widths: tuple[int, int] = (128, 256)
    width: int = 320
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 1)  # a block each: its three frames are so far apart
    features: int = FEATURE_DIM
    lookahead: int = (
        1120  # samples (70 ms): leaves 10 ms of the 80 ms budget to the resampler before the encoder
    )

    @property
    def stem_columns(self) -> int:
        """Mel columns under one output of the stem."""
        columns, step = 1, 1
        for kernel, stride in STEM:
            columns, step = columns + (kernel - 1) * step, step * stride
        return columns

    @property
    def span(self) -> int:
        """Samples a feature depends on: the stem's columns, and two frames more for each block and step of dilation."""
        columns = self.stem_columns + sum(self.dilations) * (KERNEL - 1) * ENCODER_SAMPLES_PER_FRAME // HOP_LENGTH
        return (columns - 1) * HOP_LENGTH + N_FFT

    @property
    def context(self) -> int:
        return self.span - ENCODER_SAMPLES_PER_FRAME - self.lookahead

    def __post_init__(self) -> None:
        if not 0 <= self.lookahead <= 1280:
            raise ValueError(
                f"audio encoder lookahead is {self.lookahead} samples; the range is 0 to 1280 (80 ms)"
            )
        if self.context < 0:
            raise ValueError(
                f"audio encoder spans {self.span} samples; lookahead {self.lookahead} leaves no frame"
            )


class Conv(nn.Module):
    """Unpadded convolution over time as one matrix product, [B, T, in] -> [B, 1 + (T - kernel) // stride, out]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.linear = nn.Linear(inputs * kernel, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.unfold(1, self.kernel, self.stride).flatten(2))


class Block(nn.Module):
    """Residual block, causal: each output keeps the newest of the three frames it reads, `dilation` apart.

    [B, T, C] -> [B, T - 2 * dilation, C]
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.past = (KERNEL - 1) * dilation
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Linear(width * KERNEL, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        read = self.norm(x).unfold(1, self.past + 1, 1)[..., :: self.dilation].flatten(2)
        return x[:, self.past :] + self.out(nn.functional.gelu(self.conv(read)))


class EmbeddedAudioEncoder(nn.Module):
    """[B, context_samples + 640*n + lookahead_samples] at 16 kHz -> [B, n, 384]; see `AudioEncoder`.

    The stem's window (175 ms) is centred on the frame; the blocks add past only, 1.4 s by default, which tells who
    speaks. Raises AudioInputError for a wrong length, shape or type, and for samples that are not finite.
    """

    def __init__(self, config: AudioEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioEncoderConfig()
        self.context_samples = config.context
        self.lookahead_samples = config.lookahead
        self.width = config.features
        widths = (N_MELS, *config.stem_widths, config.width)
        self.mel = LogMel()
        self.stem = nn.ModuleList(Conv(widths[i], widths[i + 1], k, s) for i, (k, s) in enumerate(STEM))
        self.blocks = nn.ModuleList(Block(config.width, dilation) for dilation in config.dilations)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.features)
        # The space itself: the teacher's channel statistics. Not used here; the whisper backend applies them.
        self.register_buffer("feature_mean", torch.zeros(config.features))
        self.register_buffer("feature_std", torch.ones(config.features))

    def forward(self, pcm: Tensor) -> Tensor:
        fixed = self.context_samples + self.lookahead_samples
        check_pcm(pcm, fixed, ENCODER_SAMPLES_PER_FRAME, "audio encoder")
        return self.from_mel(self.mel(pcm))

    def from_mel(self, mel: Tensor) -> Tensor:
        """Log-mel [B, 80, M] -> features [B, n, 384], as many as M columns allow."""
        x = 2.0 * mel.transpose(1, 2)
        for conv in self.stem:
            x = nn.functional.gelu(conv(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def load_audio_encoder(
    backend: str = EMBEDDED, path: Path | str | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """An AudioEncoder in eval mode, on `device`: `embedded` (shipped weights unless `path` is given) or `whisper`,
    which needs a path.

    Raises ValueError for an unknown backend or a missing path, CheckpointError for weights that cannot be used.
    """
    if backend == EMBEDDED:
        encoder = EmbeddedAudioEncoder()
        path = path or weights_dir() / "audio_encoder.safetensors"
        load_weights(path, encoder, kind=KIND, config=encoder.config)
        return encoder.to(device).eval().requires_grad_(False)
    if backend == WHISPER:
        from flowact_ros.models.whisper_encoder import load_whisper

        if path is None:
            raise ValueError(
                "backend 'whisper' needs the path of weights made by flowact_ros.models.convert_whisper"
            )
        return load_whisper(path, device)
    raise ValueError(f"audio backend {backend!r} does not exist; use 'embedded' or 'whisper'")
