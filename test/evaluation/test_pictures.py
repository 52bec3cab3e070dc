# SPDX-License-Identifier: Apache-2.0
"""Figures of pictures on frames whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flowact_ros.evaluation import pictures
from flowact_ros.evaluation.metrics import MetricError


def frames(count: int = 6, side: int = 48, step: int = 2) -> torch.Tensor:
    """A smooth texture that moves by `step` pixels a frame."""
    noise = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0)) * 255
    texture = F.interpolate(noise, (side, side), mode="bilinear")[0].to(torch.uint8)
    return torch.stack([texture.roll(step * k, 2) for k in range(count)])


def box(count: int, *corners: int) -> np.ndarray:
    return np.array([corners] * count, float)


def test_psnr_of_a_known_error_and_only_inside_the_box():
    a = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    b = a.clone()
    b[:, :, :8, :8] += 20
    assert pictures.psnr(a, a) == 99.0
    assert pictures.psnr(a, b, box(2, 0, 0, 8, 8)) == pytest.approx(20 * np.log10(255 / 20), abs=1e-4)
    assert pictures.psnr(a, b, box(2, 8, 8, 16, 16)) == 99.0
    with pytest.raises(MetricError, match="no pixel"):
        pictures.psnr(a, b, np.zeros((2, 4)))
    with pytest.raises(MetricError, match=r"\[2, 3, 16, 16\] and \[1, 3, 16, 16\]"):
        pictures.psnr(a, b[:1])


def test_the_worst_tenth_is_that_of_the_frames_that_are_most_off():
    a = torch.full((20, 3, 16, 16), 100, dtype=torch.uint8)
    b = a + 5
    b[[3, 11]] = 150
    each = pictures.frame_psnrs(a, b, box(20, 0, 0, 8, 8))
    assert each.shape == (20,) and pictures.worst_tenth(each) == pytest.approx(20 * np.log10(255 / 50), abs=1e-4)
    assert pictures.mean_db(each) == pytest.approx(pictures.psnr(a, b), abs=1e-4)
    assert pictures.worst_tenth(each[:5]) == each[3]


def test_edges_fall_with_blur_inside_the_box_only():
    a = frames(3)
    blurred = F.avg_pool2d(a.float(), 5, 1, 2).to(torch.uint8)
    middle = box(3, 8, 8, 40, 40)
    assert pictures.edge_ratio(a, middle, a, middle) == 1.0
    assert pictures.edge_ratio(blurred, middle, a, middle) < 0.8
    outside = a.clone()
    outside[..., :6] = blurred[..., :6]
    assert pictures.edge_ratio(outside, middle, a, middle) == 1.0
    with pytest.raises(MetricError, match="0 x 0 pixels has no edges"):
        pictures.edges(a, np.zeros((3, 4)))


def test_the_same_face_at_another_place_has_the_same_edges():
    a = frames(2, step=0)
    moved = a.roll(5, 3)
    assert pictures.edge_ratio(moved, box(2, 15, 10, 35, 30), a, box(2, 10, 10, 30, 30)) == pytest.approx(1.0)


def test_movement_of_frozen_frames_is_zero_and_of_fast_ones_larger():
    assert pictures.movement(frames(step=0)) == 0.0
    assert pictures.movement(frames(step=3)) > 1.5 * pictures.movement(frames(step=1)) > 0


def test_flicker_sees_trembling_but_not_a_fade():
    ramp = torch.arange(12).view(12, 1, 1, 1).expand(12, 3, 16, 16)
    fade = (100 + 4 * ramp).to(torch.uint8)
    tremble = (100 + 4 * (ramp % 2)).to(torch.uint8)
    assert pictures.flicker(fade) < 1e-3 < 1 < pictures.flicker(tremble)
    assert pictures.movement(fade) == pytest.approx(pictures.movement(tremble), rel=0.01)
