# SPDX-License-Identifier: Apache-2.0
"""From a run folder to shipped weights: EMA, bf16, a card with all it takes to make them again."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flowact_ros.data.store import read_clips
from flowact_ros.models.checkpoint import load_weights, save_weights, weights_dir
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.mmdit import MMDiT
from flowact_ros.models.vae import VAE
from flowact_ros.training.methods.vae import load_grown, measure_latents
from flowact_ros.training.trainer import read_state


def commit_id() -> str:
    """The commit of the sources, or "unknown" outside a git checkout."""
    here = Path(__file__).resolve().parent
    result = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def run_card(run: Path, command: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a card says of a run, and the run's EMA weights."""
    state = read_state(run / "state.pt", {"ema", "iteration", "seconds"})
    metrics: dict[str, float] = {}
    if (run / "eval.csv").exists():
        with (run / "eval.csv").open(encoding="utf-8") as file:
            metrics = {k: float(v) for k, v in list(csv.DictReader(file))[-1].items()}
    card = {
        "command": command,
        "commit": commit_id(),
        "data_seed": 0,
        "steps": state["iteration"],
        "train_seconds": round(state["seconds"]),
        "metrics": metrics,
        "licence": "Apache-2.0",
    }
    return card, state["ema"]


def export_vae(config: ModelConfig, run: Path, data: Sequence[Path], out: Path | None = None) -> Path:
    """Write `vae.safetensors` of `config` from `run`; the latent statistics are measured on `data` in bf16 weights."""
    card, ema = run_card(run, f"flowact train vae --data DATA --heldout HELDOUT --run RUN --preset {config.name}")
    module = VAE(config.vae)
    module.load_state_dict(ema)
    module.eval()
    # measured with what will be loaded
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16().float()
    measure_latents(module, read_clips(*data)[::5][:160])
    path = (out or weights_dir() / config.name) / "vae.safetensors"
    save_weights(path, module, kind="vae", config=config.vae, card=card)
    return path


def export_decoder(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Replace the decoder of the shipped VAE by the one of `run`; encoder and latent statistics stay to the bit."""
    return _continue_vae(config, run, out, "decoder", ("decoder.",))


def export_refined(config: ModelConfig, run: Path, out: Path | None = None) -> Path:
    """Replace all parts of the shipped VAE by those of `run`; the latent statistics stay as the anchor had them."""
    return _continue_vae(config, run, out, "refine", ("encoder.", "decoder.", "corrector."))


def _continue_vae(config: ModelConfig, run: Path, out: Path | None, stage: str, parts: tuple[str, ...]) -> Path:
    path = (out or weights_dir() / config.name) / "vae.safetensors"
    module = VAE(config.vae)
    _, before = load_grown(path, module)
    card, ema = run_card(run, f"flowact train {stage} --data DATA --heldout HELDOUT --run RUN --preset {config.name}")
    module.load_state_dict({**module.state_dict(), **{k: v for k, v in ema.items() if k.startswith(parts)}})
    earlier = {k: v for k, v in before.items() if k not in ("kind", "config", "parameters")}
    save_weights(path, module, kind="vae", config=config.vae, card={**card, "continues": earlier})
    return path


def export_denoiser(
    config: ModelConfig, run: Path, stage: str = "stage1", out: Path | None = None, *, share: float = 1.0
) -> Path:
    """Write `mmdit.safetensors` of `config` from `run`; the card keeps that of the weights a stage went on from.

    share: of the run's weights in what is written, the rest being those it went on from (weights interpolated after
    fine-tuning: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
    Raises ValueError for a share outside 0 (exclusive) to 1, or below 1 where nothing was gone on from.
    """
    if not 0 < share <= 1 or (stage == "stage1" and share < 1):
        raise ValueError(f"share is {share:g}; it must lie in 0 (exclusive) to 1, and be 1 for stage1")
    card, ema = run_card(run, f"flowact train {stage} --data DATA --heldout HELDOUT --run RUN --preset {config.name}")
    module = MMDiT(config)
    path = (out or weights_dir() / config.name) / "mmdit.safetensors"
    if stage != "stage1":
        before = load_weights(path, module, kind="mmdit", config=config.denoiser_contract())
        card["share"] = share
        card["continues"] = {k: v for k, v in before.items() if k not in ("kind", "config", "parameters")}
    old = module.state_dict()
    module.load_state_dict({name: torch.lerp(old[name].float(), ema[name].float(), share) for name in old})
    save_weights(path, module, kind="mmdit", config=config.denoiser_contract(), card=card)
    return path
