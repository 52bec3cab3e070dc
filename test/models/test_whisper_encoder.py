# SPDX-License-Identifier: Apache-2.0
"""The Whisper backend on a tiny random model: alignment, conversion of OpenAI's format, hashes, bad files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from flowact_ros.models import convert_whisper
from flowact_ros.models.audio_encoder import load_audio_encoder
from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.convert_whisper import convert, main, read_official
from flowact_ros.models.mel import AudioInputError, mel_filters
from flowact_ros.models.whisper_encoder import FLOOR, TAIL, WhisperConfig, WhisperEncoder
from flowact_ros.timebase import ENCODER_SAMPLES_PER_FRAME as FRAME

TINY = WhisperConfig(width=16, heads=2, depth=2, positions=64, context_frames=6)
SPACE = {"feature_mean": torch.linspace(-1, 1, 16), "feature_std": torch.linspace(0.5, 2, 16)}


def openai_state(layers: int = 3, width: int = 16) -> dict[str, torch.Tensor]:
    """A state dict with the names of OpenAI's file: one encoder block more than we keep, and a decoder."""
    torch.manual_seed(0)
    encoder = WhisperEncoder(
        WhisperConfig(width=width, heads=2, depth=layers, positions=64, context_frames=6)
    )
    encoder.positional_embedding.normal_()
    state = {
        f"encoder.{k}": v.detach().half()
        for k, v in encoder.state_dict().items()
        if not k.startswith("feature")
    }
    return {
        **state,
        "encoder.ln_post.weight": torch.ones(width),
        "decoder.token_embedding.weight": torch.zeros(4, width),
    }


