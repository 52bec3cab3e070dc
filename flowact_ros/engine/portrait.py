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
from flowact_ros.timebase import FRAMES_PER_LATENT

MINIMUM_SIDE = 32  # [px] a smaller reference image holds no face
LEAST_PSNR = {"picture": 20.0, "mouth": 14.0, "eye_left": 14.0, "eye_right": 14.0}  # [dB] of the reference drawn anew
LEAST_CONTRAST = 0.14  # deviation of pixels, of 2, where mouth and eyes are: skin alone has less
LEAST_CERTAINTY = 0.65  # of a landmark
EYE_DISTANCE = (0.08, 0.45)  # picture widths
ADVICE = "use a picture in the style of the shipped characters, face to the front, eyes in the upper half"


def fit_picture(rgb: np.ndarray, size: int) -> Tensor:
    """uint8 `[H, W, 3]`, centre-cropped to a square and resized -> `[1, 3, size, size]` in [-1, 1].

    Raises ReferenceError_ for another type or shape, or for less than 32 pixels a side.
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ReferenceError_(f"reference image is {rgb.dtype} {list(rgb.shape)}; uint8 [H, W, 3] RGB is needed")
    height, width = rgb.shape[:2]
    if min(height, width) < MINIMUM_SIDE:
        raise ReferenceError_(
            f"reference image is {width} x {height} pixels; at least {MINIMUM_SIDE} a side are needed"
        )
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(rgb[top : top + side, left : left + side]))
    picture = square.permute(2, 0, 1).unsqueeze(0).float()
    if side != size:
        picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=True)
    return picture / 127.5 - 1.0


def check_drawn(codec: LiveCodec, who: Appearance, landmarks: Landmarks) -> None:
    """Raises ReferenceError_ for a picture without a face that can be moved, and for one that comes back another."""
    _check_face(landmarks, codec.size)
    back = codec.render(who, who.own.expand(FRAMES_PER_LATENT, -1))[0].astype(np.float32) / 127.5 - 1.0
    error = (torch.from_numpy(back).permute(2, 0, 1) - who.picture[0]).square()
    sizes = codec.renderer.config
    for name, least in LEAST_PSNR.items():
        part = error
        if name in PARTS:
            (x, y), side = who.corners[0, PARTS.index(name)].tolist(), sizes.crop_sizes[PARTS.index(name)]
            part = error[:, y : y + side, x : x + side]
            contrast = float(who.picture[0, :, y : y + side, x : x + side].std((1, 2)).max())
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
        if certainty < LEAST_CERTAINTY:
            raise ReferenceError_(
                f"no {name.replace('_', ' ')} was found in this image (certainty {certainty:.2f}, "
                f"{LEAST_CERTAINTY} is needed); {ADVICE}"
            )
    mouth, left, right = (landmarks.places[0] / size).tolist()
    apart, below = right[0] - left[0], mouth[1] - (left[1] + right[1]) / 2
    if not (EYE_DISTANCE[0] <= apart <= EYE_DISTANCE[1] and 0.3 * apart <= below <= 2.0 * apart):
        raise ReferenceError_(
            f"eyes and mouth of this image do not lie as in a face (eyes {apart:.2f} picture widths apart, the mouth "
            f"{below:.2f} below them); {ADVICE}"
        )
