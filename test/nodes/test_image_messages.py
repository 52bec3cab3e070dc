# SPDX-License-Identifier: Apache-2.0
"""Portraits in every encoding of 8 bits become RGB without cv_bridge."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

from flowact_ros.nodes.convert import ConversionError, image_array

RGB = np.array([[[10, 20, 30], [200, 100, 50], [0, 255, 128]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]], np.uint8)
GREY = RGB[:, :, :1]
OPAQUE = np.full_like(GREY, 255)


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """With rows that are longer than their pixels, as cameras align them."""
    height, width, channels = pixels.shape
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=77)
    return Image(
        height=height, width=width, encoding=encoding, step=width * channels + padding, data=rows.tobytes()
    )


@pytest.fixture(autouse=True)
def no_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[:, :, ::-1], RGB),
        ("8UC3", RGB[:, :, ::-1], RGB),
        ("rgba8", np.concatenate([RGB, OPAQUE], 2), RGB),
        ("bgra8", np.concatenate([RGB[:, :, ::-1], OPAQUE], 2), RGB),
        ("8UC4", np.concatenate([RGB[:, :, ::-1], OPAQUE], 2), RGB),
        ("mono8", GREY, np.repeat(GREY, 3, 2)),
        ("8UC1", GREY, np.repeat(GREY, 3, 2)),
    ],
)
def test_encodings(encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int) -> None:
    found = image_array(message(pixels, encoding, padding))
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


def test_what_is_transparent_lies_over_mid_grey() -> None:
    """As in a file: the colours below it are often black, and no part of the picture."""
    half = np.full_like(GREY, 128)
    clear = image_array(message(np.concatenate([RGB, np.zeros_like(GREY)], 2), "rgba8"))
    np.testing.assert_array_equal(clear, np.full_like(RGB, 128))
    between = image_array(message(np.concatenate([RGB, half], 2), "rgba8"))
    assert np.abs(between.astype(int) - (RGB.astype(int) + 128) / 2).max() <= 1


@pytest.mark.parametrize(("encoding", "channels"), [("rgba8", 4), ("mono8", 1), ("8UC3", 3)])
def test_a_row_that_is_too_short(encoding: str, channels: int) -> None:
    wrong = message(np.zeros((2, 3, channels), np.uint8), encoding)
    wrong.step -= 1
    with pytest.raises(ConversionError, match=f"need {3 * channels}"):
        image_array(wrong)


def test_others_are_refused_with_what_would_be_right() -> None:
    with pytest.raises(ConversionError, match="yuv422.*send rgb8, bgr8, rgba8, bgra8 or mono8"):
        image_array(Image(height=2, width=2, encoding="yuv422", step=4, data=bytes(8)))
