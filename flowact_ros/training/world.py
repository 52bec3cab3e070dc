# SPDX-License-Identifier: Apache-2.0
"""Training in several processes that `torchrun` started: weights in shards (FSDP2), batches side by side.

    torchrun --nproc-per-node 8 -m flowact_ros.training.main motion --device cuda …

A step of n processes is the step of one process with `--accumulate n`: each draws its own part, and gradients are
averaged. One process needs nothing of this, and everything here is then the identity.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flowact_ros.training.checkpointing import blocks

if TYPE_CHECKING:  # importing it takes half a second, which one process need not spend
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class World:
    """rank: of this process among `size`; device: its own."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @staticmethod
    def join(device: str) -> World:
        """The world that torchrun describes in the environment, joined; a world of one without it.

        device: cpu or cuda, of which each process takes the one of its local rank
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return World(device=device)
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("gloo" if device == "cpu" else "nccl")
        return World(dist.get_rank(), dist.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this process writes logs and files."""
        return self.rank == 0

    def shard(self, module: nn.Module) -> None:
        """Leave to this process its share of the weights of each block, and of the rest."""
        if self.size == 1:
            return
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh(self.device.partition(":")[0], (self.size,))
        for block in blocks(module):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over all processes."""
        if self.size == 1:
            return values
        together = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(together)
        return dict(zip(values, (together / self.size).tolist()))

    def any(self, wanted: bool) -> bool:
        """Whether one process at least wants it: then all do the same."""
        return self.mean({"": float(wanted)})[""] > 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def leave() -> None:
    """Leave the world, where one was joined."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors put together from their shards; all processes must ask for them together."""
    return {name: t.full_tensor() if _sharded(t) else t for name, t in tensors.items()}


def load_whole(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a module that may be sharded. Raises RuntimeError for another network's."""
    module.load_state_dict(like(module.state_dict(), weights))


def like(template: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole `tensors` on the device of `template`, each cut into shards where that of `template` is."""
    out = {}
    for name, tensor in tensors.items():
        known = template.get(name, tensor)
        out[name] = tensor.to(known.device)
        if _sharded(known) and not _sharded(tensor):
            from torch.distributed.tensor import distribute_tensor

            out[name] = distribute_tensor(out[name], known.device_mesh, known.placements)
    return out


def _sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    return hasattr(tensor, "full_tensor")


def moved(batch: Any, device: torch.device) -> Any:
    """`batch` with every tensor in it on `device`; tuples, lists, dicts and dataclasses are gone through."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: moved(value, device) for key, value in batch.items()}
    if is_dataclass(batch):
        return replace(batch, **{f.name: moved(getattr(batch, f.name), device) for f in fields(batch)})
    if isinstance(batch, (tuple, list)):
        return type(batch)(moved(value, device) for value in batch)
    return batch
