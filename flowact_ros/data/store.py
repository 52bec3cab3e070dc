# SPDX-License-Identifier: Apache-2.0
"""Rendered clips on disk: plain .npy arrays (memory-mapped on read) and one JSON a clip.

A clip folder holds `frames.npy` uint8 [T, 3, H, W], `boxes.npy` float32 [T, 4, 4] (rows as `BOX_NAMES`, pixels
x0 y0 x1 y1), `opening.npy` float32 [T] (true inner-lip gap), `pcm.npy` float16 [T * 960] at 24 kHz and `clip.json`.
It is complete when `clip.json` is there: that file is written last. Long clips may keep their frames as JPEG, 40 times
smaller: `frames.jpgs` is one picture after the other, `frames_at.npy` int64 [T + 1] says where each begins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg

JPEG_QUALITY = 95  # about 45 dB: far above what the VAE keeps
BOX_NAMES = ("mouth", "eye_left", "eye_right", "face")


class JpegFrames:
    """Frames `[T, 3, H, W]` uint8 in a file of JPEGs. Indexed like an array; only what is asked for is decoded."""

    def __init__(self, path: Path, starts: np.ndarray, shape: tuple[int, ...]) -> None:
        self.path, self.starts, self.shape = path, starts, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | tuple) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        with self.path.open("rb") as file:
            pictures = [self._read(file, k) for k in np.atleast_1d(np.arange(len(self))[first])]
        frames = np.stack(pictures) if pictures else np.empty((0, *self.shape[1:]), np.uint8)
        return frames[(0 if isinstance(first, int) else slice(None), *rest)]

    def _read(self, file: BinaryIO, k: int) -> np.ndarray:
        file.seek(int(self.starts[k]))
        return decode_jpeg(file.read(int(self.starts[k + 1] - self.starts[k]))).transpose(2, 0, 1)


@dataclass(frozen=True)
class StoredClip:
    """One clip; arrays are read from disk when asked for."""

    path: Path
    info: dict[str, Any]

    def array(self, name: str) -> np.ndarray | JpegFrames:
        if name == "frames" and (self.path / "frames.jpgs").exists():
            size = self.info["size"]
            starts = np.load(self.path / "frames_at.npy")
            return JpegFrames(self.path / "frames.jpgs", starts, (self.frames, 3, size, size))
        return np.load(self.path / f"{name}.npy", mmap_mode="r")

    @property
    def frames(self) -> int:
        return int(self.info["frames"])

def write_clip(
    path: Path, arrays: dict[str, np.ndarray], info: dict[str, Any], *, jpeg: bool = False
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if jpeg:
        arrays = dict(arrays)
        pictures = [
            encode_jpeg(frame.transpose(1, 2, 0), JPEG_QUALITY, full_colour=True)
            for frame in arrays.pop("frames")
        ]
        (path / "frames.jpgs").write_bytes(b"".join(pictures))
        arrays["frames_at"] = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    (path / "clip.json").write_text(json.dumps(info) + "\n", encoding="utf-8")


def read_clips(*roots: Path | str) -> list[StoredClip]:
    """All complete clips below `roots`, in name order within each."""
    return [
        StoredClip(meta.parent, json.loads(meta.read_text(encoding="utf-8")))
        for root in roots
        for meta in sorted(Path(root).glob("*/clip.json"))
    ]
