# SPDX-License-Identifier: Apache-2.0
"""Both text backends give the port: [B, 1, 384], unit RMS, each text by itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from flowact_ros.models.checkpoint import CheckpointError, save_weights, weights_dir
from flowact_ros.models.text_encoder import (
    KIND,
    EmbeddedTextEncoder,
    MiniLMTextEncoder,
    TextEncoderConfig,
    TextInputError,
    load_text_encoder,
    pieces_of,
    words_of,
)

SMALL = TextEncoderConfig(buckets=97, embed=8, width=16, heads=2, hidden=16, max_words=6)


def small() -> EmbeddedTextEncoder:
    torch.manual_seed(0)
    model = EmbeddedTextEncoder(SMALL)
    torch.nn.init.normal_(model.position)
    return model.eval().requires_grad_(False)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def test_port() -> None:
    out = small().encode(["smiling", "listening closely, nodding", ""])
    assert out.shape == (3, 1, 384) and out.dtype == torch.float32
    assert torch.allclose(out.square().mean(-1), torch.ones(3, 1), atol=1e-4)


def test_a_text_is_encoded_by_itself() -> None:
    model = small()
    lines = ["a", "one two three four five six seven", "smile!", "nod and wave"]
    alone = torch.cat([model.encode([line]) for line in lines])
    assert torch.allclose(model.encode(lines), alone, atol=1e-5)
    assert torch.allclose(model.encode(lines[::-1]), alone.flip(0), atol=1e-5)


def test_order_and_marks_count_but_case_and_spaces_do_not() -> None:
    model = small()
    assert torch.equal(model.encode(["Looking  LEFT,"]), model.encode(["looking left"]))
    assert not torch.allclose(
        model.encode(["first left then right"]), model.encode(["first right then left"]), atol=1e-3
    )
    assert not torch.allclose(model.encode(["really?"]), model.encode(["really!"]), atol=1e-3)


def test_hashes_are_the_same_in_every_process() -> None:
    rows = pieces_of("nod", 14_000)
    assert rows[:2] == (2057, 2935)  # CRC-32 of "1<nod>" and "2<nod>", modulo the table
    assert len(rows) == 2 + 6  # and the 3-, 4- and 5-grams of "<nod>"


def test_words() -> None:
    assert words_of("Wow! Is it 25 °C?", 9) == ["wow", "!", "is", "it", "25", "c", "?"]
    assert words_of("one two three", 2) == ["one", "two"]
    assert words_of("… —", 5) == words_of("", 5) == ["∅"]


@pytest.mark.parametrize("text", ["\x00\ud800", "a" * 100_000, "🙂🙂", "שלום", "<script>" * 500, "\n\t"])
def test_hostile_texts_give_finite_vectors(text: str) -> None:
    assert torch.isfinite(small().encode([text])).all()


def test_what_is_no_list_of_texts_is_refused() -> None:
    for bad, match in (("smile", "got str"), ([], "empty list"), ([3], "got int"), (None, "got NoneType")):
        with pytest.raises(TextInputError, match=match):
            small().encode(bad)  # type: ignore[arg-type]


def test_loading(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = EmbeddedTextEncoder()
    path = tmp_path / "text.safetensors"
    save_weights(path, model, kind=KIND, config=model.config, card={})
    loaded = load_text_encoder(path=path)
    assert cosine(loaded.encode(["nod"]), model.encode(["nod"])) > 0.999
    assert not any(p.requires_grad for p in loaded.parameters())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_text_encoder(path=path)
    with pytest.raises(ValueError, match="'bert' does not exist"):
        load_text_encoder("bert")
    with pytest.raises(ValueError, match="needs the folder"):
        load_text_encoder("minilm")


def test_shipped_weights_put_like_instructions_together() -> None:
    model = load_text_encoder()
    vectors = dict(
        zip(
            ("wave", "hello", "think", "ponder", "laugh", "giggle"),
            model.encode(
                [
                    "waving a hand",
                    "waving hello to a visitor",
                    "thinking about the answer",
                    "pondering a question",
                    "laughing at a joke",
                    "giggling happily",
                ]
            ),
            strict=True,
        )
    )
    for a, b in (("wave", "hello"), ("think", "ponder"), ("laugh", "giggle")):
        near = cosine(vectors[a], vectors[b])
        others = [cosine(vectors[a], v) for k, v in vectors.items() if k not in (a, b)]
        assert near > max(others) + 0.1, (a, b, near, others)


def test_shipped_card_holds_a_control() -> None:
    figures = json.loads((weights_dir() / "text_encoder.json").read_text())["heldout"]
    assert figures["cosine_grammar"] > 0.5 > 0.3 > figures["cosine_grammar_shuffled"]
    assert figures["cosine_own_wordings_seen"] > 0.8
    assert (weights_dir() / "text_encoder.safetensors").stat().st_size < 3_200_000


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT, 384 wide, one layer, with a tokenizer of a dozen words: what the real folder looks like."""
    transformers = pytest.importorskip("transformers", reason="the minilm backend needs transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "smile", "wave", "nod", "a", "hand", "##ing"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=384,
        num_hidden_layers=1,
        num_attention_heads=6,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(str(folder))
    return folder


def test_minilm_backend_is_the_mean_over_the_tokens(bert_folder: Path) -> None:
    digest = hashlib.sha256((bert_folder / "model.safetensors").read_bytes()).hexdigest()
    encoder = MiniLMTextEncoder(bert_folder, expected=digest)
    lines = ["smile", "wave a hand nod nod"]
    out = encoder.encode(lines)
    assert out.shape == (2, 1, 384)
    assert torch.allclose(out.square().mean(-1), torch.ones(2, 1), atol=1e-4)
    # By hand, without padding: one text at a time.
    for line, row in zip(lines, out, strict=True):
        ids = encoder.tokenizer(line, return_tensors="pt")
        hidden = encoder.model(**ids).last_hidden_state[0]
        assert cosine(row, hidden.mean(0)) > 0.9999


def test_minilm_backend_checks_the_hash(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"SHA-256 [0-9a-f]{16}\.\.\., expected 53aa51172d142c89"):
        load_text_encoder("minilm", bert_folder)
    with pytest.raises(CheckpointError, match="is missing"):
        MiniLMTextEncoder(tmp_path)


def test_minilm_backend_refuses_a_truncated_file(bert_folder: Path, tmp_path: Path) -> None:
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="could not be loaded as a sentence encoder"):
        MiniLMTextEncoder(tmp_path, expected=None)
