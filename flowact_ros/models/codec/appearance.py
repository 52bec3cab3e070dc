# SPDX-License-Identifier: Apache-2.0
"""Who is drawn: all that the renderer needs of a reference picture, made once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.blocks import Down, Residual, Up, positions
from flowact_ros.models.codec.motion import CONTROL_NAMES, CONTROLS, indices
from flowact_ros.models.codec.painters import CropPainter, feather
from flowact_ros.models.config import RendererConfig

#: Controls that each painter follows.
MOUTH = indices(
    "jaw", "jaw_x", "mouth_width", "mouth_round", "lip_upper", "lip_lower", "lip_press", "teeth", "tongue", "smile",
    "smirk", "cheek",
)  # fmt: skip
_BOTH_EYES = ("gaze_x", "gaze_y", "eye_wide", "squint", "brow_inner", "cheek", "smile")
EYES = tuple(indices(f"blink_{side}", f"brow_{side}", *_BOTH_EYES) for side in ("left", "right"))
_FACE = {*MOUTH, *EYES[0], *EYES[1]}
#: Controls that move the head and the body.
POSE = [i for i in range(CONTROLS) if i not in _FACE and "hand" not in CONTROL_NAMES[i]]

STILL = (
    0.6  # [deviations] a reference that is so near to neutral is taken for neutral: the reading is no better
)
CERTAIN = 0.1  # [half pictures] a landmark is as sure as the share of its heat that lies so near
PARTS = ("mouth", "eye_left", "eye_right")  # what is found in a reference and painted


class Appearance(NamedTuple):
    """Of N references. Crops are those of `PARTS`; features of the eyes hold left and right after another.

    picture: `[N, 3, H, W]` in [-1, 1]; own: `[N, K]` the reference's own motion, normalised; corners: int `[N, 3, 2]`
    (x, y) of the crops; weights: how much of a painted crop is seen (`shares`); masks: `[N, parts, H/4, W/4]`;
    finest, fine, coarse: features at strides 4, 8 and 16; identity: `[N, D]`
    """

    picture: Tensor
    own: Tensor
    corners: Tensor
    masks: Tensor
    finest: Tensor
    fine: Tensor
    coarse: Tensor
    identity: Tensor
    mouth_weight: Tensor
    mouth_fine: Tensor
    mouth_coarse: Tensor
    eyes_weight: Tensor
    eyes_fine: Tensor
    eyes_coarse: Tensor

    def select(self, index: Tensor) -> Appearance:
        """The appearances of these references `[M]`, which may be repeated."""
        return Appearance(*(field[index] for field in self))


class Landmarks(NamedTuple):
    """Where `PARTS` are: places `[N, 3, 2]` (x, y) in pixels, how sure that is, `[N, 3]` in 0 .. 1, and the heat map
    `[N, 3, cells]` that says so. read: `[N, K]`, the reference's motion as it was read, before `settled`.
    """

    places: Tensor
    certainty: Tensor
    heat: Tensor
    read: Tensor


def settled(read: Tensor) -> Tensor:
    """The reference's motion from its reading `[N, K]`: most references are neutral, and a head that is taken for one
    turned by half a degree stands a pixel beside itself in every frame.
    """
    return read * (read.abs() > STILL)


def heat_near(heat: Tensor, places: Tensor) -> Tensor:
    """Share `[N, 3]` of heat maps `[N, 3, cells]` of square pictures around `places` `[N, 3, 2]` in [-1, 1]."""
    side = round(heat.shape[-1] ** 0.5)
    cells = positions(side, side, heat.device).flatten(1)
    return (heat * ((cells - places[..., None]).square().sum(2) < CERTAIN**2)).sum(-1)


def boxes(picture: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Indices `[N, C, h, w]` into flattened pictures `[N, C, H, W]` of boxes of size (h, w) at corners int `[N, 2]`
    (x, y).
    """
    n, channels, height, width = picture.shape
    down, across = (torch.arange(side, device=picture.device) for side in size)
    plane = torch.arange(n * channels, device=picture.device).view(n, channels, 1, 1) * (height * width)
    rows = (corners[:, 1, None] + down)[:, None, :, None] * width
    return plane + rows + (corners[:, 0, None] + across)[:, None, None, :]


