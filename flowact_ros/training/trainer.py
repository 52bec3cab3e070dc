# SPDX-License-Identifier: Apache-2.0
"""One training loop for every stage: resumable in short slices, EMA, CSV log, sample sheets.

The trainer knows neither chunks nor roles; a `Method` (one file each under `stages/`) draws batches and turns them
into a loss. A run folder holds `state.pt` (all that is needed to go on), `log.csv` and `sheets/`.
"""

from __future__ import annotations

import math
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.training.checkpointing import checkpoint_blocks
from flowact_ros.training.method import Grouped, Judged, Method, Refreshing, Roles
from flowact_ros.training.muon import Muon
from flowact_ros.training.state_files import (
    OWN,
    STATE,
    Networks,
    append_row,
    copied,
    load,
    plain,
    read_state,
    save,
    write_file,
)
from flowact_ros.training.world import World, like, load_whole, moved, whole

CHOSEN = "chosen.pt"  # in the run folder: the running mean with the best figures, where a method judges them
OTHER_PART = 2**40  # between the seeds of the batches of one step
OPTIMIZERS = {"muon": Muon, "adamw": torch.optim.AdamW}


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
    stage: str = ""  # its name in the card; earlier: the stages of the weights that a new run begins with
    earlier: list[dict[str, Any]] = field(default_factory=list)
    accumulate: int = 1  # batches a step
    checkpoint_activations: bool = False  # compute them again on the way back; see `checkpointing`
    device: str = "cpu"  # where the module and its batches go; batches are drawn on the CPU


