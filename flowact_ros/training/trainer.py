# SPDX-License-Identifier: Apache-2.0
"""One training loop for every stage: resumable in short slices, EMA, CSV log, sample sheets.

The trainer knows neither chunks nor roles; a `Method` (one file each under `stages/`) draws batches and turns them
into a loss. A run folder holds `state.pt` (all that is needed to go on), `log.csv` and `sheets/`.
"""

from __future__ import annotations

import csv
import math
import pickle
import signal
import time
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flowact_ros.training.muon import Muon

OPTIMIZERS = {"muon": Muon, "adamw": torch.optim.AdamW}


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

    def refresh(self, ema: dict[str, Tensor], iteration: int, generator: torch.Generator) -> None:
        """Called before each step; makes the material anew where it is due."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    run: Path
    steps: int
    learning_rate: float
    warmup: int = 200
    floor: float = 0.05  # the cosine ends at this share of the learning rate
    cooldown: float = 1.0  # share of the steps, the last ones, over which the rate falls from its constant value
    optimizer: str = "muon"  # or "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    skip_above: float = math.inf  # a step whose gradient is longer is left out
    ema: float = 0.995
    minutes: float = math.inf  # stop after this slice, to be resumed later
    log_every: int = 25
    sheet_every: int = 500
    save_every: int = 250
    seed: int = 0
    bf16: bool = True
    about: dict[str, Any] = field(
        default_factory=dict
    )  # of this slice, for the card: its material, its batch
    device: str = "cpu"  # where the module and its batches go; batches are drawn on the CPU


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


class Trainer:
    def __init__(self, method: Method, config: TrainerConfig) -> None:
        self.method, self.config = method, config
        module = method.module.to(config.device)
        self.optimizer = OPTIMIZERS[config.optimizer](
            module.parameters(), config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        self.ema = {name: t.detach().clone() for name, t in module.state_dict().items()}
        self.iteration = 0
        self.seconds = 0.0
        self.slices: list[dict[str, Any]] = []  # what was trained on what, for the card
        self.warm_from = 0  # the step from which the learning rate was last warmed up
        config.run.mkdir(parents=True, exist_ok=True)
        if (config.run / "state.pt").exists():
            self._resume()

    @property
    def fresh(self) -> bool:
        """Nothing was trained or taken over in this run folder yet."""
        return self.iteration == 0

    def take_over(self, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
        """Go on from exported weights and their card: steps are counted on, the learning rate warms up again."""
        self.method.module.load_state_dict(weights)
        self.ema = {name: t.detach().clone() for name, t in self.method.module.state_dict().items()}
        self.iteration = self.warm_from = int(card["steps"])
        self.seconds, self.slices = float(card["train_seconds"]), list(card["slices"])

    def _resume(self) -> None:
        """Raises ValueError for a damaged file, RuntimeError for another network's."""
        state = read_state(
            self.config.run / "state.pt", {"module", "optimizer", "ema", "iteration", "seconds"}
        )
        self.method.module.load_state_dict(state["module"])
        if state["optimizer"] is not None:  # None: weights taken over from elsewhere
            self.optimizer.load_state_dict(state["optimizer"])
        self.ema = moved(state["ema"], torch.device(self.config.device))
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.slices, self.warm_from = state.get("slices", []), state.get("warm_from", 0)
        if isinstance(self.method, Refreshing) and "method" in state:  # older runs have none
            self.method.load_state_dict(state["method"])

    def save(self) -> None:
        partial = self.config.run / "state.partial"
        torch.save(
            {
                "module": self.method.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema,
                "iteration": self.iteration,
                "seconds": self.seconds,
                "slices": self.slices,
                "warm_from": self.warm_from,
                **({"method": self.method.state_dict()} if isinstance(self.method, Refreshing) else {}),
            },
            partial,
        )
        partial.replace(self.config.run / "state.pt")

    def learning_rate(self) -> float:
        config, i = self.config, self.iteration
        warm = min(1.0, (i - self.warm_from + 1) / config.warmup) if config.warmup else 1.0
        fall = config.cooldown * (config.steps - config.warmup)
        progress = min(1.0, max(0.0, 1 - (config.steps - i) / max(1.0, fall)))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return config.learning_rate * warm * (config.floor + (1 - config.floor) * cosine)

    def run(self) -> None:
        """Train until `steps` are done or the slice of `minutes` is over, then save."""
        config, method = self.config, self.method
        began, last = time.monotonic(), time.monotonic()
        now = {"learning_rate": config.learning_rate, "optimizer": config.optimizer, **config.about}
        self.slices.append({"first_step": self.iteration, "steps": 0, **now})
        seen: dict[str, list[float]] = {}  # values since the last row of the log; a step need not return all of them
        device = next(method.module.parameters()).device
        stopped = []  # a polite stop (SIGTERM) ends the slice and saves
        previous = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        while (
            not stopped and self.iteration < config.steps and time.monotonic() - began < 60 * config.minutes
        ):
            # the generator depends on the iteration only: a resumed run draws what an unbroken one would
            seed = config.seed * 1_000_003 + self.iteration
            generator = torch.Generator().manual_seed(seed)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate()
            precision = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
            if isinstance(method, Refreshing):
                with precision:
                    method.refresh(self.ema, self.iteration, torch.Generator().manual_seed(seed))
            batch = moved(method.batch(generator, self.iteration), device)
            with precision:
                losses = method.step(batch, self.iteration)
            losses["loss"].backward()
            norm = nn.utils.clip_grad_norm_(method.module.parameters(), config.clip)
            if float(norm) <= config.skip_above:  # false for NaN, too
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._update_ema()
            self.iteration += 1
            self.slices[-1]["steps"] += 1
            for name, value in {**losses, "grad_norm": norm}.items():
                seen.setdefault(name, []).append(float(value.detach()))
            if self.iteration % config.log_every == 0:
                now = time.monotonic()
                self.seconds += now - last
                row = {"step": self.iteration, "lr": self.learning_rate(), "seconds": round(self.seconds, 1)}
                row |= {name: sum(values) / len(values) for name, values in seen.items()}
                self._log("log.csv", row)
                seen, last = {}, now
            if self.iteration % config.save_every == 0:
                self.save()
            if self.iteration % config.sheet_every == 0:
                self.evaluate()
        signal.signal(signal.SIGTERM, previous)
        self.save()

    def _update_ema(self) -> None:
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.method.module.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def evaluate(self) -> dict[str, float]:
        """Write a sample sheet with the EMA weights in place; log its figures."""
        module = self.method.module
        own = {name: t.detach().clone() for name, t in module.state_dict().items()}
        module.load_state_dict(self.ema)
        module.eval()
        try:
            sheets = self.config.run / "sheets"
            sheets.mkdir(exist_ok=True)
            with torch.no_grad():
                figures = self.method.sheet(module, sheets / f"{self.iteration:07d}.png")
        finally:
            module.load_state_dict(own)
            module.train()
        self._log("eval.csv", {"step": self.iteration, **figures})
        return figures

    def _log(self, name: str, row: dict[str, float]) -> None:
        path = self.config.run / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print("  ".join(f"{k} {v:.5g}" for k, v in row.items()), flush=True)


def read_state(path: Path, needed: set[str]) -> dict[str, Any]:
    """What `Trainer.save` wrote. Raises ValueError, one line, for a file that is damaged or lacks what is `needed`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from None
    if not isinstance(state, dict) or not needed <= state.keys():
        raise ValueError(f"{path} is no state of a training run; it must hold {', '.join(sorted(needed))}")
    return state
