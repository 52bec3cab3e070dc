# SPDX-License-Identifier: Apache-2.0
"""Products in int8 are near to those in float32, and only large layers are replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from flowact_ros.models.config import MMDiTConfig, avatar_cpu, debug
from flowact_ros.models.int8 import Int8Linear, has_int8, use_int8
from flowact_ros.models.mmdit import MMDiT

pytestmark = pytest.mark.skipif(not has_int8(), reason="torch has no int8 kernels for this processor")


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_right_to_a_few_hundredths(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(320, 500, bias=bias).requires_grad_(False)
    linear.weight[3] = 0.0  # a row of nothing has no scale
    x = torch.randn(2, 3, 69, 320)
    found, wanted = Int8Linear(linear)(x), linear(x)
    assert found.shape == wanted.shape and found.dtype == torch.float32
    assert 1e-4 < float((found - wanted).norm() / wanted.norm()) < 0.03
    shifted = Int8Linear(linear)(x + 3.0)  # a range that is not around zero
    assert float((shifted - linear(x + 3.0)).norm() / linear(x + 3.0).norm()) < 0.03
    assert torch.equal(Int8Linear(linear)(x), found)
    assert Int8Linear(linear)(x[:, :, :0]).shape == (2, 3, 0, 500)  # memory may hold no picture


def test_large_layers_of_the_blocks_are_replaced() -> None:
    small = replace(avatar_cpu(), mmdit=MMDiTConfig(double_blocks=1, single_blocks=1))
    model = MMDiT(small)
    # two streams of four layers, one block of two
    assert use_int8(model) == 10
    assert isinstance(model.double_blocks[0].video.modulation.linear, nn.Linear)
    assert isinstance(model.last.linear, nn.Linear) and isinstance(model.video_in, nn.Linear)
    assert use_int8(MMDiT(debug())) == 0  # too small to gain
