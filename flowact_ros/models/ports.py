# SPDX-License-Identifier: Apache-2.0
"""Where sound and text enter a denoiser: encoders of another size are refused, and random ones made for speed runs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.models.checkpoint import fill_random
from flowact_ros.models.config import ConfigError, ModelConfig
from flowact_ros.models.text_encoder import check_texts, unit_rms
from flowact_ros.models.whisper_encoder import SIZES, WhisperConfig, WhisperEncoder
from flowact_ros.timebase import FEATURE_DIM

#: What feeds ports of these widths, for whoever gave something else.
HEARS = {384: "embedded, or whisper with its tiny encoder", 1280: "whisper with the encoder of Whisper large"}
READS = {384: "embedded or minilm", 1024: "t5 with the folder of T5 large", 4096: "t5 with the folder of T5 XXL"}


def embedded_hears(config: ModelConfig) -> bool:
    """Whether the shipped encoder of sound fits the preset."""
    return config.dit.audio_dim == FEATURE_DIM


def embedded_reads(config: ModelConfig) -> bool:
    """Whether the shipped encoder of text fits the preset."""
    return (config.dit.text_tokens, config.dit.text_dim) == (1, FEATURE_DIM)


def check_ports(
    config: ModelConfig, audio_encoder: Any, text_encoder: Any, audio_backend: str, text_backend: str
) -> None:
    """Raises ConfigError, one line with both numbers, for an encoder whose size is not the preset's."""
    dit = config.dit
    if audio_encoder.width != dit.audio_dim:
        raise ConfigError(
            f"audio backend {audio_backend} gives {audio_encoder.width} numbers a frame; preset {config.name} takes "
            f"{dit.audio_dim}: use {HEARS.get(dit.audio_dim, 'an encoder of that width')}"
        )
    tokens, width = text_encoder.port
    if (tokens, width) != (dit.text_tokens, dit.text_dim):
        raise ConfigError(
            f"text backend {text_backend} gives {tokens} x {width} numbers; preset {config.name} takes "
            f"{dit.text_tokens} x {dit.text_dim}: use {READS.get(dit.text_dim, 'an encoder of that width')}"
        )


class RandomText(nn.Module):
    """Every text is a vector of its own, `[B, *port]` of unit RMS, that says nothing."""

    def __init__(self, port: tuple[int, int]) -> None:
        super().__init__()
        self.port = port

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self._one(text) for text in check_texts(texts)])

    def _one(self, text: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode("utf-8", "replace")))
        return unit_rms(torch.randn(self.port, generator=generator))


def random_audio_encoder(config: ModelConfig, device: torch.device | str) -> WhisperEncoder:
    """An untrained Whisper encoder of the preset's port, as large as the published one of that width."""
    width = config.dit.audio_dim
    if width not in SIZES:
        raise ConfigError(f"no Whisper encoder is {width} wide; they are {', '.join(map(str, SIZES))}")
    heads, depth = SIZES[width]
    with torch.device("meta"):
        encoder = WhisperEncoder(WhisperConfig(width=width, heads=heads, depth=depth - 1))
    fill_random(encoder, device=device)
    return encoder.eval().requires_grad_(False)
