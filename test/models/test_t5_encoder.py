# SPDX-License-Identifier: Apache-2.0
"""The T5 backend on a tiny random model: rows of a preset's size, and folders that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.config import ConfigError, ModelConfig, preset
from flowact_ros.models.ports import RandomText, check_ports
from flowact_ros.models.text_encoder import load_text_encoder

WORDS = ["<pad>", "</s>", "<unk>", "smile", "wave", "nod", "a", "hand"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 encoder, 32 wide, with a tokenizer of eight words: what the real folder looks like."""
    transformers = pytest.importorskip("transformers", reason="the t5 backend needs transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("t5")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(path))
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=8, num_heads=2, d_ff=16, num_layers=1, pad_token_id=0, eos_token_id=1
    )
    transformers.T5EncoderModel(config).save_pretrained(str(path))
    return path


def sized(width: int, tokens: int) -> ModelConfig:
    from flowact_ros.models.config import with_overrides

    return with_overrides(preset("avatar_spatial_debug"), {"dit": {"text_dim": width, "text_tokens": tokens}})


def test_a_text_is_a_row_of_tokens(folder: Path) -> None:
    encoder = load_text_encoder("t5", folder, tokens=6)
    rows = encoder.encode(["smile", "wave a hand nod nod smile smile"])
    assert rows.shape == (2, 6, 32) and rows.dtype == torch.float32 and encoder.port == (6, 32)
    assert torch.allclose(rows[1].square().mean(-1), torch.ones(6), atol=1e-4)
    assert bool((rows[0, 1:] == 0).all()) and bool((rows[0, 0] != 0).any())  # nothing behind the end of a text
    assert torch.allclose(rows[:1], encoder.encode(["smile"]), atol=1e-6)  # whatever stands beside it
    ids = encoder.tokenizer("wave a hand nod nod smile", return_tensors="pt")["input_ids"]
    by_hand = encoder.model(input_ids=ids).last_hidden_state[0]
    assert torch.cosine_similarity(by_hand, rows[1], -1).min() > 0.9999


def test_a_port_of_another_size_is_refused_with_both_numbers(folder: Path) -> None:
    audio, text = load_text_encoder("t5", folder, tokens=6), load_text_encoder("t5", folder, tokens=6)
    audio.width = 384
    check_ports(sized(32, 6), audio, text, "embedded", "t5")
    with pytest.raises(ConfigError, match="text backend t5 gives 6 x 32 numbers; preset .* takes 6 x 1024: use t5"):
        check_ports(sized(1024, 6), audio, text, "embedded", "t5")
    assert RandomText((6, 32)).encode(["a", "b"]).shape == (2, 6, 32)


def test_what_is_no_t5_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text backend 't5' needs the folder of a T5"):
        load_text_encoder("t5")
    with pytest.raises(CheckpointError, match=r"config\.json is missing: give the folder of a T5"):
        load_text_encoder("t5", tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="could not be loaded as a T5") as error:
        load_text_encoder("t5", tmp_path)
    assert "\n" not in str(error.value)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors"):
        load_text_encoder("t5", tmp_path)
