# SPDX-License-Identifier: Apache-2.0
"""A run on a new machine goes on from exported weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flowact_ros.training.trainer import Trainer, TrainerConfig


class Line:
    """A method whose loss is a distance of one weight from 3."""

    def __init__(self) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        self.seen: list[int] = []

    def batch(self, generator: torch.Generator, iteration: int) -> torch.Tensor:
        self.seen.append(int(torch.randint(1 << 30, (1,), generator=generator)))
        return torch.ones(1, 1)

    def step(self, batch: torch.Tensor, iteration: int) -> dict[str, torch.Tensor]:
        return {"loss": (self.module(batch) - 3).square().mean()}


def config(run: Path, steps: int) -> TrainerConfig:
    """A rate that does not fall before its last hundredth, so that only the warm-up is seen."""
    return TrainerConfig(
        run=run, steps=steps, learning_rate=0.1, warmup=10, cooldown=0.01, optimizer="adamw", bf16=False,
        sheet_every=10**9,
    )  # fmt: skip


def test_a_loss_that_is_no_number_ends_the_run_before_its_step(tmp_path: Path) -> None:
    class Broken(Line):
        def step(self, batch: torch.Tensor, iteration: int) -> dict[str, torch.Tensor]:
            loss = super().step(batch, iteration)["loss"]
            return {"loss": loss / 0 if iteration == 3 else loss}

    for _ in range(2):  # resumed, it meets the same batch
        with pytest.raises(RuntimeError, match="the loss of step 3 is inf"):
            Trainer(Broken(), config(tmp_path / "run", 9)).run()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["iteration"] == 3 and bool(torch.isfinite(state["module"]["weight"]).all())


def test_steps_that_are_done_already_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = Line()
    trainer = Trainer(method, config(tmp_path / "new", 50))
    trainer.take_over({"weight": torch.tensor([[2.0]])}, {"steps": 100, "train_seconds": 7, "slices": []})
    trainer.run()
    assert not method.seen
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: 100 steps are done, --steps 50 asks for no more\n"


def test_steps_slices_and_material_go_on_and_the_rate_warms_up_again(tmp_path: Path) -> None:
    card = {"steps": 100, "train_seconds": 7, "slices": [{"first_step": 0, "steps": 100}]}
    method = Line()
    trainer = Trainer(method, config(tmp_path / "new", 104))
    assert trainer.fresh
    trainer.take_over({"weight": torch.tensor([[2.0]])}, card)
    assert not trainer.fresh and trainer.learning_rate() == pytest.approx(0.01)
    trainer.run()
    assert trainer.iteration == 104 and trainer.seconds >= 7
    assert [s["first_step"] for s in trainer.slices] == [0, 100]
    other = Line()
    Trainer(other, config(tmp_path / "nothing", 4)).run()
    assert not set(method.seen) & set(other.seen)
    again = Trainer(Line(), config(tmp_path / "new", 120))
    assert again.learning_rate() == pytest.approx(0.05)  # the fifth step of the warm-up
