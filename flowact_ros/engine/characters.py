# SPDX-License-Identifier: Apache-2.0
"""The shipped characters: reference pictures in `weights/characters/NAME.png`, drawn by `flowact data characters`."""

from __future__ import annotations

import numpy as np

from flowact_ros.media.image import read_image
from flowact_ros.models.checkpoint import weights_dir


class CharacterNotFound(ValueError):
    """No shipped character has this name."""


def list_characters() -> list[str]:
    """Names of the shipped characters, sorted."""
    return sorted(path.stem for path in (weights_dir() / "characters").glob("*.png"))


def load_character(name: str) -> np.ndarray:
    """The reference picture of a shipped character, uint8 `[H, W, 3]`. Raises CharacterNotFound."""
    names = list_characters()
    if name not in names:
        raise CharacterNotFound(f"character {name!r} does not exist; the shipped ones are {', '.join(names) or 'none'}")
    return read_image(weights_dir() / "characters" / f"{name}.png")
