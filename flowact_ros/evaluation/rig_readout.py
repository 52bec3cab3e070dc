# SPDX-License-Identifier: Apache-2.0
"""What the rig does, read from pixels: the ruler of every figure about the avatar's motion.

Three small convolutional networks look at a frame. The first sees the whole picture small: where eyes and mouth lie,
how the head is turned, whether hands are in the picture and where. The others look closely at what it found, turned
and scaled by the line between the eyes: one at the mouth, one at each eye with its brow. They hear nothing, know no
instruction, were trained on renderer frames of characters that neither training nor evaluation uses
(`train_rig_readout.py`), and are in no loss: the judge is not a player. Their own error on characters that they have
not seen is on their card (`weights/evaluation/rig_readout.json`).
"""

from __future__ import annotations

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
FACE = READ[:16]  # everything but hands
#: A usual distance from neutral of each column of FACE: the networks learn in these units.
UNITS = (0.03, 0.27, 0.23, 0.27, 0.3, 0.2, 0.2, 0.2, 0.23, 0.2, 0.28, 0.28, 0.16, 0.08, 0.055, 0.045)
LANDMARKS = ("eye_left", "eye_right", "mouth", "head")  # the last is the middle of the face's outline

LINES = 192  # frames are brought to this size
SMALL = 96  # side of the whole picture as the first network sees it
MAPS = 16  # places that the first network finds: the landmarks, and what else helps
# A closer look: pixels (across, down), extent across, shift down, both in distances of the eyes
MOUTH_LOOK = ((56, 48), 1.5, 0.08)
EYE_LOOK = ((40, 48), 0.85, -0.2)
USUAL_EYES = 0.18  # distance of the eyes as a fraction of the canvas
CONFIG = {
    "lines": LINES, "small": SMALL, "maps": MAPS, "mouth": [list(MOUTH_LOOK[0]), *MOUTH_LOOK[1:]],
    "eye": [list(EYE_LOOK[0]), *EYE_LOOK[1:]], "read": list(READ),
}  # fmt: skip


def column(name: str) -> int:
    """Column of a reading; raises ValueError if there is none."""
    return READ.index(name)


