# SPDX-License-Identifier: Apache-2.0
"""The files of a run folder: the state, in one file or in shards, and rows of figures.

One process writes all into `state.pt`. Several write networks and optimisers as a distributed checkpoint beside it,
each its own shards; `state.pt` names that folder, and holds the rest and the whole running mean, which exports read.
A file or folder appears under its name only when it is complete.
"""

from __future__ import annotations

import csv
import pickle
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.training.world import World, whole

STATE = "state.pt"
OWN = "module"  # among networks: the one that the run is about
Networks = dict[str, tuple[nn.Module, torch.optim.Optimizer | None]]  # by role; None: it is not trained


def write_file(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def read_state(path: Path, needed: set[str]) -> dict[str, Any]:
    """What `write_file` wrote. Raises ValueError, one line, for a file that is damaged or lacks what is `needed`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from None
    if not isinstance(state, dict) or not needed <= state.keys():
        raise ValueError(f"{path} is no state of a training run; it must hold {', '.join(sorted(needed))}")
    return state


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row to a table whose columns are those of its first row, and print it."""
    header = list(row)
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), header)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=header, extrasaction="ignore")
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)
    print("  ".join(f"{k} {v:.5g}" for k, v in row.items()), flush=True)


def save(run: Path, networks: Networks, rest: dict[str, Any], world: World) -> None:
    """Write a run's networks, their optimisers and the `rest` of its state, which holds the running mean "ema"."""
    if world.size > 1:
        _save_shards(run, f"shards-{rest['iteration']}", networks, rest, world)
        return
    module, optimizer = networks[OWN]
    others = {name: both for name, both in networks.items() if name != OWN}
    own = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer else None,
        "roles": {name: role.state_dict() for name, (role, _) in others.items()},
        "optimizers": {name: o.state_dict() for name, (_, o) in others.items() if o},
    }
    write_file(run / STATE, {**own, **rest})


def load(run: Path, state: dict[str, Any], networks: Networks, world: World) -> None:
    """Load networks and optimisers that `save` wrote. Raises ValueError if they are missing, RuntimeError if others."""
    if "shards" in state:
        _load_shards(run / state["shards"], networks)
        return
    if world.size > 1:
        raise ValueError(f"{run} was trained by one process; go on with one")
    if not {"module", "optimizer"} <= state.keys():
        raise ValueError(f"{run / STATE} holds neither networks nor where they are")
    for name, (module, optimizer) in networks.items():
        own = name == OWN
        module.load_state_dict(state["module"] if own else state["roles"][name])
        found = state["optimizer"] if own else state.get("optimizers", {}).get(name)
        if optimizer is not None and found is not None:  # None: weights taken over from elsewhere
            optimizer.load_state_dict(found)


def _save_shards(run: Path, name: str, networks: Networks, rest: dict[str, Any], world: World) -> None:
    """Write networks and optimisers into the folder `name`, each process its shards, and then `rest`."""
    import torch.distributed.checkpoint as dcp

    if world.first:
        shutil.rmtree(run / name, ignore_errors=True)
    world.wait()
    dcp.save({"modules": _modules(networks), "optimizers": _optimizers(networks)}, checkpoint_id=run / name)
    rest = {**rest, "ema": whole(rest["ema"]), "shards": name}
    if world.first:
        write_file(run / STATE, rest)
        for old in run.glob("shards-*"):
            if old.name != name:
                shutil.rmtree(old)


def _load_shards(folder: Path, networks: Networks) -> None:
    """Load what any number of processes wrote. Raises ValueError if it is not there."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    if not (folder / ".metadata").is_file():
        raise ValueError(f"{folder} is no distributed checkpoint: it has no .metadata")
    modules, optimizers = _modules(networks), _optimizers(networks)
    dcp.load({"modules": modules}, checkpoint_id=folder)
    # A parameter that never had a gradient has no moments in the checkpoint, and keeps the zeros of a new optimiser.
    partial = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"optimizers": optimizers}, checkpoint_id=folder, planner=partial)
    for name, (module, optimizer) in networks.items():
        set_model_state_dict(module, modules[name])
        if optimizer is not None:
            set_optimizer_state_dict(module, optimizer, optimizers[name])


def _modules(networks: Networks) -> dict[str, Any]:
    """Shards by the names of parameters, which do not depend on how many processes there are."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return {name: get_model_state_dict(module) for name, (module, _) in networks.items()}


def _optimizers(networks: Networks) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return {name: get_optimizer_state_dict(module, o) for name, (module, o) in networks.items() if o}


def plain(batch: Any) -> Any:
    """A batch as dicts, lists and tensors, which a file of weights may hold."""
    if isinstance(batch, Tensor):
        return batch.detach().cpu()
    if is_dataclass(batch):
        return {field.name: plain(getattr(batch, field.name)) for field in fields(batch)}
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    return [plain(value) for value in batch] if isinstance(batch, (tuple, list)) else batch


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}
