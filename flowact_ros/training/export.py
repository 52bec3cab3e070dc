# SPDX-License-Identifier: Apache-2.0
"""From a run folder to shipped weights: EMA, float16, a card with all it takes to make them again."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

import torch

from flowact_ros.models.checkpoint import save_weights, weights_dir
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.training.trainer import read_state


def commit_id() -> str:
    """The commit of the sources, or "unknown" outside a git checkout."""
    here = Path(__file__).resolve().parent
    result = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def run_card(run: Path, command: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a card says of a run, and the run's EMA weights."""
    state = read_state(run / "state.pt", {"ema", "iteration", "seconds", "slices"})
    metrics: dict[str, float] = {}
    if (run / "eval.csv").exists():
        with (run / "eval.csv").open(encoding="utf-8") as file:
            metrics = {k: float(v) for k, v in list(csv.DictReader(file))[-1].items()}
    card = {
        "command": command,
        "commit": commit_id(),
        "steps": state["iteration"],
        "train_seconds": round(state["seconds"]),
        "slices": state["slices"],
        "metrics": metrics,
        "licence": "Apache-2.0",
    }
    return card, state["ema"]


def export_denoiser(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Write `denoiser.safetensors` of `config` from `run`; returns its path."""
    command = f"flowact train motion --data DATA --heldout HELDOUT --run RUN --preset {config.name}"
    card, ema = run_card(run, command)
    module = DiT(config)
    module.load_state_dict(ema)
    path = (out or weights_dir() / config.name) / "denoiser.safetensors"
    save_weights(path, module, kind=KIND, config=config.denoiser_contract(), card=card, dtype=torch.float16)
    return path


def export_renderer(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Write `renderer.safetensors` of `config` from `run`; returns its path."""
    card, ema = run_card(run, f"flowact train renderer --run RUN --preset {config.name}")
    module = Renderer(config.renderer)
    module.load_state_dict(ema)
    path = (out or weights_dir() / config.name) / "renderer.safetensors"
    save_weights(path, module, kind="renderer", config=config.renderer, card=card, dtype=torch.float16)
    return path
