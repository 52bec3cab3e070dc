# SPDX-License-Identifier: Apache-2.0
"""Text encoders: an instruction becomes one vector of 384, in the sentence space of all-MiniLM-L6-v2; for the larger
presets a row of vectors of a T5 (`models.t5_encoder`).

`minilm` runs the real model through transformers from a local folder. `embedded` ships with the package: words and
their letter n-grams are hashed into a small table, one attention layer relates the words, and an MLP maps their mean
into the same space; `flowact train text-encoder` distils it. Unknown words still have n-grams in common with known
ones, and there is no vocabulary file.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowact_ros.models.checkpoint import CheckpointError, load_weights, weights_dir
from flowact_ros.timebase import FEATURE_DIM

KIND = "text_encoder"
T5 = "t5"
MINILM_SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # model.safetensors as published
)
MAX_CHARACTERS = 2000  # of one text; more is cut before it costs anything
_WORD = re.compile(r"\w+|[?!]")


class TextInputError(ValueError):
    """Something that is not a list of texts."""


class TextEncoder(Protocol):
    """What the engine asks of a text backend."""

    port: tuple[int, int]  # tokens of a text, and numbers of a token: a preset takes one size, (1, 384) or that of a T5

    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts -> float32 [B, *port] of unit RMS; the same text gives the same numbers whatever stands beside it."""
        ...


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts, cut to MAX_CHARACTERS. Raises TextInputError for a bare string, an empty list or a non-string."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TextInputError(f"text encoder wants a list of texts; got {type(texts).__name__}")
    if not texts:
        raise TextInputError("text encoder wants at least one text; got an empty list")
    for text in texts:
        if not isinstance(text, str):
            raise TextInputError(f"text encoder wants texts; got {type(text).__name__} among them")
    return [text[:MAX_CHARACTERS] for text in texts]


