# SPDX-License-Identifier: Apache-2.0
"""JPEG and still pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowact_ros.media.errors import MediaError
from flowact_ros.media.image import read_image
from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg


def gradient(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1).astype(np.uint8)


def test_jpeg_keeps_the_picture_and_quality_matters():
    rgb = gradient()
    high, low = encode_jpeg(rgb, 95), encode_jpeg(rgb, 20)
    assert len(low) < len(high)
    assert np.abs(decode_jpeg(high).astype(int) - rgb).mean() < 3
    with Image.open(io.BytesIO(high)) as seen:  # another decoder agrees on the colour order
        assert np.abs(np.asarray(seen).astype(int) - rgb).mean() < 3


def test_jpeg_takes_views_and_refuses_anything_else():
    rgb = gradient()
    assert decode_jpeg(encode_jpeg(rgb[::-1, ::2])).shape == (48, 32, 3)
    for bad in (
        rgb[..., 0],
        rgb.astype(np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ):
        with pytest.raises(MediaError, match="uint8"):
            encode_jpeg(bad)
    with pytest.raises(MediaError, match="quality is 0"):
        encode_jpeg(rgb, 0)
    for broken in (b"", b"\xff\xd8", encode_jpeg(rgb)[:60], b"GIF89a"):
        with pytest.raises(MediaError, match="not a whole JPEG"):
            decode_jpeg(broken)


def test_image_formats_become_rgb(tmp_path):
    rgb = gradient()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb)
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(rgb[..., :1], 3, -1))
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[..., 0], rgb[..., 0])
    Image.fromarray(np.dstack([rgb, np.zeros((48, 64), np.uint8)])).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 128).all()
    Image.fromarray(rgb).convert("P").save(tmp_path / "p.gif")
    assert read_image(tmp_path / "p.gif").shape == rgb.shape


def test_a_turned_photograph_is_read_upright(tmp_path):
    rgb = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to see it upright"
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1))


def test_every_unusable_picture_is_one_clear_line(tmp_path):
    Image.fromarray(gradient(400, 400)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    Image.new("RGB", (8, 200)).save(tmp_path / "thin.png")
    Image.new("1", (10_000, 8_000)).save(tmp_path / "vast.png")
    cases = {
        "missing.png": (None, "does not exist"),
        "zero.png": (b"", "empty"),
        "cut.jpg": (whole[: len(whole) // 2], "not a readable picture"),
        "text.png": (b"not a picture", "not a picture"),
        "thin.png": (None, "8x200"),
        "vast.png": (None, "64 megapixels"),
    }
    for name, (data, expected) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError) as caught:
            read_image(tmp_path / name)
        assert expected in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_pictures_never_crash_the_reader(tmp_path_factory, data):
    stream = io.BytesIO()
    Image.fromarray(gradient()).save(
        stream, data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))
    )
    raw = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.img"
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        rgb = read_image(path)
    except MediaError as error:
        assert "\n" not in str(error)
    else:
        assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
