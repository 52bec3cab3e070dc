# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: bf16 safetensors, with a JSON card beside them that says what they are and how they were made.

A checkpoint is refused, with one line, when it is truncated, of another kind, of other sizes, or when a tensor is
missing or has another shape: a picture of mush is worse than no picture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SHARD_BYTES = 15_000_000  # larger weights are cut into several files, which version control and reviews bear better


class CheckpointError(RuntimeError):
    """Weights are missing, damaged, or belong to something else."""


def weights_dir() -> Path:
    """Directory of the weights shipped with the package."""
    return Path(__file__).resolve().parent.parent / "weights"


def _plain(config: Any) -> Any:
    """A config as JSON would give it back, so that tuples equal lists."""
    return json.loads(json.dumps(asdict(config) if is_dataclass(config) else config))


def save_weights(
    path: Path | str,
    module: nn.Module,
    *,
    kind: str,
    config: Any,
    card: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write `path` (safetensors, floating tensors as `dtype`, cut into shards) and its card beside it (.json).

    kind:   what the weights are for, e.g. "denoiser", "renderer", "audio_encoder"
    config: dataclass or dict of sizes that a loader must agree with
    card:   command, data seed, commit, steps, metrics: what a reader needs to make them again
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (t.to(dtype) if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in module.state_dict().items()
    }
    shards = _shards(tensors)
    names = [path.name, *(f"{path.stem}.{i}.safetensors" for i in range(1, len(shards)))]
    for name, shard in zip(names, shards):
        partial = path.with_name(name + ".partial")
        save_file(shard, str(partial), metadata={"kind": kind})
        partial.chmod(0o644)  # safetensors makes files that only their owner may read
        partial.replace(path.with_name(name))
    parameters = sum(t.numel() for t in tensors.values())
    record = {"kind": kind, "config": _plain(config), "parameters": parameters, "shards": names, **card}
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors in order, cut into pieces of at most `SHARD_BYTES` (a single larger tensor stays whole)."""
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= size
    return shards


def read_card(path: Path | str) -> dict[str, Any]:
    """The JSON card beside the weights at `path`. Raises CheckpointError if there is none or it is no JSON object."""
    card_path = Path(path).with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{card_path} is missing: weights come with a JSON card beside them") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{card_path} is not valid JSON ({error}); restore it from the repository") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"{card_path} holds no JSON object; restore it from the repository")
    return card


def shard_paths(path: Path | str, card: dict[str, Any]) -> list[Path]:
    """The files that together hold the weights at `path`, as `card` lists them; `path` alone if it lists none.

    Raises CheckpointError when the list is no list of names. Whether the files are there is not looked at.
    """
    path = Path(path)
    names = card.get("shards") or [path.name]
    if not (isinstance(names, list) and all(isinstance(name, str) and Path(name).name for name in names)):
        raise CheckpointError(f"the card of {path.name} lists shards {names!r}; a list of file names is needed")
    return [path.with_name(Path(name).name) for name in names]


def load_weights(path: Path | str, module: nn.Module, *, kind: str, config: Any) -> dict[str, Any]:
    """Load `path` into `module` (which keeps its own dtype) and return the card.

    Raises CheckpointError when the file is missing or truncated, or when kind, config, names or shapes disagree.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights {path} are missing: train them or restore the file from the repository")
    card = read_card(path)
    if card.get("kind") != kind:
        raise CheckpointError(f"{path.name} holds {card.get('kind')!r} weights; {kind!r} is needed here")
    wanted, found = _plain(config), card.get("config")
    if wanted != found:
        differing = [k for k in wanted if not isinstance(found, dict) or wanted[k] != found.get(k)]
        key = differing[0] if differing else "config"
        got = found.get(key) if isinstance(found, dict) else found
        raise CheckpointError(f"{path.name} was made for {key} = {got!r}; this preset has {wanted.get(key)!r}")
    tensors: dict[str, Tensor] = {}
    for shard in shard_paths(path, card):
        try:
            tensors |= load_file(str(shard))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard.name} is damaged or truncated ({error}); restore it") from None
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise CheckpointError(f"{path.name} lacks tensor {name}; it was made by another version")
        if tuple(tensors[name].shape) != tuple(tensor.shape):
            found = tuple(tensors[name].shape)
            raise CheckpointError(f"{path.name}: {name} is {found}, expected {tuple(tensor.shape)}")
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise CheckpointError(f"{path.name} has an unknown tensor {extra[0]}; it was made by another version")
    module.load_state_dict({name: tensors[name].to(own[name].dtype) for name in own})
    return card