class Trainer:
    """See the module docstring. world: the processes that train together."""

    def __init__(self, method: Method, config: TrainerConfig, world: World = World()) -> None:
        self.method, self.config, self.world = method, config, world
        if world.size > 1 and config.optimizer != "adamw":
            raise ValueError(f"--optimizer is {config.optimizer}; several processes train with adamw")
        self.roles = method.roles if isinstance(method, Roles) else {}
        self.rates = method.rates if isinstance(method, Roles) else {}
        if config.checkpoint_activations:
            for network in (method.module, *(self.roles[name] for name in self.rates)):  # those that are trained
                checkpoint_blocks(network)
        for network in (method.module, *self.roles.values()):
            world.shard(network.to(config.device))
        self.optimizer = self._optimizer(method.module)
        self.optimizers = {name: self._optimizer(self.roles[name]) for name in self.rates}
        self.ema = copied(method.module.state_dict())
        self.iteration = 0
        self.seconds = self.core_seconds = 0.0
        self.stages = config.earlier
        self.best, self.worse = math.inf, 0  # of the sheets' figures, and how many sheets were no better since
        self.slices: list[dict[str, Any]] = []  # what was trained on what, for the card
        self.warm_from = 0  # the step from which the learning rate was last warmed up
        config.run.mkdir(parents=True, exist_ok=True)
        if (config.run / STATE).exists():
            self._resume()

    @property
    def _networks(self) -> Networks:
        others = {name: (role, self.optimizers.get(name)) for name, role in self.roles.items()}
        return {OWN: (self.method.module, self.optimizer), **others}

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        config, method = self.config, self.method
        grouped = isinstance(method, Grouped) and module is method.module
        parameters = method.groups() if grouped else module.parameters()
        return OPTIMIZERS[config.optimizer](
            parameters, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    @property
    def fresh(self) -> bool:
        """Nothing was trained or taken over in this run folder yet."""
        return self.iteration == 0

    def take_over(self, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
        """Go on from exported weights and their card: steps are counted on, the learning rate warms up again.

        Weights of another stage are what this stage begins with; its steps count from 0.
        """
        load_whole(self.method.module, weights)
        self.ema = copied(self.method.module.state_dict())
        stages = card.get("stages", [])
        if stages and stages[-1]["name"] != self.config.stage:
            self.stages = stages
            return
        self.iteration = self.warm_from = int(card["steps"])
        self.seconds, self.slices = float(card["train_seconds"]), list(card["slices"])
        self.core_seconds, self.stages = self.seconds, stages[:-1]

    def _resume(self) -> None:
        """Raises ValueError for a damaged file or another stage's, RuntimeError for another network's."""
        run = self.config.run
        state = read_state(run / STATE, {"ema", "iteration", "seconds"})
        stage = state.get("stage") or ("another stage" if self.roles else self.config.stage)  # older runs tell none
        if stage != self.config.stage:
            raise ValueError(f"{run} holds a run of {stage}, not of {self.config.stage}")
        load(run, state, self._networks, self.world)
        self.ema = like(self.method.module.state_dict(), state["ema"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.slices, self.warm_from = state.get("slices", []), state.get("warm_from", 0)
        self.core_seconds, self.stages = state.get("core_seconds", self.seconds), state.get("stages", [])
        self.best, self.worse = state.get("best", math.inf), state.get("worse", 0)
        if isinstance(self.method, Refreshing) and "method" in state:  # older runs have none
            self.method.load_state_dict(state["method"])

    def save(self) -> None:
        rest = {
            "ema": self.ema,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "slices": self.slices,
            "warm_from": self.warm_from,
            "core_seconds": self.core_seconds,
            "stage": self.config.stage,
            "stages": self.stages,
            "best": self.best,
            "worse": self.worse,
            **({"method": self.method.state_dict()} if isinstance(self.method, Refreshing) else {}),
        }
        save(self.config.run, self._networks, rest, self.world)

    def learning_rate(self) -> float:
        config, i = self.config, self.iteration
        warm = min(1.0, (i - self.warm_from + 1) / config.warmup) if config.warmup else 1.0
        fall = config.cooldown * (config.steps - config.warmup)
        progress = min(1.0, max(0.0, 1 - (config.steps - i) / max(1.0, fall)))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return config.learning_rate * warm * (config.floor + (1 - config.floor) * cosine)

    def run(self) -> None:
        """Train until `steps` are done, the slice of `minutes` is over or no sheet gets better, then save."""
        config, method = self.config, self.method
        began, last = time.monotonic(), time.monotonic()
        if self.iteration >= config.steps and self.world.first:  # weights taken over bring their steps with them
            print(f"{config.run}: {self.iteration} steps are done, --steps {config.steps} asks for no more")
        now = {"learning_rate": config.learning_rate, "optimizer": config.optimizer, **config.about}
        self.slices.append({"first_step": self.iteration, "steps": 0, **now})
        if isinstance(method, Judged) and self.fresh:
            self.evaluate()  # what training has to improve on
        seen: dict[str, list[float]] = {}  # values since the last row of the log; a step need not return all of them
        stopped = []  # a polite stop (SIGTERM) ends the slice and saves
        previous = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        while (
            self.iteration < config.steps
            and not (isinstance(method, Judged) and self.worse >= method.patience)
            and not self.world.any(bool(stopped) or time.monotonic() - began >= 60 * config.minutes)
        ):
            for name, value in self._step().items():
                seen.setdefault(name, []).append(value)
            if self.iteration % config.log_every == 0:
                now = time.monotonic()
                self.seconds += now - last
                self.core_seconds += (now - last) * torch.get_num_threads()
                row = {"step": self.iteration, "lr": self.learning_rate(), "seconds": round(self.seconds, 1)}
                row |= self.world.mean({name: sum(values) / len(values) for name, values in seen.items()})
                if self.world.first:
                    append_row(config.run / "log.csv", row)
                seen, last = {}, now
            if self.iteration % config.sheet_every == 0:
                self.evaluate()
            if self.iteration % config.save_every == 0:
                self.save()
        signal.signal(signal.SIGTERM, previous)
        self.save()

    def _step(self) -> dict[str, float]:
        """One step of one optimiser; returns what is logged of it."""
        config, method, world = self.config, self.method, self.world
        # Generators depend on the iteration only: a resumed run draws what an unbroken one would.
        seed = config.seed * 1_000_003 + self.iteration
        device = torch.device(config.device)
        precision = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
        turn = method.turn(self.iteration) if isinstance(method, Roles) else None
        module = method.module if turn is None else self.roles[turn]
        optimizer = self.optimizer if turn is None else self.optimizers[turn]
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate() * (1.0 if turn is None else self.rates[turn]) * group.get("rate", 1.0)
        if isinstance(method, Refreshing) and method.due(self.iteration):
            with precision:
                method.refresh(whole(self.ema), self.iteration, torch.Generator().manual_seed(seed))
        logged: dict[str, list[float]] = {}
        for part in range(config.accumulate):
            generator = torch.Generator().manual_seed(seed + (part * world.size + world.rank) * OTHER_PART)
            batch = moved(method.batch(generator, self.iteration), device)
            with precision:
                losses = method.step(batch, self.iteration)
            self._check(losses["loss"], batch)
            (losses["loss"] / config.accumulate).backward()
            for name, value in losses.items():
                logged.setdefault(name, []).append(float(value.detach()))
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        norm = float(whole({"norm": norm})["norm"])
        if norm <= config.skip_above:  # false for NaN, too
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if turn is None:
            self._update_ema()
        self.iteration += 1
        self.slices[-1]["steps"] += 1
        role = "" if turn is None else f"{turn}_"
        means = {f"{role}{name}": sum(values) / len(values) for name, values in logged.items()}
        return {**means, f"{role}grad_norm": norm}

    def _check(self, loss: Tensor, batch: Any) -> None:
        """Raises RuntimeError for a loss that is no number, and keeps the batch beside the state before it."""
        if torch.isfinite(loss):
            return
        if self.world.size == 1:
            self.save()
            write_file(self.config.run / f"batch-{self.iteration}.pt", plain(batch))
        found = float(loss.detach())
        raise RuntimeError(f"the loss of step {self.iteration} is {found}; {self.config.run} goes on before it")

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
        own = copied(module.state_dict())
        module.load_state_dict(self.ema)
        module.eval()
        try:
            with tempfile.TemporaryDirectory() as elsewhere, torch.no_grad():
                sheets = self.config.run / "sheets" if self.world.first else Path(elsewhere)
                sheets.mkdir(exist_ok=True)
                figures = self.world.mean(self.method.sheet(module, sheets / f"{self.iteration:07d}.png"))
        finally:
            module.load_state_dict(own)
            module.train()
        if isinstance(self.method, Judged):
            figures["judged"] = self.method.judge(figures, self.iteration)
            self._choose(figures["judged"])
        if self.world.first:
            append_row(self.config.run / "eval.csv", {"step": self.iteration, **figures})
        return figures

    def _choose(self, judged: float) -> None:
        """Keep the running mean if its figures are the best so far."""
        self.worse += judged < math.inf
        if judged < self.best:
            self.best, self.worse = judged, 0
            chosen = {"ema": whole(self.ema), "iteration": self.iteration}
            if self.world.first:
                write_file(self.config.run / CHOSEN, chosen)
