# SPDX-License-Identifier: Apache-2.0
"""What the rig does, read from pixels: the ruler of every figure about the avatar's motion.

Small convolutional networks look at a frame and at the character's reference picture, which shows what neutral looks
like: without it high brows cannot be told from raised ones, nor a long face from a bowed one. The first sees both
small: about where eyes and mouth lie, how the head is turned, whether hands are in the picture and where. Two more
correct the places of eyes and mouth from cuts around them. The others look closely at what was found, turned and scaled
by the line between the eyes: one at the mouth, one at each eye with its brow. They hear nothing, know no instruction,
were trained on renderer frames of characters that neither training nor evaluation uses (`train_rig_readout.py`), and
are in no loss: the judge is not a player. Their own error on characters that they have not seen is on their card
(`weights/evaluation/rig_readout.json`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.codec.motion import RIG, control_index

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
#: Where the left and the right hand lie, below the canvas, while none is seen: there nothing is to be read.
AT_REST = [[RIG[control_index(f"hand_{side}_{axis}")].neutral for axis in "xy"] for side in ("left", "right")]
LANDMARKS = ("eye_left", "eye_right", "mouth", "head")  # the last is the middle of the face's outline

LINES = 192  # frames are brought to this size
SMALL = 96  # side of the whole picture as the first network sees it
GEOMETRY = 5  # numbers that `_geometry` gives
MAPS = 16  # places that the first network finds: the landmarks, and what else helps
# A closer look: pixels (across, down), extent across, shift down, both in distances of the eyes
MOUTH_LOOK = ((56, 48), 1.5, 0.08)
EYE_LOOK = ((40, 48), 0.85, -0.2)
# Cuts from which places are corrected, of an eye and of the mouth, and how often
EYE_CUT, MOUTH_CUT = ((32, 32), 1.0, 0.0), ((40, 32), 1.5, 0.0)
CORRECTIONS = 2
USUAL_EYES = 0.18  # distance of the eyes as a fraction of the canvas
CONFIG = {
    "reference": True, "lines": LINES, "small": SMALL, "maps": MAPS, "mouth": [list(MOUTH_LOOK[0]), *MOUTH_LOOK[1:]],
    "eye": [list(EYE_LOOK[0]), *EYE_LOOK[1:]], "read": list(READ), "corrections": CORRECTIONS,
    "eye_cut": [list(EYE_CUT[0]), *EYE_CUT[1:]], "mouth_cut": [list(MOUTH_CUT[0]), *MOUTH_CUT[1:]],
}  # fmt: skip


def column(name: str) -> int:
    """Column of a reading; raises ValueError if there is none."""
    return READ.index(name)


class Found(NamedTuple):
    """What the first network sees in pictures: places `[B, 4, 2]` of LANDMARKS (x, y; 0 is the middle), what tells how
    the head is turned `[B, GEOMETRY + 34 MAPS]`, hands `[B, 2, 3]`: in the picture (logit), x, y."""

    places: Tensor
    signs: Tensor
    hands: Tensor

    def row(self, batch: int) -> Found:
        """The one picture's, as many times as `batch`; unchanged if there are several."""
        return Found(*(x.expand(batch, *x.shape[1:]) for x in self))


