# SPDX-License-Identifier: Apache-2.0
"""Weights of both directions of the codec: what a run begins with, where it ends, and which codec it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from flowact_ros.models.checkpoint import load_weights, save_weights, weights_dir
from flowact_ros.models.codec.motion_encoder import KIND, Codec
from flowact_ros.models.config import PRESETS, ModelConfig
from flowact_ros.training.activations import activations
from flowact_ros.training.export import run_card
from flowact_ros.training.lineage import card_stages, run_stages, run_state

STAGE = "codec"
ENCODER = "motion_encoder.safetensors"


def load_codec(source: str, config: ModelConfig, option: str = "--init") -> tuple[Codec, list[dict[str, Any]]]:
    """The codec of a preset as it is in the package, of a folder that `export-codec` wrote, or of a run of this stage,
    and the stages that it went through. option: of the command line, that named it.

    Raises ValueError, CheckpointError, one line, for what is none, or is of another stage or preset.
    """
    codec = Codec(config.renderer)
    if source in PRESETS and source != config.name:
        raise ValueError(f"{option} is {source}, and --preset {config.name}; both must be of one preset")
    folder = weights_dir() / source if source in PRESETS else Path(source)
    if (folder / "state.pt").is_file():
        state = run_state(folder)
        if state.get("stage") != STAGE:
            raise ValueError(f"{folder} holds a run of {state.get('stage') or 'another stage'}, not of {STAGE}")
        try:
            codec.load_state_dict(state["ema"])
        except RuntimeError:
            raise ValueError(f"{folder} was trained for other sizes than those of --preset {config.name}") from None
        return codec, run_stages(state, STAGE)
    if not (folder / "renderer.safetensors").is_file():
        raise ValueError(f"{option} {folder} holds no codec: neither state.pt of a run nor renderer.safetensors")
    card = load_weights(folder / "renderer.safetensors", codec.renderer, kind="renderer", config=config.renderer)
    if (folder / ENCODER).is_file():
        load_weights(folder / ENCODER, codec.motion, kind=KIND, config=config.renderer)
    else:
        print(f"{folder} has no {ENCODER}: motion is read as a reference's is, until the encoder is trained")
    return codec, card_stages(card)


def export_codec(config: ModelConfig, run: Path, out: Path | None = None) -> list[Path]:
    """Write `renderer.safetensors` and `motion_encoder.safetensors` from a run's running mean; returns their paths."""
    if run_state(run).get("stage") != STAGE:
        raise ValueError(f"{run} holds no run of {STAGE}; `flowact train {STAGE}` makes one")
    card, ema = run_card(run, f"flowact train {STAGE} --init {config.name} --data FOOTAGE --run RUN", STAGE)
    codec = Codec(config.renderer)
    codec.load_state_dict(ema)
    folder = out or weights_dir() / config.name
    paths = [folder / ENCODER]
    parts = [(codec.motion, KIND, card)]
    if not any(slice_.get("footage") for slice_ in card["slices"]):  # the renderer is as it was
        card["command"] = f"flowact train {STAGE} --init {config.name} --run RUN"
    else:
        paths.append(folder / "renderer.safetensors")
        parts.append((codec.renderer, "renderer", {**card, "activations": activations(codec.renderer)}))
    for path, (module, kind, about) in zip(paths, parts):
        save_weights(path, module, kind=kind, config=config.renderer, card=about, dtype=torch.float16)
    return paths


def codec_id(codec: Codec) -> str:
    """A short name of these very weights: motion that another codec read means another movement."""
    total = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        total.update(name.encode() + tensor.detach().float().contiguous().numpy().tobytes())
    return total.hexdigest()[:12]
