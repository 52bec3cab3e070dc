# SPDX-License-Identifier: Apache-2.0
"""Prepared footage on disk: one safetensors file a shot, and `footage.json`, which lists the clips they came from.

A shot holds `frames` uint8 (JPEG pictures, one after the other), `frames_at` int64 [T + 1] (where each begins), `pcm`
int16 [T * 960] at 24 kHz, `sound` float16 [T, 384] (features of the audio encoder that its header names as `heard_by`)
and `places` float32 [T, 3, 2] (x, y of mouth, left and right eye, in pixels of its square frames). The header also
has `source`, `start` [s], `size` [px] and `detector`. A file appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg

LIST = "footage.json"
QUALITY = 95


@dataclass(frozen=True)
class Shot:
    """One shot; pictures and sound are read from its file when they are asked for."""

    path: Path
    source: str
    start: float
    size: int
    heard_by: str
    starts: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def picture(self, index: int) -> np.ndarray:
        """One frame, uint8 `[3, size, size]`."""
        with safe_open(str(self.path), "np") as file:
            data = file.get_slice("frames")[int(self.starts[index]) : int(self.starts[index + 1])]
        return decode_jpeg(data.tobytes()).transpose(2, 0, 1)

    def array(self, name: str) -> np.ndarray:
        """`pcm` or `sound`."""
        with safe_open(str(self.path), "np") as file:
            return file.get_tensor(name)


def write_shot(
    path: Path, pictures: list[np.ndarray], arrays: dict[str, np.ndarray], about: dict[str, str]
) -> None:
    """pictures: uint8 `[size, size, 3]` each; arrays: `pcm`, `sound` and `places`; about: the header.

    Raises OSError, for a full disk.
    """
    jpegs = [encode_jpeg(picture, QUALITY, full_colour=True) for picture in pictures]
    tensors = {
        "frames": np.frombuffer(b"".join(jpegs), np.uint8),
        "frames_at": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
        **{name: np.ascontiguousarray(array) for name, array in arrays.items()},
    }
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, str(partial), metadata={**about, "size": str(len(pictures[0]))})
    except SafetensorError as error:  # a full disk, among others
        partial.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}") from None
    partial.chmod(0o644)  # safetensors makes files that only their owner may read
    partial.replace(path)


def read_footage(*folders: Path) -> list[Shot]:
    """All shots of prepared folders, in the order of their names.

    Raises ValueError for a folder that holds none, a file that is damaged, and shots that do not fit together.
    """
    shots = []
    for folder in folders:
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise ValueError(f"{folder} holds no footage; make it with `flowact data prepare CLIPS --out {folder}`")
        shots += [_read(path) for path in paths]
    for name in ("size", "heard_by"):
        found = {getattr(shot, name): shot.path for shot in shots}
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise ValueError(f"{first} has {name} {one} and {second} {other}; prepare all clips alike")
    return shots


def _read(path: Path) -> Shot:
    try:
        with safe_open(str(path), "np") as file:
            about = file.metadata() or {}
            starts, places = file.get_tensor("frames_at"), file.get_tensor("places")
            return Shot(
                path, about["source"], float(about["start"]), int(about["size"]), about["heard_by"], starts, places
            )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no shot of prepared footage, or is damaged ({error}); remove it and prepare its clip again"
        ) from None


def read_list(folder: Path) -> dict[str, Any]:
    """What `footage.json` says: `settings`, and `clips` by their fingerprint. Raises ValueError for a damaged file."""
    path = folder / LIST
    if not path.exists():
        return {"settings": None, "clips": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["clips"], dict):
            return found
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass  # told below
    raise ValueError(f"{path} is damaged; remove it, and all clips are prepared again")


def write_list(folder: Path, content: dict[str, Any]) -> None:
    partial = folder / f"{LIST}.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / LIST)


def fingerprint(path: Path) -> str:
    """Of a clip's bytes, so that a file that was moved or renamed is not prepared again."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()[:16]