def unit_rms(x: Tensor) -> Tensor:
    """x / RMS over the last axis."""
    return F.normalize(x.float(), dim=-1) * math.sqrt(x.shape[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoderConfig:
    """Sizes of the embedded encoder; about 1.4 M parameters by default."""

    buckets: int = 14_000  # rows of the hash table
    embed: int = 64
    width: int = 128
    heads: int = 4
    hidden: int = 384
    max_words: int = 48
    features: int = FEATURE_DIM

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"text encoder width {self.width} is not a multiple of its {self.heads} heads")


def words_of(text: str, limit: int) -> list[str]:
    """Lower-case words and the marks ? and !, at most `limit`; a text without any is the one word '∅'."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return _WORD.findall(plain)[:limit] or ["∅"]


@functools.lru_cache(maxsize=20_000)
def pieces_of(word: str, buckets: int) -> tuple[int, ...]:
    """Rows of the table whose sum stands for a word: two hashes of the whole, one of each of its 3- to 5-grams."""
    framed = f"<{word[:32]}>"
    grams = {framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1)}
    names = [f"1{framed}", f"2{framed}", *sorted(f"g{g}" for g in grams)]
    return tuple(zlib.crc32(name.encode("utf-8", "replace")) % buckets for name in names)


class EmbeddedTextEncoder(nn.Module):
    """Texts -> float32 [B, 1, 384] of unit RMS; see `TextEncoder`."""

    def __init__(self, config: TextEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextEncoderConfig()
        self.port = (1, config.features)
        self.table = nn.EmbeddingBag(config.buckets, config.embed, mode="mean")
        self.up = nn.Linear(config.embed, config.width)
        self.position = nn.Parameter(torch.zeros(config.max_words, config.width))
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.width), nn.GELU(),
            nn.Linear(2 * config.width, config.width),
        )  # fmt: skip
        self.gate = nn.Linear(config.width, 1)  # how much a word counts in the mean
        self.head = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, config.hidden), nn.GELU(),
            nn.Linear(config.hidden, config.features),
        )  # fmt: skip

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self(texts)

    def forward(self, texts: Sequence[str]) -> Tensor:
        words = [words_of(text, self.config.max_words) for text in check_texts(texts)]
        device = self.position.device
        rows = [pieces_of(word, self.config.buckets) for line in words for word in line]
        flat = torch.tensor([r for row in rows for r in row], device=device)
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])], device=device).cumsum(0)
        counts = torch.tensor([len(line) for line in words], device=device)
        keep = torch.arange(int(counts.max()), device=device) < counts[:, None]  # [B, L]
        x = self.position.new_zeros(*keep.shape, self.config.width)
        x[keep] = self.up(self.table(flat, starts)).to(x.dtype)
        x = x + self.position[: keep.shape[1]]
        q, k, v = (
            t.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for t in self.qkv(self.norm(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(x)
        weight = self.gate(x).masked_fill(~keep[..., None], float("-inf")).softmax(1)
        return unit_rms(self.head((x * weight).sum(1, keepdim=True)))


class MiniLMTextEncoder(nn.Module):
    """The real all-MiniLM-L6-v2 (or any BERT of that port) from a local folder: mean of the last layer over the tokens.

    folder: holds model.safetensors, config.json and the tokenizer's files
    expected: SHA-256 that model.safetensors must have; None accepts any
    Raises CheckpointError when transformers or a file is missing, or the hash differs.
    """

    port = (1, FEATURE_DIM)

    def __init__(self, folder: Path | str, expected: str | None = MINILM_SHA256) -> None:
        super().__init__()
        folder = Path(folder)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise CheckpointError(
                f"{weights} is missing: give the folder of all-MiniLM-L6-v2 (safetensors format)"
            )
        if expected is not None:
            found = hashlib.sha256(weights.read_bytes()).hexdigest()
            if found != expected:
                raise CheckpointError(
                    f"model.safetensors has SHA-256 {found[:16]}..., expected {expected[:16]}...: damaged or another"
                )
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise CheckpointError(
                "text backend 'minilm' needs transformers: pip install transformers"
            ) from None
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self.model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            ).eval()
        except (
            Exception
        ) as error:  # transformers raises many kinds for a damaged folder; all mean the same here
            raise CheckpointError(f"{folder} could not be loaded as a sentence encoder: {error}") from error
        width = self.model.config.hidden_size
        if width != FEATURE_DIM:
            raise CheckpointError(f"{folder} is {width} wide; the text port is {FEATURE_DIM}")
        self.requires_grad_(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts -> float32 [B, 1, 384] of unit RMS; see `TextEncoder`."""
        batch = self.tokenizer(
            check_texts(texts), padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        batch = batch.to(self.model.device)
        hidden = self.model(**batch).last_hidden_state  # [B, L, 384]
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        return unit_rms((hidden * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1))

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.encode(texts)


def load_text_encoder(
    backend: str = "embedded", path: Path | str | None = None, *, tokens: int = 1, device: torch.device | str = "cpu"
) -> nn.Module:
    """A TextEncoder in eval mode: `embedded` (shipped weights unless `path` is given), `minilm` or `t5` (`path`: its
    folder).

    tokens: of a text, as many as `t5` is to give; device: of `t5`, the others are small.
    Raises ValueError for an unknown backend or a missing path, CheckpointError for weights that cannot be used.
    """
    if backend == "embedded":
        encoder = EmbeddedTextEncoder()
        path = path or weights_dir() / "text_encoder.safetensors"
        load_weights(path, encoder, kind=KIND, config=encoder.config)
        return encoder.eval().requires_grad_(False)
    if backend == "minilm":
        if path is None:
            raise ValueError(
                "backend 'minilm' needs the folder of all-MiniLM-L6-v2 (model.safetensors and tokenizer)"
            )
        return MiniLMTextEncoder(path).eval()
    if backend == T5:
        from flowact_ros.models.t5_encoder import T5TextEncoder

        if path is None:
            raise ValueError("text backend 't5' needs the folder of a T5 (safetensors, config.json and tokenizer)")
        return T5TextEncoder(path, tokens, device).eval()
    raise ValueError(f"text backend {backend!r} does not exist; use 'embedded', 'minilm' or 't5'")
