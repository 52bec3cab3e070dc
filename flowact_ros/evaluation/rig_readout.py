# SPDX-License-Identifier: Apache-2.0
"""What the rig does, read from pixels: the ruler of every figure about the avatar's motion.

Two small convolutional networks look at a frame. The first sees the whole picture small, finds the face, and says
whether hands are in the picture and where. The second sees the face's surroundings in detail and reads mouth, eyes,
brows and the head's turn. They hear nothing, know no instruction, were trained on renderer frames of characters that
neither training nor evaluation uses (`train_rig_readout.py`), and are in no loss: the judge is not a player. Their own
error on characters that they have not seen is on their card (`weights/evaluation/rig_readout.json`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.checkpoint import load_weights, weights_dir

#: Columns of a reading. Opening and places are fractions of the canvas, `in` is a probability, all others have the
#: units of the control of (nearly) the same name. Left and right are those of the picture.
READ: tuple[str, ...] = (
    "opening", "width", "round", "press", "smile",
    "lid_left", "lid_right", "eye_wide", "gaze_x", "gaze_y", "brow_left", "brow_right", "brow_inner",
    "yaw", "pitch", "roll",
    "hand_left_in", "hand_left_x", "hand_left_y", "hand_right_in", "hand_right_x", "hand_right_y",
)  # fmt: skip
FACE = READ[:16]  # read by the second network
#: A usual distance from neutral of each column of FACE: the networks learn in these units.
UNITS = (0.03, 0.27, 0.23, 0.27, 0.3, 0.2, 0.2, 0.2, 0.23, 0.2, 0.28, 0.28, 0.16, 0.08, 0.055, 0.045)

LINES = 192  # frames are brought to this size
SMALL = 64  # side of the whole picture as the first network sees it
SIDE = 104  # side of the face's surroundings, in pixels of LINES
CONFIG = {"lines": LINES, "small": SMALL, "side": SIDE, "widths": [16, 32, 48, 64], "read": list(READ)}


def column(name: str) -> int:
    """Column of a reading; raises ValueError if there is none."""
    return READ.index(name)


class Block(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class Finder(nn.Module):
    """float `[B, 3, 64, 64]` in -1 .. 1 -> `[B, 8]`: the face's place (x, y), then for each hand: in (logit), x, y."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 5, stride=2, padding=2), nn.SiLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.SiLU(), nn.Conv2d(24, 32, 3, stride=2, padding=1), Block(32), nn.SiLU(),
            nn.Conv2d(32, 16, 1), nn.SiLU(), nn.Flatten(), nn.Linear(16 * 8 * 8, 128), nn.SiLU(), nn.Linear(128, 8),
        )  # fmt: skip

    def forward(self, small: Tensor) -> Tensor:
        return self.body(_contrast(small))


class Reader(nn.Module):
    """float `[B, 3, 104, 104]` in -1 .. 1 around the face -> `[B, 16]`, FACE in UNITS."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = CONFIG["widths"]  # type: ignore[misc]
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 5, stride=2, padding=2), nn.SiLU(), nn.Conv2d(a, b, 3, stride=2, padding=1),
            Block(b), nn.SiLU(), nn.Conv2d(b, c, 3, stride=2, padding=1), Block(c), nn.SiLU(),
            nn.Conv2d(c, d, 3, stride=2, padding=1), Block(d), nn.SiLU(), nn.Conv2d(d, 32, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(32 * 7 * 7, 192), nn.SiLU(), nn.Linear(192, len(FACE)),
        )  # fmt: skip

    def forward(self, crops: Tensor) -> Tensor:
        return self.body(_contrast(crops))


def _contrast(x: Tensor) -> Tensor:
    """Every picture with the same mean and contrast: a screen's face and skin differ much in both."""
    return (x - x.mean((2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(0.05)


class Readout(nn.Module):
    """Both networks. float frames `[B, 3, 192, 192]` in -1 .. 1 -> readings `[B, R]`."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()
        self.reader = Reader()
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        found = self.finder(F.interpolate(frames, (SMALL, SMALL), mode="bilinear", antialias=True))
        face = self.reader(crops(frames, found[:, :2]))
        hands = found[:, 2:].view(-1, 2, 3)
        present = hands[:, :, :1].sigmoid()
        places = hands[:, :, 1:] + 0.5
        return torch.cat([face * face.new_tensor(UNITS), torch.cat([present, places], 2).flatten(1)], 1)


def crops(frames: Tensor, places: Tensor) -> Tensor:
    """Squares `[B, 3, 104, 104]` of frames `[B, 3, 192, 192]` around places `[B, 2]` (x, y; 0 is the middle).

    Whole pixels, and never beyond the picture: what is cut out is what was drawn.
    """
    corners = ((places.detach() + 0.5) * LINES - SIDE / 2).round().long().clamp(0, LINES - SIDE).tolist()
    return torch.stack(
        [frame[:, y : y + SIDE, x : x + SIDE] for frame, (x, y) in zip(frames, corners, strict=True)]
    )


def as_input(frames: Tensor) -> Tensor:
    """uint8 `[B, 3, H, H]` -> float `[B, 3, 192, 192]` in -1 .. 1."""
    values = frames.float()
    if values.shape[-1] != LINES:
        values = F.interpolate(values, (LINES, LINES), mode="bilinear", antialias=True)
    return values / 127.5 - 1.0


@torch.inference_mode()
def read(readout: Readout, frames: Tensor) -> np.ndarray:
    """Readings float32 `[T, R]` of square uint8 frames `[T, 3, H, H]`."""
    return torch.cat([readout(as_input(part)) for part in frames.split(16)]).numpy()


@torch.inference_mode()
def read_stream(readout: Readout, frames: Iterable[np.ndarray]) -> np.ndarray:
    """The same of frames uint8 `[H, H, 3]` that come one after the other."""
    rows: list[Tensor] = []
    waiting: list[Tensor] = []
    for frame in frames:
        waiting.append(as_input(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]))
        if len(waiting) == 16:
            rows.append(readout(torch.cat(waiting)))
            waiting.clear()
    if waiting:
        rows.append(readout(torch.cat(waiting)))
    return torch.cat(rows).numpy() if rows else np.zeros((0, len(READ)), np.float32)


def default_path() -> Path:
    return weights_dir() / "evaluation" / "rig_readout.safetensors"


def load_readout(path: Path | None = None) -> tuple[Readout, dict]:
    """The trained readout and its card. Raises CheckpointError."""
    readout = Readout()
    card = load_weights(path or default_path(), readout, kind="rig_readout", config=CONFIG)
    return readout.eval().requires_grad_(False), card
