# SPDX-License-Identifier: Apache-2.0
"""Hands: painted in their own frame, then laid over the picture where the motion says that they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.blocks import positions
from flowact_ros.models.codec.motion import control_index, denormalise
from flowact_ros.models.codec.painters import SpritePainter
from flowact_ros.models.config import RendererConfig

SIDES = ("left", "right")
LOWEST = 1.17  # canvas heights; a palm below this is not to be seen
_KINDS = ("x", "y", "angle", "open", "point")
_COLUMNS = torch.tensor([[control_index(f"hand_{side}_{kind}") for kind in _KINDS] for side in SIDES])


class Hands(nn.Module):
    """Both hands of the frames that show them. A hand turns with its angle; the forearm comes up from below."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        identity = config.identity + 3 * config.parts
        inputs = identity + len(_KINDS) + 1
        self.hand = SpritePainter(config.hand_size, inputs, config.hand_widths, config.hidden)
        self.arm = SpritePainter(config.arm_size, inputs, config.arm_widths, config.hidden)

    def forward(self, picture: Tensor, identity: Tensor, motion: Tensor) -> Tensor:
        """picture `[N, 3, H, W]` with hands over it; identity `[N, D]`, motion `[N, K]` normalised."""
        raw = denormalise(motion)[:, _COLUMNS]  # [N, 2, 5]
        shown = [(n, s) for s in range(2) for n in range(len(raw)) if float(raw[n, s, 1]) < LOWEST]
        if not shown:
            return picture
        frame, side = (torch.tensor(index, device=picture.device) for index in zip(*shown))
        pose = raw[frame, side]
        inputs = torch.cat([identity[frame], motion[:, _COLUMNS][frame, side], (2.0 * side - 1)[:, None]], 1)
        layers = self._turned(self.hand(inputs), pose[:, 2]), self.arm(inputs)
        return self._lay(picture, shown, pose, layers)

    def _turned(self, sprite: Tensor, angle: Tensor) -> Tensor:
        """Sprites of hands `[N, 4, h, w]` in a square around the palm, turned by `angle` `[N]`."""
        c = self.config
        x, y = positions(c.hand_window, c.hand_window, sprite.device) * (c.hand_window / 2)  # [px] from the palm
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        height, width = c.hand_size
        across = (x * cos + y * sin) / c.hand_scale / (width / 2)
        along = ((y * cos - x * sin) / c.hand_scale + c.hand_above) / (height / 2)
        grid = torch.stack([across, along], -1)
        return F.grid_sample(sprite, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _lay(
        self, picture: Tensor, shown: list[tuple[int, int]], pose: Tensor, layers: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The forearm, then the hand over it, both placed to whole pixels."""
        size = picture.shape[-1]
        frames = list(picture.unbind(0))
        for i, (n, _) in enumerate(shown):
            x, y = (int(v) for v in (pose[i, :2].detach() * size).round())
            hand, arm = layers[0][i], layers[1][i]
            frames[n] = over(frames[n], arm, x - arm.shape[-1] // 2, y)
            half = self.config.hand_window // 2
            frames[n] = over(frames[n], hand, x - half, y - half)
        return torch.stack(frames)


def over(picture: Tensor, layer: Tensor, x: int, y: int) -> Tensor:
    """`picture` `[3, H, W]` under `layer` `[4, h, w]` (colour and coverage) whose corner is at (x, y)."""
    height, width = picture.shape[1:]
    left, top = max(0, x), max(0, y)
    right, bottom = min(width, x + layer.shape[2]), min(height, y + layer.shape[1])
    if left >= right or top >= bottom:
        return picture
    part = layer[:, top - y : bottom - y, left - x : right - x]
    below = picture[:, top:bottom, left:right]
    mixed = below + part[3:] * (part[:3] - below)
    out = picture.clone()
    out[:, top:bottom, left:right] = mixed
    return out