def crop(picture: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes `[N, C, h, w]` of size (h, w) of pictures `[N, C, H, W]` at corners int `[N, 2]` (x, y)."""
    return picture.reshape(-1)[boxes(picture, corners, size)]


def paste(picture: Tensor, corners: Tensor, added: Tensor) -> Tensor:
    """`picture` `[N, C, H, W]` with boxes `added` `[N, C, h, w]` added at corners int `[N, 2]` (x, y)."""
    index = boxes(picture, corners, added.shape[2:])
    return picture.reshape(-1).index_add(0, index.reshape(-1), added.reshape(-1)).view_as(picture)


def shares(corners: Tensor, config: RendererConfig) -> list[Tensor]:
    """How much of each painted crop at corners int `[N, 3, 2]` is seen, `[N, 1, h, w]` a part in 0 .. 1.

    A crop fades out at its border. Eyes that overlap share the place, and the mouth has what they leave: it cannot know
    what they do.
    """
    n, device = len(corners), corners.device
    own = [feather(*size).to(device).expand(n, 1, -1, -1) for size in config.crop_sizes]
    taken = torch.zeros(n, 1, config.size, config.size, device=device)
    for i in (1, 2):
        taken = paste(taken, corners[:, i], own[i])
    eyes = [own[i] / crop(taken, corners[:, i], config.eye_size).clamp_min(1) for i in (1, 2)]
    return [own[0] * (1 - crop(taken, corners[:, 0], config.mouth_size).clamp_max(1)), *eyes]


class AppearanceEncoder(nn.Module):
    """A U-Net over the reference: part masks, features to be warped, an identity vector, landmarks, its own motion."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        w4, w8, w16, w32 = config.encoder_widths
        self.stem = nn.Conv2d(48, w4, 3, padding=1)
        self.encode4, self.down8 = Residual(w4), Down(w4, w8)
        self.encode8, self.down16 = Residual(w8), Down(w8, w16)
        self.encode16, self.down32 = Residual(w16), Down(w16, w32)
        self.place = nn.Parameter(0.02 * torch.randn(1, w32, config.size // 32, config.size // 32))
        self.encode32 = nn.ModuleList([Residual(w32), Residual(w32)])
        self.up16, self.decode16 = Up(w32, w16), Residual(w16)
        self.up8, self.decode8 = Up(w16, w8), Residual(w8)
        self.masks = nn.Conv2d(w8, config.parts, 3, padding=1)
        self.sharper_masks = nn.Conv2d(config.finest_width, config.parts, 3, padding=1)  # where parts meet
        nn.init.zeros_(self.sharper_masks.weight)
        nn.init.zeros_(self.sharper_masks.bias)
        self.up4, self.finest = Up(w8, config.finest_width), nn.Conv2d(w4, config.finest_width, 1)
        self.fine = nn.Conv2d(w8, config.fine_width, 1)
        self.coarse = nn.Conv2d(w16, config.coarse_width, 1)
        self.heat = nn.Conv2d(w8, len(PARTS), 3, padding=1)
        self.identity = nn.Linear(w32, config.identity)
        # its own motion is read where it can be seen: the mouth's in the mouth's features, and so on
        self.own_mouth = nn.Linear(16 * config.mouth_widths[1], len(MOUTH))
        self.own_eyes = nn.ModuleList(nn.Linear(16 * config.eye_widths[1], len(EYES[0])) for _ in EYES)
        self.own_pose = nn.Linear(9 * w32, len(POSE))

    def forward(self, picture: Tensor, mouth: CropPainter, eyes: CropPainter) -> tuple[Appearance, Landmarks]:
        """picture `[N, 3, H, W]` in [-1, 1] -> its appearance and its landmarks."""
        f4 = self.encode4(self.stem(F.pixel_unshuffle(picture, 4)))
        f8 = self.encode8(self.down8(f4))
        f16 = self.encode16(self.down16(f8))
        f32 = self.down32(f16) + self.place
        for block in self.encode32:
            f32 = block(f32)
        g16 = self.decode16(self.up16(f32) + f16)
        g8 = self.decode8(self.up8(g16) + f8)
        places, certainty, heat = self._landmarks(g8)
        corners = self.corners(places)
        finest = self.up4(g8) + self.finest(f4)
        blunt = F.interpolate(self.masks(g8), scale_factor=2.0, mode="bilinear")
        masks = torch.softmax(blunt + self.sharper_masks(F.silu(finest)), 1)
        mouth_features = mouth.features(crop(picture, corners[:, 0], mouth.size))
        sides = torch.cat([crop(picture, corners[:, i], eyes.size) for i in (1, 2)])
        eye_features = [f.unflatten(0, (2, -1)).transpose(0, 1) for f in eyes.features(sides)]
        read = self._own(f32, mouth_features[1], eye_features[1])
        weights = shares(corners, self.config)
        identity = torch.cat([self.identity(F.silu(f32.mean((2, 3)))), self._part_colours(picture, masks)], 1)
        found = Appearance(
            picture,
            settled(read),
            corners,
            masks,
            finest,
            self.fine(g8),
            self.coarse(g16),
            identity,
            weights[0],
            *mouth_features,
            torch.stack(weights[1:], 1),
            *eye_features,
        )
        return found, Landmarks(places, certainty, heat, read)

    def _landmarks(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heat = torch.softmax(self.heat(features).flatten(2), -1)  # [N, 3, cells]
        middle = heat @ positions(*features.shape[2:], features.device).flatten(1).T
        return (middle + 1) * (self.config.size / 2), heat_near(heat, middle), heat

    def corners(self, landmarks: Tensor) -> Tensor:
        """Whole pixels, inside the picture, at which the crops around landmarks `[N, 3, 2]` begin: int `[N, 3, 2]`."""
        c = self.config
        size = landmarks.new_tensor(c.crop_sizes).flip(1)  # width and height, as places are (x, y)
        drop = landmarks.new_tensor([[0, c.mouth_drop], [0, -c.eye_lift], [0, -c.eye_lift]])
        corners = (landmarks.detach() + drop - size / 2).round()
        return torch.minimum(corners.clamp_min(0), c.size - size).long()

    def _part_colours(self, picture: Tensor, masks: Tensor) -> Tensor:
        """Mean colour of each part, `[N, 3 * parts]`: what skin and sleeves of hands are painted with."""
        small = F.avg_pool2d(picture, picture.shape[-1] // masks.shape[-1]).flatten(2)
        weights = masks.flatten(2)
        return (small @ weights.transpose(1, 2) / (weights.sum(-1)[:, None] + 1e-3)).flatten(1)

    def _own(self, deep: Tensor, mouth: Tensor, eyes: Tensor) -> Tensor:
        own = torch.zeros(len(deep), CONTROLS, device=deep.device)  # float32 under autocast, too
        own[:, POSE] = self.own_pose(F.adaptive_avg_pool2d(deep, 3).flatten(1)).float()
        own[:, MOUTH] = self.own_mouth(F.adaptive_avg_pool2d(mouth, 4).flatten(1)).float()
        for side, columns in enumerate(EYES):
            read = self.own_eyes[side](F.adaptive_avg_pool2d(eyes[:, side], 4).flatten(1)).float()
            own[:, columns[:2]] = read[:, :2]  # this eye's own lid and brow; the others are both eyes' mean
            shared = [c for c in columns[2:] if c not in MOUTH]
            kept = [2 + i for i, c in enumerate(columns[2:]) if c not in MOUTH]
            own[:, shared] = own[:, shared] + 0.5 * read[:, kept]
        return own
