# SPDX-License-Identifier: Apache-2.0
"""Rendered clips on disk: plain .npy arrays (memory-mapped on read) and one JSON a clip.

A clip folder holds `frames.npy` uint8 [T, 3, H, W], `boxes.npy` float32 [T, 4, 4] (rows as `BOX_NAMES`, pixels
x0 y0 x1 y1), `opening.npy` float32 [T] (true inner-lip gap), `pcm.npy` float16 [T * 960] at 24 kHz and `clip.json`.
It is complete when `clip.json` is there: that file is written last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BOX_NAMES = ("mouth", "eye_left", "eye_right", "face")


@dataclass(frozen=True)
class StoredClip:
    """One clip; arrays are read from disk when asked for."""

    path: Path
    info: dict[str, Any]

    def array(self, name: str) -> np.ndarray:
        return np.load(self.path / f"{name}.npy", mmap_mode="r")

    @property
    def frames(self) -> int:
        return int(self.info["frames"])

    def instruction_at(self, frame: int) -> str:
        """The instruction text in force at `frame`."""
        text = ""
        for start, words in self.info["instruction"]:
            if start <= frame:
                text = words
        return text


def write_clip(path: Path, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    (path / "clip.json").write_text(json.dumps(info) + "\n", encoding="utf-8")


def read_clips(root: Path | str) -> list[StoredClip]:
    """All complete clips below `root`, in name order."""
    return [
        StoredClip(meta.parent, json.loads(meta.read_text(encoding="utf-8")))
        for meta in sorted(Path(root).glob("*/clip.json"))
    ]
