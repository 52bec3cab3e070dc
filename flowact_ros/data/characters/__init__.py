# SPDX-License-Identifier: Apache-2.0
"""Synthetic characters: a procedural, resolution-free renderer of busts with hands, in four styles."""

from .canvas import View
from .controls import CONTROL_LIMITS, CONTROL_NAMES, CharacterError, clamp_controls, control_index, neutral
from .identity import STYLES, Identity
from .names import NAMED
from .renderer import feature_boxes, landmarks, mouth_opening, neutral_picture, render
from .seeds import identity_from_seed

__all__ = [
    "CONTROL_LIMITS",
    "CONTROL_NAMES",
    "NAMED",
    "STYLES",
    "CharacterError",
    "Identity",
    "View",
    "clamp_controls",
    "control_index",
    "feature_boxes",
    "identity_from_seed",
    "landmarks",
    "mouth_opening",
    "neutral",
    "neutral_picture",
    "render",
]
