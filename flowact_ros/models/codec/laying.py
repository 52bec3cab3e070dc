# SPDX-License-Identifier: Apache-2.0
"""Hands and forearms laid over frames on bytes, by OpenCV: what `Hands` does with tensors, within a level or two."""

from __future__ import annotations

import math

import cv2
import numpy as np

from flowact_ros.models.codec.hands import Shown, overlap
from flowact_ros.models.config import RendererConfig

NOTHING = (127, 127, 127, 0)  # grey, and no coverage


def lay_hands(
    frames: np.ndarray, shown: Shown, hands: np.ndarray, arms: np.ndarray, config: RendererConfig
) -> None:
    """Over frames uint8 `[N, H, W, 3]`, in place; hands and arms uint8 `[n, h, w, 4]`: colour and coverage."""
    half = config.hand_window // 2
    for n, hand, arm, (x, y), angle in zip(shown.frames, hands, arms, shown.places, shown.angles):
        lay(frames[n], arm, x - arm.shape[1] // 2, y)
        lay(frames[n], turned(hand, angle, config), x - half, y - half)


def turned(hand: np.ndarray, angle: float, config: RendererConfig) -> np.ndarray:
    """A hand uint8 `[h, w, 4]` in a square around the palm, turned by `angle`."""
    (height, width), window = hand.shape[:2], config.hand_window
    across, down = math.cos(angle) / config.hand_scale, math.sin(angle) / config.hand_scale
    turn = np.array([[across, down], [-down, across]])  # from the square's pixels to the hand's, around the palm
    palm = np.array([width / 2 - 0.5, height / 2 - 0.5 + config.hand_above])
    shift = palm + turn @ np.full(2, 0.5 - window / 2)
    return cv2.warpAffine(
        hand, np.column_stack([turn, shift]), (window, window),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderValue=NOTHING,
    )  # fmt: skip


def lay(frame: np.ndarray, layer: np.ndarray, x: int, y: int) -> None:
    """Over a frame uint8 `[H, W, 3]`, in place: a layer uint8 `[h, w, 4]` whose corner is at (x, y)."""
    box = overlap(frame.shape[:2], layer.shape[:2], x, y)
    if box is None:
        return
    (left, right), (top, bottom) = box
    part = layer[top - y : bottom - y, left - x : right - x]
    cover = cv2.extractChannel(part, 3).astype(np.float32)
    below = frame[top:bottom, left:right]
    below[:] = cv2.blendLinear(cv2.cvtColor(part, cv2.COLOR_RGBA2RGB), below.copy(), cover, 255 - cover)
