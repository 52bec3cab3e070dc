# SPDX-License-Identifier: Apache-2.0
"""Moving a picture's pixels: cubic weights where they matter, linear ones elsewhere."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from flowact_ros.models.codec import blocks
from flowact_ros.models.codec.moving import STRAIGHT, bends, median_flow, move

SIDE = 96


def drawn() -> np.ndarray:
    """Shaded ground, a disc with a smooth outline and thin lines; `[96, 96, 4]`."""
    ground = np.linspace(40, 200, SIDE)[None, :, None] + np.linspace(0, 50, SIDE)[:, None, None]
    picture = np.broadcast_to(ground, (SIDE, SIDE, 3)).astype(np.uint8).copy()
    cv2.circle(picture, (40, 44), 20, (230, 120, 90), -1, cv2.LINE_AA)
    cv2.line(picture, (30, 40), (52, 47), (20, 20, 60), 1, cv2.LINE_AA)
    out = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    out[..., 3] = bends(out)
    return out


def places(beyond: float = 0.0) -> np.ndarray:
    """Turned and pulled a little; beyond: pixels by which the lower rows lie below the picture."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return np.stack([0.97 * x + 0.05 * y - 1.3, 0.98 * y - 0.04 * x + 1.7 + beyond], 2)


@pytest.mark.parametrize("beyond", [0.0, 30.0])
def test_pixels_move_as_with_cubic_weights_everywhere(beyond: float) -> None:
    picture, there = drawn(), places(beyond)
    linear, cubic = (
        cv2.remap(picture, there, None, how, borderMode=cv2.BORDER_REPLICATE)[..., :3].astype(int)
        for how in (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    )
    assert np.abs(linear - cubic).max() > 15, "the picture would look the same with linear weights"
    assert np.abs(move(picture, there)[..., :3] - cubic).max() <= 1


def test_few_pixels_of_a_drawing_bend() -> None:
    picture = drawn()
    assert 0.02 < np.mean(picture[..., 3] > 0) < 0.3
    assert (picture[70:, :, 3] == 0).all(), "shaded ground does not bend"


def test_a_step_bends_on_both_sides_and_in_every_colour() -> None:
    for colour in range(3):
        for axis in range(2):
            picture = np.full((12, 12, 4), 90, np.uint8)
            picture[(slice(None),) * axis + (slice(6, None),)][..., colour] += STRAIGHT + 1
            marked = bends(picture) > 0
            assert set(np.nonzero(marked)[axis]) == {5, 6} and marked.sum() == 24
    flat = np.full((12, 12, 4), 90, np.uint8)
    flat[:, 6:, 3] = 255
    assert not bends(flat).any(), "marks of before are no picture"


def test_a_picture_without_bends_only_moves() -> None:
    picture = np.full((SIDE, SIDE, 4), 77, np.uint8)
    picture[..., 3] = bends(picture)
    assert (move(picture, places())[..., :3] == 77).all()


def test_a_picture_that_bends_everywhere_is_moved_with_cubic_weights() -> None:
    side = 200  # more pixels than OpenCV takes in a line
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 4), np.uint8)
    picture[..., 3] = bends(picture)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    there = np.stack([x + 0.4, y + 0.3], 2)
    cubic = cv2.remap(picture, there, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    same = move(picture, there)[..., :3] == cubic[..., :3]
    assert same.all(2).mean() > 0.97


def test_single_cells_follow_their_neighbours_and_edges_stay() -> None:
    flow = np.zeros((SIDE, SIDE, 2), np.float32)
    flow[:, 40:] = (0.3, -0.1)
    torn = flow.copy()
    torn[10:90:7, 39], torn[13:90:7, 40] = (0.3, -0.1), 0.0  # teeth on either side of the edge
    torn[50:52, 70:72] = 0.0  # an island
    assert np.array_equal(median_flow(torn), flow) and np.array_equal(median_flow(flow), flow)


def test_networks_and_the_live_codec_take_the_same_median() -> None:
    flow = torch.randn(2, 2, 21, 34, generator=torch.Generator().manual_seed(0))
    wanted = np.stack([median_flow(frame.permute(1, 2, 0).numpy()) for frame in flow])
    assert np.array_equal(blocks.median_flow(flow).permute(0, 2, 3, 1).numpy(), wanted)
