# SPDX-License-Identifier: Apache-2.0
"""From a run folder to shipped weights: EMA, float16, a card with all it takes to make them again."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch

from flowact_ros.models.checkpoint import save_weights, weights_dir
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import ModelConfig, video_of
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.training.activations import activations
from flowact_ros.training.lineage import FIRST, FOOTAGE, commit_id, run_stages, run_state, sampled
from flowact_ros.training.stages.renderer import take_painters
from flowact_ros.training.stages.vae import normalised


def run_card(run: Path, command: str, stage: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a card says of a run, and the run's EMA weights, which are the chosen ones where its stage chooses.

    stage: its name in runs that tell none
    """
    state = run_state(run)
    metrics: dict[str, float] = {}
    if (run / "eval.csv").exists():
        with (run / "eval.csv").open(encoding="utf-8") as file:
            rows = [
                {k: float(v) for k, v in row.items() if v and math.isfinite(float(v))}
                for row in csv.DictReader(file)
            ]
        metrics = next((row for row in reversed(rows) if row["step"] == state["iteration"]), rows[-1])
    card = {
        "command": command,
        "commit": commit_id(),
        "steps": state["iteration"],
        "train_seconds": round(state["seconds"]),
        "slices": state["slices"],
        "stages": run_stages(state, stage),
        "metrics": metrics,
        "licence": "Apache-2.0",
    }
    return card, state["ema"]


def export_denoiser(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Write `denoiser.safetensors` of `config` from `run`; returns its path."""
    command = f"flowact train motion --data DATA --heldout HELDOUT --run RUN --preset {config.name}"
    card, ema = run_card(run, command, FIRST)
    names = [stage["name"] for stage in card["stages"]]
    if names[-1] == FOOTAGE:
        card["command"] = "flowact train adapt --init INIT --codec CODEC --data FOOTAGE --run RUN"
    elif names[-1] != FIRST:
        card["command"] = f"flowact train distill --phase {names[-1]} --data DATA --heldout HELDOUT --run RUN"
    card["schedule"] = sampled(names[-1], card["slices"][-1])
    module = DiT(config)
    module.load_state_dict(ema)
    path = (out or weights_dir() / config.name) / "denoiser.safetensors"
    save_weights(path, module, kind=KIND, config=config.denoiser_contract(), card=card, dtype=torch.float16)
    return path


def export_renderer(
    config: ModelConfig, run: Path, out: Path | None = None, painters: Path | None = None
) -> Path:
    """Write `renderer.safetensors` of `config` from `run`; returns its path.

    painters: the run that trained the painters of mouth and eyes, if it was another; its slices are in the card, too
    """
    command = f"flowact train renderer --run RUN --preset {config.name}"
    card, ema = run_card(run, command, "renderer")
    module = Renderer(config.renderer)
    module.load_state_dict(ema)
    if painters is not None:
        take_painters(module, painters)
        other, _ = run_card(painters, f"{command} --parts faces", "renderer")
        card["painters"] = {
            key: other[key] for key in ("command", "steps", "train_seconds", "slices", "metrics")
        }
    card["activations"] = activations(module)
    path = (out or weights_dir() / config.name) / "renderer.safetensors"
    save_weights(path, module, kind="renderer", config=config.renderer, card=card, dtype=torch.float16)
    return path


def export_vae(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Write `vae.safetensors` of `config` from `run`, its latents' mean and deviation measured; returns its path.

    Raises ConfigError for a preset without one.
    """
    video = video_of(config)
    card, ema = run_card(run, f"flowact train vae --run RUN --preset {config.name}", "vae")
    vae = VideoVAE(video.vae)
    vae.load_state_dict(ema)
    path = (out or weights_dir() / config.name) / "vae.safetensors"
    save_weights(path, normalised(vae, video), kind="vae", config=video, card=card, dtype=torch.float16)
    return path
