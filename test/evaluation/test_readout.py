# SPDX-License-Identifier: Apache-2.0
"""The shipped readout reads openings of characters it has not seen, also from spoiled pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import control_index, identity_from_seed, mouth_opening, neutral, render
from flowact_ros.data.splits import HELDOUT_CHARACTER_SEEDS
from flowact_ros.evaluation import readout as ro
from flowact_ros.evaluation.metrics import correlation


@pytest.fixture(scope="module")
def shipped():
    return ro.load_readout()


def opening_clip(number: int, size: int):
    identity = identity_from_seed(HELDOUT_CHARACTER_SEEDS[number], "robot" if number % 2 else "human")
    controls = neutral(8)
    controls[:, control_index("jaw")] = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.3, 0.0])
    controls[:, control_index("head_yaw")] = torch.linspace(-0.3, 0.3, 8)
    return (
        render(identity, controls, size=size),
        mouth_opening(identity, controls).numpy(),
        ro.mouth_place(identity),
    )


@pytest.mark.parametrize("number", [40, 41])
@pytest.mark.parametrize("size", [256, 480])
def test_reads_openings_of_unseen_characters_at_any_size(shipped, number: int, size: int):
    frames, true, place = opening_clip(number, size)
    read = ro.read_opening(shipped[0], frames, place)
    assert correlation(read, true) > 0.95
    assert np.abs(read - true).mean() * 512 < 4.0


def test_a_blurred_picture_is_read_alike(shipped):
    frames, true, place = opening_clip(42, 256)
    blurred = torch.nn.functional.avg_pool2d(frames.float(), 3, 1, 1).to(torch.uint8)
    assert correlation(ro.read_opening(shipped[0], blurred, place), true) > 0.9


def test_a_mouth_that_does_not_move_is_not_read_as_moving(shipped):
    frames, _, place = opening_clip(43, 256)
    still = frames[:1].expand(8, -1, -1, -1)
    assert np.std(ro.read_opening(shipped[0], still, place)) < 1e-5


def test_the_card_states_its_own_error(shipped):
    card = shipped[1]
    assert card["heldout_renders"]["correlation"] > 0.95
    assert 0 < card["heldout_renders"]["mae_px_512"] < 4
    assert ro.default_path().stat().st_size < 300_000


def test_training_lowers_the_error_and_is_repeatable():
    data = ro.material(5, 6, range(100), named=0.0)
    assert data[0].shape == (24, 3, 112, 112) and float(data[1].max()) > 0.02
    a, b = (ro.train(data, steps=3, seed=1, tell=lambda text: None) for _ in range(2))
    middle = data[0][:, :, 8:104, 8:104].float() / 127.5 - 1
    assert torch.equal(a(middle), b(middle))
    assert not torch.equal(a(middle), ro.train(data, steps=4, seed=1, tell=lambda text: None)(middle))
