# SPDX-License-Identifier: Apache-2.0
"""Activations that are computed again: less is kept, and neither gradients nor states are others."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from motions import performances
from torch import Tensor, nn

from flowact_ros.models.config import debug
from flowact_ros.training.checkpointing import checkpoint_blocks
from flowact_ros.training.main import main as train
from flowact_ros.training.stages.adaptation import Adaptation


def test_gradients_are_equal_and_less_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = performances(tmp_path / "data")
    method = Adaptation(debug(), [data], data, batch=4, windows=2)
    with torch.no_grad():  # gates begin as nothing: no gradient would pass them
        for parameter in method.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = method.batch(torch.Generator().manual_seed(0), 0)
    plain = copy.deepcopy(method.module)
    checkpoint_blocks(method.module)

    def taken(network: nn.Module) -> tuple[Tensor, list[Tensor], int]:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        method.module = network
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = method.step(batch, 0)["loss"]
        held = sum(kept.values())
        loss.backward()
        return loss.detach(), [p.grad for p in network.parameters() if p.grad is not None], held

    again, plain = taken(method.module), taken(plain)
    assert torch.equal(again[0], plain[0]) and len(again[1]) == len(plain[1])
    for a, b in zip(again[1], plain[1]):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert again[2] < 0.6 * plain[2], f"{again[2]} of {plain[2]} bytes are kept"


def test_the_option_goes_on_with_a_run_without_it(tmp_path: Path) -> None:
    data, run = str(performances(tmp_path / "data")), tmp_path / "run"
    options = ["motion", "--preset", "debug", "--data", data, "--heldout", data, "--run", str(run), "--batch", "2"]
    assert train([*options, "--steps", "1"]) == 0
    before = torch.load(run / "state.pt", weights_only=True)
    assert train([*options, "--steps", "2", "--checkpoint-activations"]) == 0
    after = torch.load(run / "state.pt", weights_only=True)
    assert after["iteration"] == 2 and after["module"].keys() == before["module"].keys()
    assert any(not torch.equal(after["module"][name], before["module"][name]) for name in before["module"])


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="a Linear has no blocks to compute again"):
        checkpoint_blocks(nn.Linear(2, 2))
