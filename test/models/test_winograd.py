# SPDX-License-Identifier: Apache-2.0
"""Convolutions by tiles are convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flowact_ros.models.pair import Pair
from flowact_ros.models.winograd import WinogradConv2d, use_winograd


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("size", [(1, 5, 16, 16), (3, 8, 20, 24), (2, 3, 7, 13), (1, 4, 1, 2)])
def test_it_is_the_convolution(size: tuple[int, int, int, int], tile: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(size[1], 6, 3, padding=1).requires_grad_(False)
    x = torch.randn(size)
    tiled = WinogradConv2d(conv, tile)
    torch.testing.assert_close(tiled(x), conv(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        tiled(x.contiguous(memory_format=torch.channels_last)), conv(x), rtol=1e-4, atol=1e-4
    )
    assert tiled(x).stride(1) == 1  # channels last
    if min(size[2:]) > 2:  # a window of something larger, whose border is there
        part = x[..., 1:, 1:]
        wanted = F.conv2d(part, conv.weight, conv.bias)
        torch.testing.assert_close(tiled(part, 0), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            tiled(x.contiguous(memory_format=torch.channels_last)[..., 1:, 1:], 0), wanted, rtol=1e-4, atol=1e-4
        )
    halves = WinogradConv2d(conv, tile, Pair())
    with torch.inference_mode():
        assert torch.equal(halves(x), tiled(x))


def test_gradients_reach_its_input() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    x, y = (torch.randn(1, 3, 6, 9).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    conv(x).square().sum().backward()
    WinogradConv2d(conv, pair=Pair())(y).square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
    ],
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="3 x 3, padding 1 and a bias are needed"):
        WinogradConv2d(conv)


def test_it_takes_the_place_of_large_convolutions_only() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 64, 1), nn.Sequential(nn.Conv2d(64, 80, 3, padding=1)), nn.Conv2d(80, 8, 3, padding=1)
    )
    net.requires_grad_(False)
    x = torch.randn(1, 4, 8, 8)
    before = net(x)
    assert use_winograd(net) == 1
    assert isinstance(net[1][0], WinogradConv2d) and isinstance(net[2], nn.Conv2d)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)
    assert F.mse_loss(net(x), 0 * before) > 0
