# SPDX-License-Identifier: Apache-2.0
"""Wider painters of hands begin with what the narrower ones have learned, and learn with their new channels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flowact_ros.models.checkpoint import CheckpointError, save_weights
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import preset
from flowact_ros.training.wider import load_wider

CONFIG = preset("debug").renderer


@pytest.fixture
def shipped(tmp_path):
    torch.manual_seed(0)
    renderer = Renderer(CONFIG)
    with torch.no_grad():
        for parameter in renderer.hands.parameters():  # new ones end in zeros: nothing would be seen
            parameter.normal_(0, 0.1)
    path = tmp_path / "renderer.safetensors"
    save_weights(path, renderer, kind="renderer", config=CONFIG, card={"steps": 7}, dtype=torch.float32)
    return renderer, path


def test_wider_painters_paint_the_same_and_learn_more(shipped):
    narrow, path = shipped
    wide = Renderer(replace(CONFIG, hand_widths=(12, 8), arm_widths=(12, 16)))
    assert load_wider(path, wide)["steps"] == 7
    inputs = torch.randn(3, narrow.hands.inputs)
    for old, new in zip(narrow.hands.sprites(inputs), wide.hands.sprites(inputs)):
        torch.testing.assert_close(new, old)
    wide.hands.sprites(inputs)[1].square().sum().backward()
    grown = wide.hands.arm.draw[0].second
    assert grown.weight.grad[:, CONFIG.arm_widths[0] :].abs().max() > 0
    assert torch.equal(wide.warp.paint.weight, narrow.warp.paint.weight)


def test_weights_of_the_same_sizes_are_taken_as_they_are(shipped):
    narrow, path = shipped
    other = Renderer(CONFIG)
    load_wider(path, other)
    for name, tensor in narrow.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    "change, line",
    [({"arm_widths": (4, 8)}, "arm_widths"), ({"hidden": CONFIG.hidden * 2}, "hidden")],
)
def test_narrower_painters_and_other_sizes_are_refused(shipped, change, line):
    with pytest.raises(CheckpointError, match=line):
        load_wider(shipped[1], Renderer(replace(CONFIG, **change)))
