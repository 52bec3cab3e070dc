# SPDX-License-Identifier: Apache-2.0
"""From any image to a reference picture, and the check whether the codec can draw and move it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.engine.interfaces import ReferenceError_
from flowact_ros.models.codec.appearance import PARTS, Appearance, Landmarks
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.codec.motion import control_index, denormalise, indices, normalise
from flowact_ros.timebase import FRAMES_PER_LATENT

MINIMUM_SIDE = 32  # [px] a smaller reference image holds no face
LEAST_PSNR = {"picture": 20.0, "mouth": 14.0, "eye_left": 14.0, "eye_right": 14.0}  # [dB] of the reference drawn anew
LEAST_CONTRAST = 0.14  # deviation of pixels, of 2, where mouth and eyes are: skin alone has less
LEAST_CERTAINTY = {"mouth": 0.65, "eye_left": 0.94, "eye_right": 0.94}  # of a landmark; noise has eyes of 0.92
SURE = 0.998  # eyes that are surer than this are upright; of a turned face they are found less surely
TURNED_BY = 0.001  # so much surer, when the picture is turned, says that it should be
TURNS = ("lies on its right side", "is upside down", "lies on its left side")  # by quarters, against the clock
LEAST_MOVED = {"mouth": 12.0, "eye_left": 20.0, "eye_right": 20.0}  # levels of 255 (RMS): mouth opened, lids closed
EYE_DISTANCE = (0.08, 0.45)  # picture widths
ADVICE = "use a picture in the style of the shipped characters, face to the front, eyes in the upper half"


def fit_picture(rgb: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 `[H, W, 3]`, its middle of the same shape, resized -> `[1, 3, height, width]` in [-1, 1].

    Raises ReferenceError_ for another type or shape, or for less than 32 pixels a side.
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ReferenceError_(f"reference image is {rgb.dtype} {list(rgb.shape)}; uint8 [H, W, 3] RGB is needed")
    high, wide = rgb.shape[:2]
    if min(high, wide) < MINIMUM_SIDE:
        raise ReferenceError_(f"reference image is {wide} x {high} pixels; at least {MINIMUM_SIDE} a side are needed")
    rows, columns = min(high, wide * height // width), min(wide, high * width // height)
    top, left = (high - rows) // 2, (wide - columns) // 2
    middle = torch.from_numpy(np.ascontiguousarray(rgb[top : top + rows, left : left + columns]))
    picture = middle.permute(2, 0, 1).unsqueeze(0).float()
    if (rows, columns) != (height, width):
        picture = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)
    return picture / 127.5 - 1.0


def check_drawn(codec: LiveCodec, who: Appearance, landmarks: Landmarks) -> None:
    """Raises ReferenceError_ for a picture without a face, one whose face is turned or does not move when it is told
    to, and for one that comes back another."""
    _check_face(landmarks, codec.size)
    _check_upright(codec, who.picture, landmarks)
    frames = codec.poses(who, _tried(who)).astype(np.float32)
    _check_moves(codec, who, frames)
    back = frames[0] / 127.5 - 1.0
    error = (torch.from_numpy(back).permute(2, 0, 1) - who.picture[0]).square()
    for name, least in LEAST_PSNR.items():
        part = error
        if name in PARTS:
            rows, columns = _box(codec, who, PARTS.index(name))
            part = error[:, rows, columns]
            contrast = float(who.picture[0, :, rows, columns].std((1, 2)).max())
            if contrast < LEAST_CONTRAST:
                raise ReferenceError_(
                    f"this image shows nothing where its {name.replace('_', ' ')} should be (contrast {contrast:.2f}, "
                    f"{LEAST_CONTRAST} is needed); {ADVICE}"
                )
        psnr = float(10 * torch.log10(4.0 / part.mean().clamp_min(1e-10)))
        if psnr < least:
            raise ReferenceError_(
                f"the model cannot draw this image: its {name.replace('_', ' ')} comes back with {psnr:.1f} dB, "
                f"{least:.0f} dB are needed; {ADVICE}"
            )


def _check_face(landmarks: Landmarks, size: int) -> None:
    for name, certainty in zip(PARTS, landmarks.certainty[0].tolist()):
        if certainty < LEAST_CERTAINTY[name]:
            raise ReferenceError_(
                f"no {name.replace('_', ' ')} was found in this image (certainty {certainty:.2f}, "
                f"{LEAST_CERTAINTY[name]} is needed); {ADVICE}"
            )
    mouth, left, right = (landmarks.places[0] / size).tolist()
    apart, below = right[0] - left[0], mouth[1] - (left[1] + right[1]) / 2
    if not (EYE_DISTANCE[0] <= apart <= EYE_DISTANCE[1] and 0.3 * apart <= below <= 2.0 * apart):
        raise ReferenceError_(
            f"eyes and mouth of this image do not lie as in a face (eyes {apart:.2f} picture widths apart, the mouth "
            f"{below:.2f} below them); {ADVICE}"
        )


def _check_upright(codec: LiveCodec, picture: Tensor, landmarks: Landmarks) -> None:
    """The eyes of a face that stands on its head are found, but less surely than when the picture is turned."""
    certainty = _eyes(landmarks)
    if certainty >= SURE:
        return
    turned = [_eyes(codec.encode(torch.rot90(picture, quarters, (2, 3)))[1]) for quarters in (1, 2, 3)]
    if max(turned) > certainty + TURNED_BY:
        raise ReferenceError_(
            f"the face of this image {TURNS[turned.index(max(turned))]}: its eyes are found with a certainty of "
            f"{certainty:.3f}, and of {max(turned):.3f} when it is turned; {ADVICE}"
        )


def _eyes(landmarks: Landmarks) -> float:
    return float(landmarks.certainty[0, 1:].min())


def _tried(who: Appearance) -> Tensor:
    """Motion of a latent: as in the picture; mouth open; lids closed; mouth closed and lids open."""
    raw = denormalise(who.own.expand(FRAMES_PER_LATENT, -1).clone())
    jaw, lids = control_index("jaw"), indices("blink_left", "blink_right")
    raw[1, jaw], raw[3, jaw] = 0.9, 0.0
    raw[2, lids], raw[3, lids] = 1.0, 0.0
    return normalise(raw)


def _box(codec: LiveCodec, who: Appearance, part: int) -> tuple[slice, slice]:
    """Rows and columns of the crop of one of `PARTS`."""
    (x, y), (height, width) = who.corners[0, part].tolist(), codec.renderer.config.crop_sizes[part]
    return slice(y, y + height), slice(x, x + width)


def _check_moves(codec: LiveCodec, who: Appearance, frames: np.ndarray) -> None:
    for part, (name, tried) in enumerate(zip(PARTS, (1, 2, 2))):
        change = (frames[tried] - frames[3])[_box(codec, who, part)]
        moved = float(np.sqrt(np.square(change).mean()))
        if moved < LEAST_MOVED[name]:
            raise ReferenceError_(
                f"the {name.replace('_', ' ')} of this image does not move when it is told to ({moved:.0f} of 255 "
                f"levels, {LEAST_MOVED[name]:.0f} are needed); {ADVICE}"
            )