class Finder(nn.Module):
    """float `[B, 3, 96, 96]` in -1 .. 1 -> Found; two of them -> the head's turn from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.maps = nn.Conv2d(32, MAPS, 1)
        self.turned = nn.Sequential(
            nn.Linear(2 * (GEOMETRY + MAPS * (2 + 32)), 128), nn.SiLU(), nn.Linear(128, 3)
        )
        self.hands = nn.Sequential(
            nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(48, 16, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(16 * 12 * 12, 64), nn.SiLU(), nn.Linear(64, 6),
        )  # fmt: skip

    def forward(self, small: Tensor) -> Found:
        x = F.silu(self.second(F.silu(self.first(_contrast(small)))))
        x = F.silu(x + self.third(x))
        where = (4 * self.maps(x)).flatten(2).softmax(2)  # [B, MAPS, 24 * 24]
        side = torch.linspace(-0.5, 0.5, 2 * x.shape[-1] + 1, device=x.device)[1::2]
        grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), 2).flatten(0, 1)  # [24 * 24, 2]: x, y
        places = where @ grid
        seen = where @ x.flatten(2).transpose(1, 2)  # what lies at those places
        signs = torch.cat([_geometry(places), 20 * places.flatten(1), seen.flatten(1)], 1)
        return Found(places[:, : len(LANDMARKS)], signs, self.hands(x).view(-1, 2, 3))

    def turn(self, frame: Found, reference: Found) -> Tensor:
        """Yaw, pitch and roll `[B, 3]` in UNITS against the reference."""
        return self.turned(torch.cat([frame.signs - reference.signs, reference.signs], 1))


class Look(nn.Module):
    """A closer look at a frame and the same at the reference, `[N, 3, h, w]` each in -1 .. 1 -> `[N, outputs]`."""

    def __init__(self, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        width, height = size
        self.body = nn.Sequential(
            nn.Conv2d(6, 24, 5, stride=2, padding=2), nn.SiLU(), nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 48, 3, padding=1), nn.SiLU(), nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * (width // 8) * (height // 8), 128), nn.SiLU(), nn.Linear(128, outputs),
        )  # fmt: skip

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        return self.body(torch.cat([_contrast(x), _contrast(reference)], 1))


class Offset(nn.Module):
    """A cut around a landmark, `[N, 3, h, w]` in -1 .. 1 -> how far from its middle the landmark lies `[N, 2]`, in
    lengths of the line between the eyes: along that line and below it."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        width, height = size
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.SiLU(), nn.Flatten(),
            nn.Linear(32 * (width // 4) * (height // 4), 64), nn.SiLU(), nn.Linear(64, 2),
        )  # fmt: skip

    def forward(self, cut: Tensor) -> Tensor:
        return 0.1 * self.body(_contrast(cut))


def _geometry(places: Tensor) -> Tensor:
    """What the places `[B, 4, 2]` of the landmarks say of the head's turn, `[B, 5]`, of about unit size: the tilt of
    the line between the eyes, and where eyes and mouth lie against the outline, along that line and across."""
    left, right, mouth, head = places[:, :4].unbind(1)
    across = right - left
    length = across.norm(dim=1, keepdim=True).clamp_min(0.02)
    along = across / length
    below = _below(along)
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
    """All three. float frames `[B, 3, 192, 192]` in -1 .. 1 and references, as many or one -> readings `[B, R]`."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()
        self.mouth = Look(MOUTH_LOOK[0], 5)  # opening, width, round, press, smile
        self.eye = Look(EYE_LOOK[0], 6)  # lid, wide, gaze outwards and up, brow, inner end
        self.eye_offset, self.mouth_offset = Offset(EYE_CUT[0]), Offset(MOUTH_CUT[0])
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor, reference: Tensor) -> Tensor:
        found = self.find(frames)
        neutral = self.find(reference).row(len(frames))
        reference = reference.expand(len(frames), -1, -1, -1)
        places = [self.corrected(x, at.places) for x, at in ((frames, found), (reference, neutral))]
        face = self.face(frames, places[0], reference, places[1])
        face = torch.cat([face, self.finder.turn(found, neutral)], 1)
        seen = found.hands[:, :, :1].sigmoid()
        places = torch.lerp(face.new_tensor(AT_REST), found.hands[:, :, 1:] + 0.5, seen)
        return torch.cat([face * face.new_tensor(UNITS), torch.cat([seen, places], 2).flatten(1)], 1)

    def find(self, frames: Tensor) -> Found:
        """What the first network sees in `[B, 3, 192, 192]`."""
        return self.finder(F.interpolate(frames, (SMALL, SMALL), mode="bilinear", antialias=True))

    @torch.no_grad()
    def corrected(self, frames: Tensor, places: Tensor) -> Tensor:
        """Places `[B, 4, 2]` of eyes and mouth from near to exact; the outline's middle stays."""
        for _ in range(CORRECTIONS):
            places = places + self.offsets(frames, places)
        return places

    def offsets(
        self, frames: Tensor, places: Tensor, spoil: Callable[[Tensor], Tensor] = lambda cut: cut
    ) -> Tensor:
        """How far the landmarks lie from `places` `[B, 4, 2]`, of the canvas; 0 for the last. spoil: done to cuts."""
        across = _across(places)
        left, right = (look(frames, places[:, i], across, *EYE_CUT) for i in (0, 1))
        eyes = self.eye_offset(spoil(torch.cat([left.flip(3), right])))
        mouth = self.mouth_offset(spoil(look(frames, places[:, 2], across, *MOUTH_CUT)))
        mirror = eyes.new_tensor([-1.0, 1.0])
        moved = torch.stack([eyes[: len(frames)] * mirror, eyes[len(frames) :], mouth, torch.zeros_like(mouth)], 1)
        return moved[:, :, :1] * across[:, None] + moved[:, :, 1:] * _below(across)[:, None]

    def face(self, frames: Tensor, places: Tensor, reference: Tensor, neutral: Tensor) -> Tensor:
        """Mouth and eyes `[B, 13]` in UNITS of frames whose landmarks `[B, 4, 2]` are known, as the references' are."""
        mouth = self.mouth(*(_mouths(x, at) for x, at in ((frames, places), (reference, neutral))))
        # A mouth twice as near opens twice as far.
        opening = mouth[:, :1] * (_across(places).norm(dim=1, keepdim=True) / USUAL_EYES)
        left, right = self.eye(_eyes(frames, places), _eyes(reference, neutral)).chunk(2)
        lids = torch.stack([left[:, 0], right[:, 0], (left[:, 1] + right[:, 1]) / 2], 1)
        gaze = torch.stack([(right[:, 2] - left[:, 2]) / 2, (left[:, 3] + right[:, 3]) / 2], 1)
        brows = torch.stack([left[:, 4], right[:, 4], (left[:, 5] + right[:, 5]) / 2], 1)
        return torch.cat([opening, mouth[:, 1:], lids, gaze, brows], 1)


def _across(places: Tensor) -> Tensor:
    """The line between the eyes `[B, 2]` of landmarks `[B, 4, 2]`."""
    return places[:, 1] - places[:, 0]


def _below(across: Tensor) -> Tensor:
    """A quarter turn clockwise of `[B, 2]`."""
    return torch.stack([-across[:, 1], across[:, 0]], 1)


def _mouths(frames: Tensor, places: Tensor) -> Tensor:
    return look(frames, places[:, 2], _across(places), *MOUTH_LOOK)


def _eyes(frames: Tensor, places: Tensor) -> Tensor:
    """Closer looks at both eyes `[2 B, 3, h, w]`: the one on the left in a mirror, so that one network knows both."""
    left, right = (look(frames, places[:, i], _across(places), *EYE_LOOK) for i in (0, 1))
    return torch.cat([left.flip(3), right])


def look(
    frames: Tensor, places: Tensor, across: Tensor, size: tuple[int, int], extent: float, down: float
) -> Tensor:
    """Cut `[B, 3, h, w]` out of frames around places `[B, 2]`; the line between the eyes, across `[B, 2]`, lies level.

    extent: width of the cut, down: how far its middle lies below the place, both in lengths of that line.
    """
    width, height = size
    below = _below(across)
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
def read(readout: Readout, frames: Tensor, reference: Tensor) -> np.ndarray:
    """Readings float32 `[T, R]` of square uint8 frames `[T, 3, H, H]` of the character in `reference` `[3, H', H']`."""
    neutral = as_input(reference[None])
    return torch.cat([readout(as_input(part), neutral) for part in frames.split(16)]).numpy()


def default_path() -> Path:
    return weights_dir() / "evaluation" / "rig_readout.safetensors"


def load_readout(path: Path | None = None) -> tuple[Readout, dict]:
    """The trained readout and its card. Raises CheckpointError."""
    readout = Readout()
    card = load_weights(path or default_path(), readout, kind="rig_readout", config=CONFIG)
    return readout.eval().requires_grad_(False), card
