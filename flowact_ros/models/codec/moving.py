# SPDX-License-Identifier: Apache-2.0
"""Moving the pixels of a picture with cubic weights, where they matter.

Between pixels, linear and cubic interpolation differ by the picture's second differences alone. Most of a drawn picture
is flat or shaded evenly, so linear weights, which take a fraction of the time, give the same levels there. Where a
picture bends is kept in its fourth channel, which moves along: a place is computed anew if one of its four neighbours
bends. So nothing has to be known of faces, and there is no seam.
"""

from __future__ import annotations

import cv2
import numpy as np

STRAIGHT = 2  # levels a second difference may have: both interpolations then lie within a level of each other

LINE = 256  # places in a line of those that are computed anew: OpenCV takes no line of 32767


def bends(picture: np.ndarray) -> np.ndarray:
    """Marks uint8 `[h, w]`, 255 where `picture` uint8 `[h, w, 4]` bends, else 0. Reads the three colours."""
    across, down = (
        cv2.split(cv2.convertScaleAbs(cv2.Sobel(picture, cv2.CV_16S, x, y, ksize=1, borderType=cv2.BORDER_REPLICATE)))
        for x, y in ((2, 0), (0, 2))
    )
    most = across[0]
    for plane in (*across[1:3], *down[:3]):
        cv2.max(most, plane, dst=most)
    return cv2.threshold(most, STRAIGHT, 255, cv2.THRESH_BINARY)[1]


def move(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`picture` uint8 `[h, w, 4]`, three colours and `bends`, sampled at `places` float32 `[H, W, (x, y)]` in pixels,
    uint8 `[H, W, 4]`. What lies outside is its border. The fourth channel of the result means nothing.
    """
    moved = _sampled(picture, places, cv2.INTER_LINEAR)
    bent = np.flatnonzero(cv2.extractChannel(moved, 3) > 0)
    if len(bent):
        bent = np.resize(bent, -(-len(bent) // LINE) * LINE)  # the last line is filled with the first ones once more
        there = places.view(np.complex64).reshape(-1).take(bent).view(np.float32).reshape(-1, LINE, 2)
        again = _sampled(picture, there, cv2.INTER_CUBIC)
        moved.view(np.uint32).reshape(-1)[bent] = again.view(np.uint32).reshape(-1)
    return moved


def median_flow(flow: np.ndarray) -> np.ndarray:
    """`blocks.median_flow` of a flow float32 `[h, w, 2]`, by OpenCV."""
    return cv2.merge([cv2.medianBlur(plane, 5) for plane in cv2.split(flow)])


def _sampled(picture: np.ndarray, places: np.ndarray, weights: int) -> np.ndarray:
    return cv2.remap(picture, places, None, weights, borderMode=cv2.BORDER_REPLICATE)
