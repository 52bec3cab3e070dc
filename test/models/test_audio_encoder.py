# SPDX-License-Identifier: Apache-2.0
"""The embedded audio encoder: exact windows, exact receptive field, shipped weights that hear speech."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from flowact_ros.models.audio_encoder import (
    KIND,
    AudioEncoderConfig,
    EmbeddedAudioEncoder,
    load_audio_encoder,
)
from flowact_ros.models.checkpoint import CheckpointError, save_weights, weights_dir
from flowact_ros.models.mel import AudioInputError
from flowact_ros.timebase import ENCODER_SAMPLES_PER_FRAME as FRAME

SMALL = AudioEncoderConfig(stem_widths=(8, 8), width=16, dilations=(1, 2), features=12)


def encoder(config: AudioEncoderConfig = SMALL, seed: int = 0) -> EmbeddedAudioEncoder:
    torch.manual_seed(seed)
    return EmbeddedAudioEncoder(config).eval().requires_grad_(False)


def sound(model: EmbeddedAudioEncoder, frames: int, seed: int = 0) -> torch.Tensor:
    samples = model.context_samples + FRAME * frames + model.lookahead_samples
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def window(model: EmbeddedAudioEncoder, pcm: torch.Tensor, first: int, frames: int) -> torch.Tensor:
    return pcm[:, FRAME * first : FRAME * (first + frames) + model.context_samples + model.lookahead_samples]


@pytest.mark.parametrize("cut", [(12,), (4, 4, 4), (1,) * 12, (8, 1, 3)])
def test_windows_equal_the_whole_pass(cut: tuple[int, ...]) -> None:
    model = encoder()
    pcm = sound(model, 12)
    whole, parts, first = model(pcm), [], 0
    for frames in cut:
        parts.append(model(window(model, pcm, first, frames)))
        first += frames
    assert whole.shape == (1, 12, 12)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_batch_rows_are_independent() -> None:
    model = encoder()
    a, b = sound(model, 3, 1), sound(model, 3, 2)
    assert torch.allclose(model(torch.cat([a, b])), torch.cat([model(a), model(b)]), atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, AudioEncoderConfig()], ids=["small", "shipped"])
def test_receptive_field_is_exactly_what_is_announced(config: AudioEncoderConfig) -> None:
    model = encoder(config)
    pcm = sound(model, 5).requires_grad_()
    target = 2
    model(pcm)[0, target].sum().backward()
    touched = pcm.grad[0].nonzero().flatten()
    first, last = int(touched.min()), int(touched.max())
    # A Hann window is zero at its first sample, so that the outermost sample of the span carries no gradient.
    assert first - FRAME * target in (0, 1)
    assert last == FRAME * target + config.span - 1
    assert config.span == config.context + FRAME + config.lookahead
    assert model.context_samples == config.context and model.lookahead_samples == config.lookahead <= 1280


def test_shipped_sizes() -> None:
    config = AudioEncoderConfig()
    assert (config.context, config.lookahead, config.span) == (22_800, 1120, 24_560)  # 1425 ms, 70 ms, 1535 ms
    assert sum(p.numel() for p in EmbeddedAudioEncoder(config).parameters()) < 3_500_000


def test_bad_sound_is_refused_with_both_numbers() -> None:
    model = encoder()
    pcm = sound(model, 2)
    fixed = model.context_samples + model.lookahead_samples
    with pytest.raises(AudioInputError, match=rf"{fixed} \+ 640\*n .*got {pcm.shape[1] - 1}"):
        model(pcm[:, 1:])
    pcm[0, 7] = float("nan")
    with pytest.raises(AudioInputError, match="1 samples that are NaN"):
        model(pcm)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lookahead is 1281 samples; the range is 0 to 1280"):
        AudioEncoderConfig(lookahead=1281)


def test_loading(tmp_path: Path) -> None:
    model = encoder(AudioEncoderConfig(), seed=3)
    path = tmp_path / "audio.safetensors"
    save_weights(path, model, kind=KIND, config=model.config, card={})
    loaded = load_audio_encoder(path=path)
    pcm = sound(loaded, 2)
    rounded = encoder(AudioEncoderConfig())
    rounded.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    assert torch.equal(loaded(pcm), rounded(pcm))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_audio_encoder(path=path)
    with pytest.raises(CheckpointError, match="missing"):
        load_audio_encoder(path=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="'tape' does not exist; use 'embedded' or 'whisper'"):
        load_audio_encoder("tape")
    with pytest.raises(ValueError, match="needs the path"):
        load_audio_encoder("whisper")


def test_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audio.safetensors"
    save_weights(path, encoder(), kind=KIND, config=SMALL, card={})
    with pytest.raises(CheckpointError, match="audio.safetensors"):
        load_audio_encoder(path=path)


def test_shipped_weights_tell_sound_from_silence(tmp_path: Path) -> None:
    model = load_audio_encoder()
    card = json.loads((weights_dir() / "audio_encoder.json").read_text())
    assert card["heldout"]["embedded"]["loudness_r2"] > 0.8
    assert card["heldout"]["embedded"]["viseme"] > 2 * card["heldout"]["embedded_shuffled_targets"]["viseme"]
    frames = 40
    quiet = torch.zeros(1, model.context_samples + FRAME * frames + model.lookahead_samples)
    tone = quiet.clone()
    t = torch.arange(FRAME * 20) / 16000
    voice = sum(torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 30))  # a buzz at 120 Hz
    start = model.context_samples + FRAME * 10
    tone[0, start : start + len(t)] = 0.1 * voice
    difference = (model(tone) - model(quiet))[0].square().mean(1).sqrt()
    # Frames 0-7 end before the look-ahead reaches the sound; frames 10-29 hold it; from 38 on it has left the context.
    assert difference[:8].max() == 0
    assert difference[11:29].min() > 0.3
    assert model(quiet)[0].std(0).max() < 1e-5


def test_shipped_weights_are_where_the_loader_looks(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(weights_dir() / f"audio_encoder{suffix}", tmp_path / f"audio_encoder{suffix}")
    a, b = load_audio_encoder(), load_audio_encoder(path=tmp_path / "audio_encoder.safetensors")
    pcm = sound(a, 1)
    assert torch.equal(a(pcm), b(pcm))
    assert a(pcm).shape == (1, 1, 384)
