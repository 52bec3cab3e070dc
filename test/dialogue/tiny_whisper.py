# SPDX-License-Identifier: Apache-2.0
"""Whisper models of a few thousand random parameters, as files: what they say means nothing, all else is real."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ("hi", "all", "how", "are", "you", "now", "fine", "yes")
TOKENS = 6  # of every text
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nocaptions|>",
    "<|notimestamps|>",
)


def make_transformers(folder: Path, *, multilingual: bool = False) -> Path:
    """A model that transformers loads: a word a token, TOKENS words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    times = tuple(f"<|{i * 0.02:.2f}|>" for i in range(1501))
    names = (*WORDS, *SPECIAL, *times)
    ids = {name: number for number, name in enumerate(names)}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(names),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=448,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    with (
        torch.no_grad()
    ):  # its places after the last word ask for the end of the text, those before for words
        decoder = model.model.decoder
        wish = torch.nn.functional.normalize(torch.randn(16), dim=0)
        decoder.embed_tokens.weight[end] = wish
        decoder.embed_tokens.weight[: len(WORDS)] = 0.3 * torch.randn(len(WORDS), 16) - wish
        after = (4 if multilingual else 2) + TOKENS - 1
        decoder.embed_positions.weight[:after] -= wish
        decoder.embed_positions.weight[after:] += 100 * wish
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=[ids[name] for name in SPECIAL if ids[name] != end],
        no_timestamps_token_id=ids["<|notimestamps|>"],
    )
    model.generation_config.is_multilingual = multilingual
    if multilingual:
        model.generation_config.lang_to_id = {name: ids[name] for name in ("<|en|>", "<|de|>")}
        model.generation_config.task_to_id = {n: ids[f"<|{n}|>"] for n in ("transcribe", "translate")}
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({name: ids[name] for name in (*WORDS, *SPECIAL)}, unk_token="hi"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*SPECIAL, *times])
    tokenizer.save(str(folder / "tokenizer.json"))
    card = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(card))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "WhisperProcessor"}))
    return folder


def make_ctranslate2(folder: Path, source: Path) -> Path:
    """The same model as `source`, a folder of make_transformers, for faster-whisper."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(folder))
    return folder


def make_openai(path: Path) -> Path:
    """A checkpoint as OpenAI publishes them, of an English-only model."""
    import torch
    import whisper

    torch.manual_seed(0)
    dimensions = {
        **{"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1},
        **{"n_vocab": 51864, "n_text_ctx": 16, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1},
    }
    model = whisper.Whisper(whisper.ModelDimensions(**dimensions))
    torch.save({"dims": dimensions, "model_state_dict": model.state_dict()}, path)
    return path