def write(path: Path, state: dict[str, torch.Tensor]) -> str:
    torch.save({"dims": {"n_audio_state": 16}, "model_state_dict": state}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights made from an OpenAI-like file, once: the child process that reads it imports torch."""
    folder = tmp_path_factory.mktemp("whisper")
    digest = write(folder / "tiny.pt", openai_state())
    encoder = convert(folder / "tiny.pt", folder / "w.safetensors", expected=digest, config=TINY, space=SPACE)
    assert torch.equal(encoder.state_dict()["feature_std"], SPACE["feature_std"])
    return folder / "w.safetensors"


def test_conversion_keeps_the_numbers(converted: Path) -> None:
    state = openai_state()
    loaded = load_audio_encoder("whisper", converted)
    assert loaded.config == TINY and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.blocks[1].attn.key.weight, state["encoder.blocks.1.attn.key.weight"].float())
    pcm = 0.1 * torch.randn(1, loaded.context_samples + 3 * FRAME + loaded.lookahead_samples)
    out = loaded(pcm)
    assert out.shape == (1, 3, 16)
    expected = (loaded.raw(pcm) - SPACE["feature_mean"]) / SPACE["feature_std"]
    assert torch.allclose(out, expected.clamp(-6, 6))


def test_equals_whispers_own_arithmetic(converted: Path) -> None:
    """Written out from the paper: centred spectrogram, two convolutions, positions, blocks, mean of two tokens."""
    encoder = load_audio_encoder("whisper", converted)
    frames = 2
    pcm = 0.1 * torch.randn(1, encoder.context_samples + frames * FRAME + encoder.lookahead_samples)
    # Whisper centres column m on sample 160*m. Token j covers columns 2j-ish, centred on 320*j: we start at sample 800,
    # a quarter into frame 1, and pad to the left with the true past.
    spectrum = torch.stft(
        pcm[:, 800 - 200 :], 400, 160, window=torch.hann_window(400), center=False, return_complex=True
    )
    mel = ((mel_filters() @ spectrum.abs().square()).clamp(min=10**FLOOR).log10() + 4) / 4
    mel = F.pad(mel, (0, TAIL + mel.shape[-1] % 2), value=(FLOOR + 4) / 4)
    s = {k.removeprefix("encoder."): v.float() for k, v in openai_state().items()}
    x = F.gelu(F.conv1d(mel, s["conv1.weight"], s["conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, s["conv2.weight"], s["conv2.bias"], stride=2, padding=1))[0].T
    x = x + s["positional_embedding"][: len(x)]
    for i in range(2):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in s.items() if k.startswith(f"blocks.{i}.")}
        h = F.layer_norm(x, (16,), b["attn_ln.weight"], b["attn_ln.bias"])
        q = F.linear(h, b["attn.query.weight"], b["attn.query.bias"]).view(-1, 2, 8)
        k = F.linear(h, b["attn.key.weight"]).view(-1, 2, 8)
        v = F.linear(h, b["attn.value.weight"], b["attn.value.bias"]).view(-1, 2, 8)
        weight = torch.einsum("ahd,bhd->hab", q, k).div(8**0.5).softmax(-1)
        mixed = torch.einsum("hab,bhd->ahd", weight, v).flatten(1)
        x = x + F.linear(mixed, b["attn.out.weight"], b["attn.out.bias"])
        h = F.layer_norm(x, (16,), b["mlp_ln.weight"], b["mlp_ln.bias"])
        h = F.gelu(F.linear(h, b["mlp.0.weight"], b["mlp.0.bias"]))
        x = x + F.linear(h, b["mlp.2.weight"], b["mlp.2.bias"])
    first = 2 * (TINY.context_frames - 1)
    pooled = torch.stack([(x[first + 2 * i] + x[first + 2 * i + 1]) / 2 for i in range(frames)])
    assert torch.allclose(encoder.raw(pcm)[0], pooled, atol=1e-4)


def test_a_feature_follows_its_own_frame() -> None:
    """With attention silenced, a click moves the features of the frame it falls into, and of no frame far from it."""
    torch.manual_seed(1)
    encoder = WhisperEncoder(TINY).eval().requires_grad_(False)
    for block in encoder.blocks:
        block.attn.out.weight.zero_()
        block.attn.out.bias.zero_()
    quiet = torch.zeros(1, encoder.context_samples + 8 * FRAME + encoder.lookahead_samples)
    for frame in (0, 3, 7):
        click = quiet.clone()
        click[0, encoder.context_samples + FRAME * frame + FRAME // 2] = 1.0
        moved = (encoder.raw(click) - encoder.raw(quiet))[0].abs().sum(1)
        assert int(moved.argmax()) == frame
        assert all(moved[i] == 0 for i in range(8) if abs(i - frame) > 1)


def test_stateless_and_finite_window() -> None:
    torch.manual_seed(2)
    encoder = WhisperEncoder(TINY).eval().requires_grad_(False)
    pcm = 0.1 * torch.randn(2, encoder.context_samples + 4 * FRAME + encoder.lookahead_samples)
    a = encoder(pcm)
    encoder(torch.flip(pcm, (1,)))
    assert torch.equal(encoder(pcm), a)
    assert encoder.lookahead_samples <= 1280


def test_bad_sound_is_refused() -> None:
    encoder = WhisperEncoder(TINY)
    fixed = encoder.context_samples + encoder.lookahead_samples
    with pytest.raises(
        AudioInputError, match=rf"whisper encoder wants {fixed} \+ 640\*n .*got {fixed + 639}"
    ):
        encoder(torch.zeros(1, fixed + 639))
    with pytest.raises(AudioInputError, match="this encoder knows 64 positions"):
        encoder(torch.zeros(1, fixed + 640 * 40))
    with pytest.raises(AudioInputError, match="NaN"):
        encoder(torch.full((1, fixed + 640), float("nan")))


def test_a_wrong_hash_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(
        CheckpointError, match=r"tiny.pt has SHA-256 [0-9a-f]{16}\.\.\., OpenAI's file has d3dd57d32accea0b"
    ):
        convert(path, tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "tiny.pt"
    digest = write(source, openai_state())
    source.write_bytes(source.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        convert(source, tmp_path / "w.safetensors", expected=digest, config=TINY, space=SPACE)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    path = tmp_path / "evil.pt"
    torch.save({"model_state_dict": {"encoder.x": Payload()}}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pt is not a Whisper checkpoint"):
        read_official(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not marker.exists()


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {k.removeprefix("encoder."): v for k, v in openai_state().items() if k.startswith("encoder.")}
    bad = {k: v for k, v in state.items() if k != "blocks.1.mlp.0.bias"}
    monkeypatch.setattr(convert_whisper, "read_official", lambda *_: dict(bad))
    with pytest.raises(CheckpointError, match=r"a\.pt lacks encoder\.blocks\.1\.mlp\.0\.bias"):
        convert(tmp_path / "a.pt", tmp_path / "w.safetensors", config=TINY, space=SPACE)
    bad = {**state, "conv1.bias": torch.zeros(17)}
    with pytest.raises(CheckpointError, match=r"conv1\.bias is \(17,\), expected \(16,\)"):
        convert(tmp_path / "a.pt", tmp_path / "w.safetensors", config=TINY, space=SPACE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"none\.pt is missing"):
        convert(tmp_path / "none.pt", tmp_path / "w.safetensors")


def test_a_larger_encoder_tells_its_sizes_and_its_space_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of large-v3: another width, other bands, all blocks but the last; features of mean 0 and deviation 1."""
    torch.manual_seed(0)
    large = WhisperEncoder(WhisperConfig(width=64, heads=1, depth=2, mels=128, positions=200))
    state = {k: v.detach() for k, v in large.state_dict().items() if not k.startswith("feature")}
    monkeypatch.setattr(convert_whisper, "read_official", lambda *_: dict(state))
    target = tmp_path / "large.safetensors"
    with pytest.raises(CheckpointError, match="an encoder 64 wide needs 10 s of speech .*; 0 s were given"):
        convert(tmp_path / "large.pt", target)
    speech = 0.1 * torch.randn(14 * 16_000).numpy()
    convert(tmp_path / "large.pt", target, speech=[speech])
    loaded = load_audio_encoder("whisper", target)
    assert loaded.config == WhisperConfig(width=64, heads=1, depth=1, mels=128, positions=200) and loaded.width == 64
    assert torch.equal(loaded.conv1.weight, large.conv1.weight) and not loaded.mel.filters.is_meta
    pcm = torch.from_numpy(speech[: loaded.context_samples + 24 * FRAME + loaded.lookahead_samples])[None]
    features = loaded(pcm)
    assert features.shape == (1, 24, 64)
    assert features.mean().abs() < 0.2 and 0.7 < features.std() < 1.3
    monkeypatch.setattr(convert_whisper, "read_official", lambda *_: {"conv1.weight": torch.zeros(3, 4, 3)})
    with pytest.raises(CheckpointError, match="large.pt holds no encoder of Whisper"):
        convert(tmp_path / "large.pt", target)


def test_the_shipped_space_is_the_embedded_encoders() -> None:
    space, encoder = convert_whisper.shipped_space(), load_audio_encoder()
    assert torch.equal(space["feature_mean"], encoder.feature_mean)
    assert torch.equal(space["feature_std"], encoder.feature_std) and space["feature_std"].min() > 0


def test_truncated_weights_and_foreign_cards_are_refused(converted: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    whole = converted.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    path.with_suffix(".json").write_bytes(converted.with_suffix(".json").read_bytes())
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_audio_encoder("whisper", path)
    path.with_suffix(".json").write_text('{"kind": "vae", "config": {"latent_channels": 64}}')
    with pytest.raises(CheckpointError, match="no Whisper sizes"):
        load_audio_encoder("whisper", path)


def test_command_line_reports_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.pt"), str(tmp_path / "w.safetensors")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
