# SPDX-License-Identifier: Apache-2.0
"""Graphs compiled for another runtime: static, in float32, and two threads may call one."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowact_ros.engine.graphs import openvino


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (2 * x,)


class Request:
    """Like OpenVINO's: a call while another one runs is an error, and the answer lies in memory of its own."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._answer = np.zeros(0, np.float32)

    def infer(self, inputs: list[np.ndarray]) -> None:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("Infer Request is busy")
        threading.Event().wait(0.001)
        self._answer = 2 * inputs[0]
        self._busy.release()

    def get_output_tensor(self, index: int) -> SimpleNamespace:
        assert index == 0
        return SimpleNamespace(data=self._answer)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The options that graphs are compiled with, by a library that only takes note of them."""
    options: list[dict] = []

    class Core:
        def compile_model(self, graph: object, device: str, given: dict) -> SimpleNamespace:
            options.append({"device": device, **given})
            return SimpleNamespace(create_infer_request=Request)

    def convert_model(module: nn.Module, example_input: tuple, input: list[tuple]) -> SimpleNamespace:
        assert [tuple(x.shape) for x in example_input] == input  # static shapes
        return SimpleNamespace(outputs=module(*example_input))

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core, convert_model=convert_model))
    return options


def test_pixels_are_moved_in_float32(compiled: list[dict]) -> None:
    graph = openvino(Twice(), (torch.ones(3),))
    assert torch.equal(graph(torch.arange(3.0))[0], torch.tensor([0.0, 2.0, 4.0]))
    assert compiled[0]["device"] == "CPU" and compiled[0]["INFERENCE_PRECISION_HINT"] == "f32"


def test_a_new_reference_may_be_drawn_beside_the_stream(compiled: list[dict]) -> None:
    graph, wrong = openvino(Twice(), (torch.ones(3),)), []

    def draw(value: float) -> None:
        try:
            for _ in range(20):
                if not torch.equal(graph(torch.full((3,), value))[0], torch.full((3,), 2 * value)):
                    wrong.append(value)
        except RuntimeError as error:
            wrong.append(error)

    threads = [threading.Thread(target=draw, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