class Finder(nn.Module):
    """float `[B, 3, 96, 96]` in -1 .. 1 -> places `[B, 4, 2]` of LANDMARKS (x, y; 0 is the middle), the head's turn
    `[B, 3]` in UNITS, hands `[B, 2, 3]`: in the picture (logit), x, y."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.maps = nn.Conv2d(32, MAPS, 1)
        self.turn = nn.Sequential(nn.Linear(5 + MAPS * (2 + 32), 96), nn.SiLU(), nn.Linear(96, 3))
        self.hands = nn.Sequential(
            nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(48, 16, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(16 * 12 * 12, 64), nn.SiLU(), nn.Linear(64, 6),
        )  # fmt: skip

    def forward(self, small: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.silu(self.second(F.silu(self.first(_contrast(small)))))
        x = F.silu(x + self.third(x))
        where = (4 * self.maps(x)).flatten(2).softmax(2)  # [B, MAPS, 24 * 24]
        side = torch.linspace(-0.5, 0.5, 2 * x.shape[-1] + 1, device=x.device)[1::2]
        grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), 2).flatten(0, 1)  # [24 * 24, 2]: x, y
        places = where @ grid
        seen = where @ x.flatten(2).transpose(1, 2)  # what lies at those places
        turn = self.turn(torch.cat([_geometry(places), 20 * places.flatten(1), seen.flatten(1)], 1))
        return places[:, : len(LANDMARKS)], turn, self.hands(x).view(-1, 2, 3)


class Look(nn.Module):
    """A closer look `[N, 3, h, w]` in -1 .. 1 -> `[N, outputs]`."""

    def __init__(self, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        width, height = size
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 48, 3, padding=1), nn.SiLU(), nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * (width // 8) * (height // 8), 128), nn.SiLU(), nn.Linear(128, outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(_contrast(x))


def _geometry(places: Tensor) -> Tensor:
    """What the places `[B, 4, 2]` of the landmarks say of the head's turn, `[B, 5]`, of about unit size: the tilt of
    the line between the eyes, and where eyes and mouth lie against the outline, along that line and across."""
    left, right, mouth, head = places[:, :4].unbind(1)
    across = right - left
    length = across.norm(dim=1, keepdim=True).clamp_min(0.02)
    along = across / length
    below = torch.stack([-along[:, 1], along[:, 0]], 1)
    parts = [along[:, 1:] / 0.045]
    for point, usual in (((left + right) / 2, -0.12), (mouth, 0.57)):
        offset = (point - head) / length
        parts += [(offset * along).sum(1, keepdim=True) / 0.08]
        parts += [((offset * below).sum(1, keepdim=True) - usual) / 0.08]
    return torch.cat(parts, 1)


def _contrast(x: Tensor) -> Tensor:
    """Every picture with the same mean and contrast: a screen's face and skin differ much in both."""
    return (x - x.mean((2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(0.05)


class Readout(nn.Module):
    """All three. float frames `[B, 3, 192, 192]` in -1 .. 1 -> readings `[B, R]`."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()
        self.mouth = Look(MOUTH_LOOK[0], 5)  # opening, width, round, press, smile
        self.eye = Look(EYE_LOOK[0], 6)  # lid, wide, gaze outwards and up, brow, inner end
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        places, turn, hands = self.finder(
            F.interpolate(frames, (SMALL, SMALL), mode="bilinear", antialias=True)
        )
        face = torch.cat([self.face(frames, places.detach()), turn], 1)
        hands = torch.cat([hands[:, :, :1].sigmoid(), hands[:, :, 1:] + 0.5], 2)
        return torch.cat([face * face.new_tensor(UNITS), hands.flatten(1)], 1)

    def face(self, frames: Tensor, places: Tensor) -> Tensor:
        """Mouth and eyes `[B, 13]` in UNITS of frames whose landmarks `[B, 4, 2]` are known."""
        across = places[:, 1] - places[:, 0]
        mouth = self.mouth(look(frames, places[:, 2], across, *MOUTH_LOOK))
        # A mouth twice as near opens twice as far.
        opening = mouth[:, :1] * (across.norm(dim=1, keepdim=True) / USUAL_EYES)
        # The eye on the left is looked at in a mirror, so that one network knows both.
        sides = [look(frames, places[:, i], across, *EYE_LOOK) for i in (0, 1)]
        left, right = self.eye(torch.cat([sides[0].flip(3), sides[1]])).chunk(2)
        lids = torch.stack([left[:, 0], right[:, 0], (left[:, 1] + right[:, 1]) / 2], 1)
        gaze = torch.stack([(right[:, 2] - left[:, 2]) / 2, (left[:, 3] + right[:, 3]) / 2], 1)
        brows = torch.stack([left[:, 4], right[:, 4], (left[:, 5] + right[:, 5]) / 2], 1)
        return torch.cat([opening, mouth[:, 1:], lids, gaze, brows], 1)


def look(
    frames: Tensor, places: Tensor, across: Tensor, size: tuple[int, int], extent: float, down: float
) -> Tensor:
    """Cut `[B, 3, h, w]` out of frames around places `[B, 2]`; the line between the eyes, across `[B, 2]`, lies level.

    extent: width of the cut, down: how far its middle lies below the place, both in lengths of that line.
    """
    width, height = size
    below = torch.stack([-across[:, 1], across[:, 0]], 1)  # a quarter turn clockwise
    middle = 2 * (places + down * below)  # grid_sample's coordinates run from -1 to 1
    columns = torch.stack([extent * across, extent * height / width * below, middle], 2)  # [B, 2, 3]
    grid = F.affine_grid(columns, [len(frames), 3, height, width], align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


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


def default_path() -> Path:
    return weights_dir() / "evaluation" / "rig_readout.safetensors"


def load_readout(path: Path | None = None) -> tuple[Readout, dict]:
    """The trained readout and its card. Raises CheckpointError."""
    readout = Readout()
    card = load_weights(path or default_path(), readout, kind="rig_readout", config=CONFIG)
    return readout.eval().requires_grad_(False), card
