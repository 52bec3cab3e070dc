# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: bf16 safetensors, with a JSON card beside them that says what they are and how they were made.

A checkpoint is refused, with one line, when it is truncated, of another kind, of other sizes, or when a tensor is
missing or has another shape: a picture of mush is worse than no picture.

Large networks are made on torch's meta device and get their tensors one by one, from the files to where they are to
compute (`load_onto`): neither random weights nor a second copy are ever held. The card is the index of the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SHARD_BYTES = 15_000_000  # larger weights are cut into several files, which version control and reviews bear better
LARGE_BYTES = 1_000_000_000  # of all weights: more do not go into version control, and are cut into files of
LARGE_SHARD_BYTES = 4_000_000_000  # at most this size, so that saving needs no more memory than one of them

RANDOM = "random"  # in place of a folder of weights: for speed runs and tests, the picture is noise


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
    tensors = module.state_dict()
    shards = _shards(tensors, dtype)
    names = [path.name, *(f"{path.stem}.{i}.safetensors" for i in range(1, len(shards)))]
    for name, shard in zip(names, shards):
        partial = path.with_name(name + ".partial")
        save_file(
            {key: tensors[key].detach().to("cpu", _kept(tensors[key], dtype)).contiguous() for key in shard},
            str(partial), metadata={"kind": kind},
        )  # fmt: skip
        partial.chmod(0o644)  # safetensors makes files that only their owner may read
        partial.replace(path.with_name(name))
    parameters = sum(t.numel() for t in tensors.values())
    record = {"kind": kind, "config": _plain(config), "parameters": parameters, "shards": names, **card}
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _kept(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """What a tensor becomes under `dtype`: whole numbers stay, and all do under None."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _shards(tensors: dict[str, Tensor], dtype: torch.dtype) -> list[list[str]]:
    """Names in order, cut where a file would hold more than it may (a single larger tensor stays whole)."""
    sizes = {name: tensor.numel() * _kept(tensor, dtype).itemsize for name, tensor in tensors.items()}
    most = SHARD_BYTES if sum(sizes.values()) < LARGE_BYTES else LARGE_SHARD_BYTES
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
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
    card = checked_card(path, kind=kind, config=config)
    tensors: dict[str, Tensor] = {}
    for shard in shard_paths(path, card):
        try:
            tensors |= load_file(str(shard))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard.name} is damaged or truncated ({error}); restore it") from None
    own = module.state_dict()
    for name, tensor in tensors.items():
        _check_tensor(path, name, tuple(tensor.shape), own)
    _check_all(path, own, tensors)
    module.load_state_dict({name: tensors[name].to(own[name].dtype) for name in own})
    return card


def checked_card(path: Path, *, kind: str, config: Any) -> dict[str, Any]:
    """The card of the weights at `path`. Raises CheckpointError where they are missing, of another kind or size."""
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
    return card


def _check_tensor(path: Path, name: str, shape: tuple[int, ...], own: dict[str, Tensor]) -> None:
    if name not in own:
        raise CheckpointError(f"{path.name} has an unknown tensor {name}; it was made by another version")
    if shape != tuple(own[name].shape):
        raise CheckpointError(f"{path.name}: {name} is {shape}, expected {tuple(own[name].shape)}")


def _check_all(path: Path, own: dict[str, Tensor], found: Any) -> None:
    for name in own:
        if name not in found:
            raise CheckpointError(f"{path.name} lacks tensor {name}; it was made by another version")


def load_onto(
    path: Path | str, module: nn.Module, *, kind: str, config: Any, device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Give a module that was made on the meta device its weights from `path`, on `device`; returns the card.

    A file is read tensor by tensor, so that besides the network itself never more than one of them is held. dtype: of
    floating tensors, None: as in the module. Constants that no file holds must have been made on the CPU.
    Raises CheckpointError as `load_weights`.
    """
    path = Path(path)
    card = checked_card(path, kind=kind, config=config)
    own = module.state_dict()
    found: set[str] = set()
    for shard in shard_paths(path, card):
        for name, tensor in _read(shard, device):
            _check_tensor(path, name, tuple(tensor.shape), own)
            # A copy even of what is on the CPU: there it is a view of the file, which may lie across vectors' borders.
            _put(module, name, torch.empty_like(own[name], dtype=_kept(own[name], dtype), device=device).copy_(tensor))
            found.add(name)
    _check_all(path, own, found)
    module.to(device)  # the constants
    return card


def _read(shard: Path, device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(str(shard), framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shard.name} is damaged or truncated ({error}); restore it") from None


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """In place of the parameter or buffer of that name."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor


def fill_random(
    module: nn.Module, *, device: torch.device | str, dtype: torch.dtype | None = None, seed: int = 0
) -> None:
    """Give a module that was made on the meta device random weights, on `device`; dtype: as in `load_onto`.

    Matrices and kernels keep the size of what goes through them, whatever they begin training with: a network of
    zeros would ignore its inputs. Biases and means are 0, scales and deviations 1.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for name, own in module.state_dict().items():
        as_wanted = {"device": device, "dtype": _kept(own, dtype)}
        if own.ndim >= 2:
            tensor = torch.randn(own.shape, generator=generator, **as_wanted) / own[0].numel() ** 0.5
        elif name.endswith(("bias", "_mean")):
            tensor = torch.zeros(own.shape, **as_wanted)
        else:
            tensor = torch.ones(own.shape, **as_wanted)
        _put(module, name, tensor)
    module.to(device)  # the constants, which are made on the CPU
