# SPDX-License-Identifier: Apache-2.0
"""What a training stage offers to the trainer: `Method`, and what only some of them have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Method(Protocol):
    """One training stage."""

    module: nn.Module  # what is trained

    def batch(self, generator: torch.Generator, iteration: int) -> Any: ...

    def step(self, batch: Any, iteration: int) -> dict[str, Tensor]:
        """Return at least "loss"; other entries are logged."""
        ...

    def sheet(self, module: nn.Module, path: Path) -> dict[str, float]:
        """Write a sample sheet of `module` (the EMA) to `path` and return figures to log beside it."""
        ...


@runtime_checkable
class Refreshing(Protocol):
    """A method with material that the model itself makes now and then, which is saved with the run."""

    def due(self, iteration: int) -> bool:
        """Whether the material is to be made anew before a step."""
        ...

    def refresh(self, ema: dict[str, Tensor], iteration: int, generator: torch.Generator) -> None:
        """Make it with the running mean of the weights."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Roles(Protocol):
    """A method with networks beside its own: frozen ones (a teacher) and ones that are trained in turns (a critic).

    roles: all of them by name, saved with the run; rates: the learning rates of the trained ones, in units of the run's
    """

    roles: dict[str, nn.Module]
    rates: dict[str, float]

    def turn(self, iteration: int) -> str | None:
        """The role that a step trains; None for the method's own module. Steps are those of optimisers."""
        ...


@runtime_checkable
class Judged(Protocol):
    """A method whose weights are chosen by the figures of its sheets, never by its loss."""

    patience: int  # judged sheets without a better one until the run ends

    def judge(self, figures: dict[str, float], iteration: int) -> float:
        """Less is better; infinity: nothing is to be chosen yet."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """A method whose parameters do not all learn at the same rate."""

    def groups(self) -> list[dict[str, Any]]:
        """Groups of the module's parameters as optimisers take them; `rate`: share of the learning rate."""
        ...
