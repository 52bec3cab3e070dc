# SPDX-License-Identifier: Apache-2.0
"""Rounded convolutions: near what they stand for, and where they may not be used."""

from __future__ import annotations

import torch
from torch import nn

from flowact_ros.models.codec.quantise import RoundedConv, measure_ranges, rounded


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.flow = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow(torch.relu(self.first(x)))


def test_rounding_changes_little_and_leaves_flows_alone() -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(4, 3, 16, 16)
    ranges = measure_ranges(net, lambda: net(x))
    small = rounded(net, ranges)
    assert isinstance(small.first, RoundedConv) and not isinstance(small.flow, RoundedConv)
    assert isinstance(net.first, nn.Conv2d)  # the original is untouched
    with torch.inference_mode():
        off, truth = small(x) - net(x), net(x)
    assert 0 < off.square().mean() < 0.002 * truth.square().mean()


def test_ranges_hold_all_but_the_tails_of_what_came_in() -> None:
    net = Net().eval()
    x = torch.linspace(-2, 6, 3 * 256).view(1, 3, 16, 16)
    low, high = measure_ranges(net, lambda: (net(x), net(0.5 * x)))["first"]
    assert -2 <= low <= -1.9 and 5.9 <= high <= 6
    # what lies beyond is cut off, and nothing is measured once it is over
    far = rounded(net, {"first": (low, high)}).first
    torch.testing.assert_close(far(torch.full_like(x, 9.0)), far(torch.full_like(x, 6.0)), rtol=0.02, atol=0.05)
    assert not net.first._forward_pre_hooks


def test_a_padded_border_stays_zero() -> None:
    """Zero is one of the levels, whatever the limits: padding would add an edge otherwise."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    for low, high in ((-1.7, 0.9), (0.2, 3.1), (-3.0, -0.5)):
        layer = RoundedConv(conv, low, high)
        zero = torch.fake_quantize_per_tensor_affine(torch.zeros(1), layer.scale, layer.zero, 0, 255)
        assert float(zero) == 0.0
