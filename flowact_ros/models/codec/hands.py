# SPDX-License-Identifier: Apache-2.0
"""Hands: painted in their own frame, then laid over the picture where the motion says that they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.blocks import positions
from flowact_ros.models.codec.motion import control_index, denormalise
from flowact_ros.models.codec.painters import SpritePainter
from flowact_ros.models.config import RendererConfig

SIDES = ("left", "right")
DYE = (
    10.0  # unit of the logits of colours: one of several parts' colour is taken whole, which takes long steps
)
LOWEST = 1.17  # canvas heights; a palm below this is not to be seen
_KINDS = ("x", "y", "angle", "open", "point")
_COLUMNS = torch.tensor([[control_index(f"hand_{side}_{kind}") for kind in _KINDS] for side in SIDES])

Layer = tuple[int, Tensor, int, int]  # a frame's number, what lies over it `[4, h, w]` (colour, coverage), its corner


class Shown(NamedTuple):
    """Hands that are to be seen: numbers of their frames, inputs `[n, inputs]` of what paints them, palms (x, y) in
    pixels, angles in radians.
    """

    frames: list[int]
    inputs: Tensor
    places: list[tuple[int, int]]
    angles: list[float]


class Hands(nn.Module):
    """Both hands of the frames that show them. A hand turns with its angle; the forearm comes up from below."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        self.identity = identity = config.identity + 3 * config.parts
        self.inputs = identity + len(_KINDS) + 1
        self.hand = SpritePainter(config.hand_size, self.inputs, config.hand_widths, config.hidden)
        self.arm = SpritePainter(config.arm_size, self.inputs, config.arm_widths, config.hidden)
        # of which parts' colours in the reference a hand (skin) and an arm (sleeve) are: shares of 1, or a character
        # that is like no other gets a colour that nobody has; painters add to it
        self.dye = nn.Linear(identity, 2 * config.parts)
        nn.init.zeros_(self.dye.weight)
        nn.init.zeros_(self.dye.bias)

    def forward(
        self, picture: Tensor, identity: Tensor, motion: Tensor, corners: list[tuple[int, int]] | None = None
    ) -> Tensor:
        """Pictures `[N, 3, h, w]` with hands over them; identity `[N, D]`, motion `[N, K]` normalised.

        corners: (x, y) of the pictures in the whole frame, when they are parts of it
        """
        frames = list(picture.unbind(0))
        for n, layer, x, y in self.layers(identity, motion):
            left, top = corners[n] if corners else (0, 0)
            frames[n] = over(frames[n], layer, x - left, y - top)
        return torch.stack(frames)

    def shown(self, identity: Tensor, motion: Tensor) -> Shown:
        """The hands of frames with identity `[N, D]` and motion `[N, K]` that are to be seen, all left ones first."""
        raw = denormalise(motion)[:, _COLUMNS]  # [N, 2, 5]
        seen = [(n, s) for s in range(2) for n in range(len(raw)) if float(raw[n, s, 1]) < LOWEST]
        if not seen:
            return Shown([], motion.new_zeros(0, self.inputs), [], [])
        frame, side = (torch.tensor(index, device=motion.device) for index in zip(*seen))
        pose = raw[frame, side]
        inputs = torch.cat([identity[frame], motion[:, _COLUMNS][frame, side], (2.0 * side - 1)[:, None]], 1)
        places = (pose[:, :2] * self.config.size).round().int().tolist()
        return Shown([n for n, _ in seen], inputs, places, pose[:, 2].tolist())

    def sprites(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs `[n, inputs]` -> n hands and n forearms, each `[n, 4, h, w]`: colour and coverage."""
        identity = inputs[:, : self.identity]
        shares = torch.softmax(DYE * self.dye(identity).float().unflatten(1, (2, -1)), 2)
        colours = identity[:, self.config.identity :].unflatten(1, (3, -1)) @ shares.transpose(1, 2)  # [n, 3, 2]
        skin, sleeve = F.pad(colours, (0, 0, 0, 1))[..., None, None].unbind(2)  # nothing is added to the coverage
        return self.hand(inputs) + skin, self.arm(inputs) + sleeve

    def layers(self, identity: Tensor, motion: Tensor) -> list[Layer]:
        """What lies over frames with identity `[N, D]` and motion `[N, K]`, from bottom to top: forearm, then hand."""
        shown = self.shown(identity, motion)
        if not shown.frames:
            return []
        hands, arms = self.sprites(shown.inputs)
        hands = self._turned(hands, torch.tensor(shown.angles, device=hands.device))
        half = self.config.hand_window // 2
        out = []
        for n, hand, arm, (x, y) in zip(shown.frames, hands, arms, shown.places):
            out += [(n, arm, x - arm.shape[-1] // 2, y), (n, hand, x - half, y - half)]
        return out

    def _turned(self, sprite: Tensor, angle: Tensor) -> Tensor:
        """Sprites of hands `[N, 4, h, w]` in a square around the palm, turned by `angle` `[N]`."""
        c = self.config
        x, y = positions(c.hand_window, c.hand_window, sprite.device) * (
            c.hand_window / 2
        )  # [px] from the palm
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        height, width = c.hand_size
        across = (x * cos + y * sin) / c.hand_scale / (width / 2)
        along = ((y * cos - x * sin) / c.hand_scale + c.hand_above) / (height / 2)
        grid = torch.stack([across, along], -1)
        # Cubic: a painted hand is enlarged by a fifth, and linear weights would take a twentieth of its edges.
        turned = F.grid_sample(sprite, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
        return torch.cat([turned[:, :3], turned[:, 3:].clamp(0, 1)], 1)


def overlap(
    picture: tuple[int, int], layer: tuple[int, int], x: int, y: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Columns and rows of a picture under a layer with its corner at (x, y); None when it is outside.

    picture, layer: their (height, width)
    """
    left, top = max(0, x), max(0, y)
    right, bottom = min(picture[1], x + layer[1]), min(picture[0], y + layer[0])
    return None if left >= right or top >= bottom else ((left, right), (top, bottom))


def over(picture: Tensor, layer: Tensor, x: int, y: int) -> Tensor:
    """`picture` `[C, H, W]` under `layer` `[C + 1, h, w]` (colour and coverage) whose corner is at (x, y)."""
    box = overlap(picture.shape[1:], layer.shape[1:], x, y)
    if box is None:
        return picture
    (left, right), (top, bottom) = box
    part = layer[:, top - y : bottom - y, left - x : right - x]
    below = picture[:, top:bottom, left:right]
    out = picture.clone()
    out[:, top:bottom, left:right] = below + part[-1:] * (part[:-1] - below)
    return out
