# SPDX-License-Identifier: Apache-2.0
"""JPEG for the stream: libjpeg-turbo through simplejpeg, 4:2:0, the fast DCT."""

from __future__ import annotations

import numpy as np
import simplejpeg

from flowact_ros.media.errors import MediaError

DEFAULT_QUALITY = 85
MAX_SIDE = 16_384


def check_rgb(rgb: np.ndarray, what: str) -> np.ndarray:
    """The picture as a contiguous uint8 [H, W, 3] array, or `MediaError` with what it was instead."""
    if (
        not isinstance(rgb, np.ndarray)
        or rgb.dtype != np.uint8
        or rgb.ndim != 3
        or rgb.shape[2] != 3
        or 0 in rgb.shape
    ):
        got = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise MediaError(f"{what} needs a uint8 [H, W, 3] RGB picture, got {got}")
    if max(rgb.shape[:2]) > MAX_SIDE:
        raise MediaError(
            f"{what} got a picture of {rgb.shape[1]}x{rgb.shape[0]}; the largest side is {MAX_SIDE}"
        )
    return np.ascontiguousarray(rgb)


def encode_jpeg(rgb: np.ndarray, quality: int = DEFAULT_QUALITY, *, full_colour: bool = False) -> bytes:
    """uint8 [H, W, 3] RGB -> JPEG bytes. `quality` 1..100; `full_colour`: 4:4:4 and the exact DCT, for material."""
    if not 1 <= int(quality) <= 100:
        raise MediaError(f"JPEG quality is {quality}; expected 1 to 100")
    rgb = check_rgb(rgb, "encode_jpeg")
    return simplejpeg.encode_jpeg(
        rgb,
        quality=int(quality),
        colorspace="RGB",
        colorsubsampling="444" if full_colour else "420",
        fastdct=not full_colour,
    )


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG bytes -> uint8 [H, W, 3] RGB."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except (ValueError, TypeError, RuntimeError) as error:
        size = len(data) if isinstance(data, (bytes, bytearray, memoryview)) else 0
        raise MediaError(f"{size} bytes are not a whole JPEG ({error})") from error
