# SPDX-License-Identifier: Apache-2.0
"""Every measure on inputs whose answer is known, and on the controls that must fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowact_ros.evaluation import metrics
from flowact_ros.evaluation.metrics import MetricError

RNG = np.random.default_rng(3)


def frames(count: int = 6, side: int = 48, seed: int = 0) -> torch.Tensor:
    """A textured square that moves by two pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.randint(40, 216, (3, side, side), generator=generator, dtype=torch.uint8)
    return torch.stack([texture.roll(2 * k, 2) for k in range(count)])


def test_psnr_of_a_known_error():
    a = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    assert metrics.psnr(a, a) == 99.0
    assert metrics.psnr(a, a + 10) == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)


def test_psnr_in_boxes_sees_only_the_boxes():
    a = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    b = a.clone()
    b[:, :, :8, :8] += 20
    inside, outside = np.array([[0, 0, 8, 8]] * 2), np.array([[8, 8, 16, 16]] * 2)
    assert metrics.psnr(a, b, inside) == pytest.approx(20 * np.log10(255 / 20), abs=1e-4)
    assert metrics.psnr(a, b, outside) == 99.0
    with pytest.raises(MetricError, match="no pixel"):
        metrics.psnr(a, b, np.zeros((2, 4)))


def test_ssim_falls_with_noise_and_blur_but_not_with_nothing():
    a = frames()
    noisy = (a.float() + 25 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    assert metrics.ssim(a, a) == pytest.approx(1.0, abs=1e-5)
    assert metrics.ssim(a, noisy.to(torch.uint8)) < 0.97
    assert metrics.ssim(a, a.float().mean((2, 3), keepdim=True).expand(a.shape).to(torch.uint8)) < 0.1


def test_unequal_frames_are_refused_with_both_sizes():
    with pytest.raises(MetricError, match=r"\[6, 3, 48, 48\] and \[5, 3, 48, 48\]"):
        metrics.psnr(frames(6), frames(5))


def test_motion_energy_of_frozen_frames_is_zero_and_of_faster_ones_larger():
    moving = frames()
    frozen = moving[:1].expand(6, -1, -1, -1)
    assert metrics.motion_energy(metrics.differences(frozen)) == 0.0
    smooth = torch.nn.functional.interpolate(moving[:, :, ::8, ::8].float(), 128, mode="bilinear").to(
        torch.uint8
    )
    slow = torch.stack([smooth[0].roll(k, 2) for k in range(6)])
    fast = torch.stack([smooth[0].roll(3 * k, 2) for k in range(6)])
    assert (
        metrics.motion_energy(metrics.differences(fast))
        > 2 * metrics.motion_energy(metrics.differences(slow))
        > 0
    )


def test_boundary_jump_finds_the_seam_where_it_is():
    changes = np.ones(47)
    changes[[11, 23, 35]] = 3.0  # into frames 12, 24, 36
    assert metrics.boundary_jump(changes, [0, 12, 24, 36]) == pytest.approx(3.0)
    assert metrics.boundary_jump(changes, [6, 18, 30]) == pytest.approx(1.0)
    with pytest.raises(MetricError):
        metrics.boundary_jump(changes, [0])


def test_drift_of_steady_frames_is_small_and_of_fading_ones_not():
    steady = frames(40)
    fading = (steady.float() * torch.linspace(1.0, 0.8, 40)[:, None, None, None]).to(torch.uint8)
    assert metrics.drift(metrics.statistics(steady))["worst"] < 5e-3
    out = metrics.drift(metrics.statistics(fading))
    assert out["luma"] == pytest.approx(0.17, abs=0.02)
    blurred = torch.nn.functional.avg_pool2d(steady.float(), 3, 1, 1).to(torch.uint8)
    half = torch.cat([steady[:20], blurred[20:]])
    assert metrics.drift(metrics.statistics(half))["sharpness"] > 0.3


def test_detail_falls_with_blur_and_rises_with_noise_inside_the_box_only():
    a = frames(3)
    box = np.array([[8, 8, 40, 40]] * 3)
    blurred = torch.nn.functional.avg_pool2d(a.float(), 3, 1, 1).to(torch.uint8)
    assert metrics.detail(blurred, box) < 0.5 * metrics.detail(a, box)
    outside = a.clone()
    outside[:, :, :6] = blurred[:, :, :6]
    assert metrics.detail(outside, box) == metrics.detail(a, box)
    with pytest.raises(MetricError, match="has no edges"):
        metrics.detail(a, np.zeros((3, 4)))


def test_cosines_tell_another_picture():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 16, 16, generator=generator), torch.randn(8, 16, 16, generator=generator)
    values = metrics.cosines(torch.stack([a, b]), a)
    assert values[0] == pytest.approx(1.0, abs=1e-5) and values[1] < 0.5


@pytest.mark.parametrize("delay", [-3.0, 0.0, 1.0, 2.5])
def test_best_lag_is_found_to_a_fraction_of_a_frame(delay: float):
    t = np.arange(250) / 25
    true = np.sin(2 * np.pi * 1.3 * t) + 0.5 * np.sin(2 * np.pi * 2.9 * t + 1)
    late = np.sin(2 * np.pi * 1.3 * (t - delay / 25)) + 0.5 * np.sin(2 * np.pi * 2.9 * (t - delay / 25) + 1)
    lag = metrics.best_lag([(late, true)])
    assert lag.seconds == pytest.approx(delay / 25, abs=0.006)
    assert lag.correlation > 0.9


def test_shuffled_curves_do_not_correlate_and_still_ones_give_nothing():
    a = np.convolve(RNG.standard_normal(500), np.ones(5) / 5, "same")
    assert metrics.correlation(a, a) == pytest.approx(1.0)
    assert abs(metrics.correlation(a, np.roll(a, 111))) < 0.25
    assert metrics.correlation(a, np.zeros(500)) == 0.0
    assert np.isnan(metrics.best_lag([(np.zeros(100), a[:100])]).seconds)
    with pytest.raises(MetricError, match=r"\[500\] and \[499\]"):
        metrics.correlation(a, a[1:])


def test_loudness_is_in_step_with_the_frames():
    pcm = np.zeros(50 * 960, np.float32)
    pcm[20 * 960 : 30 * 960] = 0.3 * np.sin(np.arange(10 * 960) / 5)
    loud = metrics.loudness(pcm, 50, 0.04)
    assert (loud[20:30] > 0.3).all() and loud[:19].max() == 0.0 and loud[31:].max() == 0.0


def test_silence_leaves_lips_time_to_come_to_rest():
    pcm = np.zeros(75 * 960, np.float32)
    pcm[25 * 960 : 50 * 960] = 0.3 * np.sin(np.arange(25 * 960) / 5)
    still = metrics.silence(pcm, 75)
    assert still[:20].all() and not still[22:55].any() and still[56:].all()


def test_short_pauses_are_no_silence():
    quiet = np.zeros(40, bool)
    quiet[10:15] = True
    assert not metrics.settled(quiet).any()


def test_stillness_sees_babbling_but_not_a_mouth_that_rests_open():
    still = np.zeros(60, bool)
    still[5:25] = still[40:60] = True
    resting = np.where(np.arange(60) < 30, 2.0, 7.0)
    assert metrics.stillness(resting, still) == 0.0
    babbling = resting + np.sin(np.arange(60))
    assert metrics.stillness(babbling, still) == pytest.approx(np.sqrt(0.5), abs=0.1)
    assert np.isnan(metrics.stillness(resting, np.zeros(60, bool)))
