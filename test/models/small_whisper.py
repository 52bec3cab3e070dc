# SPDX-License-Identifier: Apache-2.0
"""A random Whisper encoder of the port's width, where `flowact weights get whisper-tiny.en` would have put the real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.whisper_encoder import KIND, WhisperConfig, WhisperEncoder
from flowact_ros.weights_store import AVATARS, ENCODER, SUMS, folder_of

CONFIG = WhisperConfig(heads=2, depth=1, positions=100, context_frames=8)


def install_whisper(monkeypatch: pytest.MonkeyPatch, cache: Path) -> WhisperEncoder:
    """Makes `cache` the folder of models, puts the encoder there and returns it."""
    monkeypatch.setenv("FLOWACT_CACHE", str(cache))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = WhisperEncoder(CONFIG)
        encoder.positional_embedding.normal_()
    folder = folder_of(AVATARS)
    save_weights(folder / ENCODER, encoder, kind=KIND, config=CONFIG, card={}, dtype=torch.float32)
    (folder / SUMS).touch()
    return encoder.eval().requires_grad_(False)
