# SPDX-License-Identifier: Apache-2.0
"""Which convolutions may be rounded: one whose input has a channel that dwarfs the others may not."""

from __future__ import annotations

import pytest
import torch

from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import preset
from flowact_ros.training.activations import PAINTERS, activations


@pytest.fixture
def renderer() -> Renderer:
    torch.manual_seed(0)
    return Renderer(preset("debug").renderer)


def test_what_is_computed_for_every_frame_has_limits(renderer: Renderer) -> None:
    ranges = activations(renderer)
    assert {name.split(".")[0] for name in ranges} == {"mouth", "eyes", "warp", "hands"}
    assert "mouth.paint" in ranges and "hands.arm.paint" in ranges and "mouth.stem" not in ranges
    assert all(low <= high for low, high in ranges.values())


@pytest.mark.parametrize("part", PAINTERS)
def test_a_channel_that_dwarfs_the_others_keeps_its_convolution_in_float(renderer: Renderer, part: str) -> None:
    painter = renderer.get_submodule(part)
    with torch.no_grad():  # channel 0 is always large and means nothing; the others are of small numbers
        painter.draw[-1].second.bias[0] = 3000.0
        painter.paint.weight[:, 0] = 0.0
    assert f"{part}.paint" not in activations(renderer)
