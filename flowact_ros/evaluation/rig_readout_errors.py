# SPDX-License-Identifier: Apache-2.0
"""The readout's own error on characters and performances that it has not seen, which is on its card."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from flowact_ros.data.characters import identity_from_seed
from flowact_ros.evaluation.rig_readout import (
    CONFIG,
    READ,
    Readout,
    column,
    default_path,
)
from flowact_ros.evaluation.train_rig_readout import (
    FIRST,
    FRESH,
    LEARN_SEEDS,
    PLACES_EVERY,
    TEST_SEEDS,
    disturb,
    material,
    paint,
    performed,
)
from flowact_ros.models.checkpoint import read_card, save_weights


def errors(seen: np.ndarray, true: np.ndarray) -> dict[str, dict[str, float]]:
    """Of every column: correlation, explained share of the variance (R2), mean absolute error. Places of hands only
    where there is one; of `_in` the share of frames in which presence is told right, at the border of one half."""
    out: dict[str, dict[str, float]] = {}
    for i, name in enumerate(READ):
        a, b = seen[:, i].astype(np.float64), true[:, i].astype(np.float64)
        if name.endswith("_in"):
            out[name] = {
                "right": round(float(((a > 0.5) == (b > 0.5)).mean()), 4),
                "share": round(float(b.mean()), 4),
            }
            continue
        if name.startswith("hand"):
            there = true[:, column(name[:-1] + "in")] > 0.5
            a, b = a[there], b[there]
        residual, spread = ((a - b) ** 2).mean(), b.var()
        out[name] = {
            "correlation": round(float(np.corrcoef(a, b)[0, 1]), 4),
            "r2": round(float(1 - residual / spread), 4),
            "mae": round(float(np.abs(a - b).mean()), 5),
        }
    return out


@torch.inference_mode()
def tested(readout: Readout, characters: int = 48) -> dict[str, dict]:
    """Error on characters and performances that the readout has not seen: clean renders, and disturbed ones."""
    bank = performed("validation", 12)
    parts = []
    for k in range(characters):
        rng = np.random.default_rng([k, 0x7E57])
        rows = torch.from_numpy(rng.integers(len(bank), size=8))
        parts.append(paint(identity_from_seed(TEST_SEEDS[k]), bank[rows]))
    wide = [material(k, 1, TEST_SEEDS, bank) for k in range(characters)]
    out = {}
    for label, group in (("performances", parts), ("wide", wide)):
        true = torch.cat([p.read[0] for p in group]).numpy()
        frames = [p.frames[0].float() / 127.5 - 1.0 for p in group]  # the last is the reference
        clean = torch.cat([readout(x[:-1], x[-1:]) for x in frames]).numpy()
        out[label] = errors(clean, true)
        if label == "performances":
            rng = np.random.default_rng(0)
            rough = torch.cat([readout(disturb(x[:-1], rng), x[-1:]) for x in frames]).numpy()
            out["disturbed"] = errors(rough, true)
    return out


def export(run: Path, path: Path | None = None) -> dict:
    """Measure the run's averaged weights, write them and their card; returns the card."""
    saved = torch.load(run / "state.pt", weights_only=True)
    readout = Readout()
    readout.load_state_dict(saved["average"])
    readout.eval().requires_grad_(False)
    places = saved["places"]
    began = {"began": _lineage(read_card(default_path()))} if places else {}
    frames = FIRST * FRESH + math.ceil(saved["step"] / (PLACES_EVERY if places else 1)) * FRESH
    card = {
        "command": f"flowact eval readout --run RUN --steps {saved['step']} --seed {saved['seed']}"
        f"{' --places' if places else ''}; flowact eval readout --run RUN --export",
        **began,
        "steps": saved["step"],
        "seed": saved["seed"],
        "minutes": round(saved["spent"] / 60, 1),
        "learned_from": f"{frames} frames, characters {LEARN_SEEDS.start} and up",
        "tested_on": f"characters {TEST_SEEDS.start} to {TEST_SEEDS.stop - 1}",
        "errors": tested(readout),
    }
    save_weights(
        path or default_path(), readout, kind="rig_readout", config=CONFIG, card=card, dtype=torch.float16
    )
    return card


def _lineage(card: dict) -> dict:
    """What the weights that a run of places begins with learned."""
    return {key: card[key] for key in ("began", "command", "steps", "seed", "minutes", "learned_from") if key in card}
