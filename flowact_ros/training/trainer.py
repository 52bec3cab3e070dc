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
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.training.method import Judged, Method, Refreshing, Roles
from flowact_ros.training.muon import Muon

CHOSEN = "chosen.pt"  # in the run folder: the running mean with the best figures, where a method judges them
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
        self.optimizer = self._optimizer(module)
        self.roles = method.roles if isinstance(method, Roles) else {}
        for role in self.roles.values():
            role.to(config.device)
        self.rates = method.rates if isinstance(method, Roles) else {}
        self.optimizers = {name: self._optimizer(self.roles[name]) for name in self.rates}
        self.ema = {name: t.detach().clone() for name, t in module.state_dict().items()}
        self.iteration = 0
        self.seconds = self.core_seconds = 0.0
        self.stages = config.earlier
        self.best, self.worse = math.inf, 0  # of the sheets' figures, and how many sheets were no better since
        self.slices: list[dict[str, Any]] = []  # what was trained on what, for the card
        self.warm_from = 0  # the step from which the learning rate was last warmed up
        config.run.mkdir(parents=True, exist_ok=True)
        if (config.run / "state.pt").exists():
            self._resume()

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        return OPTIMIZERS[config.optimizer](
            module.parameters(), config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    @property
    def fresh(self) -> bool:
        """Nothing was trained or taken over in this run folder yet."""
        return self.iteration == 0

    def take_over(self, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
        """Go on from exported weights and their card: steps are counted on, the learning rate warms up again.

        Weights of another stage are what this stage begins with; its steps count from 0.
        """
        self.method.module.load_state_dict(weights)
        self.ema = {name: t.detach().clone() for name, t in self.method.module.state_dict().items()}
        stages = card.get("stages", [])
        if stages and stages[-1]["name"] != self.config.stage:
            self.stages = stages
            return
        self.iteration = self.warm_from = int(card["steps"])
        self.seconds, self.slices = float(card["train_seconds"]), list(card["slices"])
        self.core_seconds, self.stages = self.seconds, stages[:-1]

    def _resume(self) -> None:
        """Raises ValueError for a damaged file, RuntimeError for another network's."""
        state = read_state(
            self.config.run / "state.pt", {"module", "optimizer", "ema", "iteration", "seconds"}
        )
        stage = state.get("stage") or ("another stage" if self.roles else self.config.stage)  # older runs tell none
        if stage != self.config.stage:
            raise ValueError(f"{self.config.run} holds a run of {stage}, not of {self.config.stage}")
        self.method.module.load_state_dict(state["module"])
        if state["optimizer"] is not None:  # None: weights taken over from elsewhere
            self.optimizer.load_state_dict(state["optimizer"])
        self.ema = moved(state["ema"], torch.device(self.config.device))
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.slices, self.warm_from = state.get("slices", []), state.get("warm_from", 0)
        self.core_seconds, self.stages = state.get("core_seconds", self.seconds), state.get("stages", [])
        self.best, self.worse = state.get("best", math.inf), state.get("worse", 0)
        if isinstance(self.method, Refreshing) and "method" in state:  # older runs have none
            self.method.load_state_dict(state["method"])
        for name, role in self.roles.items():
            role.load_state_dict(state["roles"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

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
                "core_seconds": self.core_seconds,
                "stage": self.config.stage,
                "stages": self.stages,
                "best": self.best,
                "worse": self.worse,
                "roles": {name: role.state_dict() for name, role in self.roles.items()},
                "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
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
        """Train until `steps` are done, the slice of `minutes` is over or no sheet gets better, then save."""
        config, method = self.config, self.method
        began, last = time.monotonic(), time.monotonic()
        now = {"learning_rate": config.learning_rate, "optimizer": config.optimizer, **config.about}
        self.slices.append({"first_step": self.iteration, "steps": 0, **now})
        if isinstance(method, Judged) and self.best == math.inf:
            self.evaluate()  # what training has to improve on
        seen: dict[str, list[float]] = {}  # values since the last row of the log; a step need not return all of them
        device = next(method.module.parameters()).device
        stopped = []  # a polite stop (SIGTERM) ends the slice and saves
        previous = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        while (
            not stopped
            and self.iteration < config.steps
            and time.monotonic() - began < 60 * config.minutes
            and not (isinstance(method, Judged) and self.worse >= method.patience)
        ):
            # the generator depends on the iteration only: a resumed run draws what an unbroken one would
            seed = config.seed * 1_000_003 + self.iteration
            generator = torch.Generator().manual_seed(seed)
            turn = method.turn(self.iteration) if isinstance(method, Roles) else None
            module = method.module if turn is None else self.roles[turn]
            optimizer = self.optimizer if turn is None else self.optimizers[turn]
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate() * self.rates.get(turn, 1.0)
            precision = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
            if isinstance(method, Refreshing):
                with precision:
                    method.refresh(self.ema, self.iteration, torch.Generator().manual_seed(seed))
            batch = moved(method.batch(generator, self.iteration), device)
            with precision:
                losses = method.step(batch, self.iteration)
            losses["loss"].backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip)
            if float(norm) <= config.skip_above:  # false for NaN, too
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if turn is None:
                self._update_ema()
            self.iteration += 1
            self.slices[-1]["steps"] += 1
            role = "" if turn is None else f"{turn}_"
            for name, value in {**losses, "grad_norm": norm}.items():
                name = f"{role}{name}"
                seen.setdefault(name, []).append(float(value.detach()))
            if self.iteration % config.log_every == 0:
                now = time.monotonic()
                self.seconds += now - last
                self.core_seconds += (now - last) * torch.get_num_threads()
                row = {"step": self.iteration, "lr": self.learning_rate(), "seconds": round(self.seconds, 1)}
                row |= {name: sum(values) / len(values) for name, values in seen.items()}
                self._log("log.csv", row)
                seen, last = {}, now
            if self.iteration % config.sheet_every == 0:
                self.evaluate()
            if self.iteration % config.save_every == 0:
                self.save()
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
        if isinstance(self.method, Judged):
            figures["judged"] = self.method.judge(figures)
            self._choose(figures["judged"])
        self._log("eval.csv", {"step": self.iteration, **figures})
        return figures

    def _choose(self, judged: float) -> None:
        """Keep the running mean if its figures are the best so far."""
        self.worse += 1
        if judged < self.best:
            self.best, self.worse = judged, 0
            partial = self.config.run / f"{CHOSEN}.partial"
            torch.save({"ema": self.ema, "iteration": self.iteration}, partial)
            partial.replace(self.config.run / CHOSEN)

    def _log(self, name: str, row: dict[str, float]) -> None:
        path = self.config.run / name
        header = list(row)
        if path.exists():  # columns stay what the first row made them
            with path.open(newline="", encoding="utf-8") as file:
                header = next(csv.reader(file), header)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=header, extrasaction="ignore")
            if not file.tell():
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
