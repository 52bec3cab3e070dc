# SPDX-License-Identifier: Apache-2.0
"""Still pictures (the reference of a character) from a file."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flowact_ros.media.errors import MediaError

MIN_SIDE, MAX_PIXELS = 16, 64_000_000
# What Pillow's decoders let through on damaged files, beside OSError.
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, EOFError)
_EXPECTED = "a png, jpeg or webp picture"


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture file as uint8 [H, W, 3] RGB, turned upright by its EXIF tag, transparency over mid grey.

    Raises `MediaError` for a file that is missing, empty, cut short, no picture, smaller than 16 pixels on a side or
    larger than 64 megapixels.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a directory; expected {_EXPECTED}")
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty (0 bytes); expected {_EXPECTED}")
        with warnings.catch_warnings():
            # Of damaged metadata and of size; the size is checked below, before anything is decoded.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                _check_size(path, *picture.size)
                picture.load()
                rgb = _flatten(ImageOps.exif_transpose(picture))
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist; expected {_EXPECTED}") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{path} is not a picture; expected {_EXPECTED}") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} is larger than {MAX_PIXELS // 1_000_000} megapixels") from error
    except _DECODER_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MediaError(f"{path} is not a readable picture ({reason}); expected {_EXPECTED}") from error
    return rgb


def encode_png(rgb: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a png file, without loss."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(data, "png", compress_level=3)
    return data.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """What `encode_png` made -> uint8 [H, W, 3]. Raises `MediaError` for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=("png",)) as picture:
            _check_size(Path("a png picture"), *picture.size)
            if picture.mode != "RGB":
                raise MediaError(f"a png picture has {picture.mode} pixels; expected RGB")
            return np.array(picture)
    except UnidentifiedImageError as error:
        raise MediaError(f"{len(data)} bytes are no png picture") from error
    except _DECODER_ERRORS as error:
        raise MediaError(f"a png picture is not readable ({(str(error).splitlines() or ['cut off'])[0]})") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise MediaError(f"{path} is {width}x{height} pixels; expected at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path} is {width}x{height} pixels; expected at most {MAX_PIXELS // 1_000_000} megapixels"
        )


def _flatten(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(backdrop, picture)
    elif picture.mode == "F" or picture.mode.startswith("I"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        white = _white(float(values.max()), 1.0 if picture.mode == "F" else 255.0)
        picture = Image.fromarray(np.clip(values * (255.0 / white), 0, 255).astype(np.uint8))
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def _white(top: float, lowest: float) -> float:
    """The sample value that means white where there are more than 8 bits: the usual one that `top` fits under."""
    return next((white for white in (lowest, 255.0, 65_535.0) if top <= white), top)
