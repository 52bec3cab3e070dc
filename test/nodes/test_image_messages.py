# SPDX-License-Identifier: Apache-2.0
"""Portraits in every encoding of 8 bits become RGB without cv_bridge, and others where it is."""

from __future__ import annotations

import sys
from types import ModuleType

import cv2
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


# ---------------------------------------------------------------- with cv_bridge


class CvBridge:
    """cv_bridge is in no wheel. Like it, this one takes the step for the length of rows; OpenCV does the colours."""

    def imgmsg_to_cv2(self, message: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        assert desired_encoding == "rgb8"
        if message.encoding == "32FC1":
            raise RuntimeError(
                "[32FC1] is not a color format. but [rgb8] is.\nThe conversion does not make sense"
            )
        data = np.frombuffer(bytes(message.data), np.uint8)
        if message.encoding == "mono16":
            grey = data.view("<u2").reshape(message.height, message.step // 2)[:, : message.width]
            return np.repeat((grey / 256).astype(np.uint8)[:, :, None], 3, 2)
        if message.encoding == "yuv422":
            packed = data.reshape(message.height, message.step // 2, 2)[:, : message.width]
            return cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_UYVY)
        assert message.encoding == "bayer_rggb8"
        mosaic = data.reshape(message.height, message.step)[:, : message.width]
        return cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2RGB)


@pytest.fixture
def cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cv_bridge")
    module.CvBridge = CvBridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


COLOUR = np.array([200, 60, 30], np.uint8)
FLAT = np.broadcast_to(COLOUR, (8, 6, 3))


def mosaic() -> np.ndarray:
    """A sensor's red, green, green, blue."""
    found = np.empty((8, 6, 1), np.uint8)
    found[0::2, 0::2, 0], found[0::2, 1::2, 0], found[1::2, 0::2, 0], found[1::2, 1::2, 0] = COLOUR[
        [0, 1, 1, 2]
    ]
    return found


def uyvy() -> np.ndarray:
    """ITU-R BT.601, in the range of video."""
    to_yuv = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])
    y, u, v = np.rint(to_yuv @ COLOUR + (16, 128, 128)).astype(np.uint8)
    found = np.empty((8, 6, 2), np.uint8)
    found[:, :, 1], found[:, 0::2, 0], found[:, 1::2, 0] = y, u, v
    return found


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("bayer_rggb8", mosaic(), FLAT),
        ("yuv422", uyvy(), FLAT),
        ("mono16", np.full((8, 6, 2), (0x34, 0xC8), np.uint8), np.full((8, 6, 3), 0xC8)),
    ],
)
def test_what_cv_bridge_reads(
    cv_bridge: None, encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int
) -> None:
    found = image_array(message(pixels, encoding, padding))
    assert found.dtype == np.uint8 and found.flags.owndata and found.flags.writeable
    assert np.abs(found[2:-2, 2:-2].astype(int) - expected[2:-2, 2:-2]).max() <= 8


@pytest.mark.parametrize(
    ("encoding", "step", "says"),
    [
        ("32FC1", 24, r"cv_bridge cannot read encoding '32FC1' \(\[32FC1\] is not a color format"),
        (
            "mono16",
            6,
            r"cv_bridge made uint8 \(16, 3, 3\) of an image of 6×16 'mono16' pixels with rows of 6 bytes",
        ),
        ("mono16", 5, r"cv_bridge cannot read encoding 'mono16' \(.*reshape"),
    ],
)
def test_what_cv_bridge_cannot_read(cv_bridge: None, encoding: str, step: int, says: str) -> None:
    wrong = Image(height=16, width=6, encoding=encoding, step=step, data=bytes(16 * 6))
    with pytest.raises(ConversionError, match=says) as caught:
        image_array(wrong)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(
        "send rgb8, bgr8, rgba8, bgra8 or mono8"
    )


def test_a_cv_bridge_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built for another NumPy it fails in its own way."""

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("module compiled against ABI version 0x1000009\nbut this NumPy has 0x2000000")

    monkeypatch.setitem(sys.modules, "cv_bridge", Broken("cv_bridge"))
    with pytest.raises(ConversionError, match="needs cv_bridge, which is not usable here .*ABI") as caught:
        image_array(Image(height=2, width=2, encoding="yuv422", step=4, data=bytes(8)))
    assert "\n" not in str(caught.value)
