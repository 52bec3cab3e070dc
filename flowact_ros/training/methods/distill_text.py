# SPDX-License-Identifier: Apache-2.0
"""Distil all-MiniLM-L6-v2 into the small embedded text encoder.

    flowact weights get minilm
    flowact train text-encoder --run runs/text --export

A second call goes on from the weights of the first.

The loss is 1 - cosine, plus the match of the batch's similarity matrix: instructions must lie apart as they do in the
teacher's space. The report: cosine to the teacher on unseen texts of the grammar and on sentences written apart from
it, with shuffled texts as the control, and whether a behaviour is recognised by its nearest wording.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowact_ros.data.sentences import HELDOUT_SENTENCES
from flowact_ros.data.wordings import WORDINGS
from flowact_ros.models.checkpoint import save_weights, weights_dir
from flowact_ros.models.text_encoder import (
    KIND,
    EmbeddedTextEncoder,
    MiniLMTextEncoder,
    TextEncoder,
    TextEncoderConfig,
)
from flowact_ros.training.methods.distill_loop import adam, as_on_disk, averaged, descend, options_of
from flowact_ros.training.methods.instruction_texts import HELDOUT, known, texts
from flowact_ros.weights_store import WeightsError, stored


def vectors(encoder: TextEncoder, lines: list[str], batch: int = 128) -> Tensor:
    """[N, 384] on the CPU, texts of similar length together."""
    order = sorted(range(len(lines)), key=lambda i: len(lines[i]))
    out = torch.empty(len(lines), 384)
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=isinstance(encoder, MiniLMTextEncoder)),
    ):
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            out[rows] = encoder.encode([lines[i] for i in rows])[:, 0].float()
    return out


def held_back(line: str) -> bool:
    """One text in twelve, by its own bytes."""
    return zlib.crc32(line.encode()) % 12 == 0


def loss(found: Tensor, target: Tensor) -> Tensor:
    """1 - cosine, and the squared error of the batch's cosine matrix. [B, 384] each, any length."""
    found, target = F.normalize(found, dim=-1), F.normalize(target, dim=-1)
    return (1 - (found * target).sum(-1)).mean() + 2.0 * (found @ found.T - target @ target.T).square().mean()


def recognised(encoder: TextEncoder) -> float:
    """Share of the hand-written held-out texts whose nearest project wording belongs to their own behaviour."""
    names = [(kind, text) for kind, group in WORDINGS.items() for text in group]
    known_vectors = F.normalize(vectors(encoder, [text for _, text in names]), dim=-1)
    found = F.normalize(vectors(encoder, [text for _, text in HELDOUT]), dim=-1)
    best = (found @ known_vectors.T).argmax(1).tolist()
    return sum(names[b][0].split("_")[0] == kind for b, (kind, _) in zip(best, HELDOUT, strict=True)) / len(
        HELDOUT
    )


def report(encoder: TextEncoder, teacher: TextEncoder, unseen: list[str], truth: Tensor) -> dict[str, float]:
    """Held-out figures; cosines are means."""
    by_hand = [text for _, text in HELDOUT]
    found, hand = vectors(encoder, unseen), vectors(encoder, by_hand)
    general = list(HELDOUT_SENTENCES)
    wordings = [text for group in WORDINGS.values() for text in group]
    return {
        "cosine_grammar": float(F.cosine_similarity(found, truth).mean()),
        "cosine_grammar_shuffled": float(F.cosine_similarity(found, truth.roll(1, 0)).mean()),
        "cosine_by_hand": float(F.cosine_similarity(hand, vectors(teacher, by_hand)).mean()),
        "cosine_general": float(
            F.cosine_similarity(vectors(encoder, general), vectors(teacher, general)).mean()
        ),
        "cosine_own_wordings_seen": float(
            F.cosine_similarity(vectors(encoder, wordings), vectors(teacher, wordings)).mean()
        ),
        "recognised": recognised(encoder),
        "recognised_by_teacher": recognised(teacher),
    }


def train(
    student: EmbeddedTextEncoder,
    lines: list[str],
    targets: Tensor,
    *,
    minutes: float,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    log: Path,
) -> int:
    """Train for `minutes` or `steps`, whichever ends first; returns the steps made. `student` ends as its average."""
    optimizer, average = adam(student, lr, weight_decay=0.01), averaged(student)
    rng = np.random.default_rng(seed)
    fixed = len(known())  # `texts` lists the project's own wordings first: they come up more often

    def of_a_batch() -> tuple[Tensor, list[Tensor]]:
        rows = np.where(
            rng.random(batch) < 0.1,
            rng.integers(0, min(fixed, len(lines)), batch),
            rng.integers(0, len(lines), batch),
        )
        value = loss(student([lines[i] for i in rows])[:, 0], targets[torch.from_numpy(rows)])
        return value, [value]

    step = descend(student, average, optimizer, of_a_batch, log, minutes=minutes, steps=steps, lr=lr)
    student.load_state_dict(average.module.state_dict())
    return step


def distil(args: argparse.Namespace) -> None:
    """Makes or reads the targets, trains for a slice, prints the report and exports if asked for.

    Raises WeightsError, OSError.
    """
    folder = args.teacher or stored("minilm")
    if folder is None:
        raise WeightsError("all-MiniLM-L6-v2 is not on this machine: flowact weights get minilm")
    teacher, options = MiniLMTextEncoder(folder), options_of(args)
    vocabulary = sorted(teacher.tokenizer.get_vocab().items(), key=lambda item: item[1])
    lines = texts(np.random.default_rng(args.seed), args.count, (word for word, _ in vocabulary))
    cache = args.run / f"teacher_{len(lines)}_{args.seed}.npy"
    if not cache.is_file():
        np.save(cache, vectors(teacher, lines).numpy())
    targets = torch.from_numpy(np.load(cache))
    own = set(known())
    seen = [i for i, line in enumerate(lines) if line in own or not held_back(line)]
    unseen = [i for i, line in enumerate(lines) if line not in own and held_back(line)]
    config = TextEncoderConfig()
    student = EmbeddedTextEncoder(config)
    if (last := args.run / "last.pt").is_file():
        student.load_state_dict(torch.load(last, weights_only=True))
    steps = train(student, [lines[i] for i in seen], targets[seen], **options, log=args.run / "log.csv")
    torch.save(student.state_dict(), last)
    as_on_disk(student.eval())
    figures = report(student, teacher, [lines[i] for i in unseen], targets[unseen])
    print(json.dumps(figures, indent=1))
    if args.export:
        card = {
            "made_by": "flowact train text-encoder",
            "teacher": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)",
            "steps": steps,
            "texts": len(seen),
            "options": options,
            "heldout": figures,
        }
        save_weights(weights_dir() / "text_encoder.safetensors", student, kind=KIND, config=config, card=card)
