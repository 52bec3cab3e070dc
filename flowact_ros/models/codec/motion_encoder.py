# SPDX-License-Identifier: Apache-2.0
"""The encoder of motion: what a frame's character does, in the rig's controls, next to a reference of the same one.

A frame is read as a reference is, by the renderer's own encoder, whose features know mouths, eyes and parts. This
network compares the two readings: what differs between pictures of one character is motion, what they share is who it
is. It begins as the renderer's reading of the frame alone, which was trained on pictures that are nearly at rest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.appearance import EYES, MOUTH, PARTS, Appearance, Landmarks, crop
from flowact_ros.models.codec.blocks import Residual, mlp
from flowact_ros.models.codec.motion import CONTROLS
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import RendererConfig

KIND = "motion_encoder"
_FOLD = 8  # pixels a side that become one cell, as in the painters' coarse features
_CELLS = 4  # cells a side that a reading is pooled to
_FACE = {*MOUTH, *EYES[0], *EYES[1]}
_BODY = [i for i in range(CONTROLS) if i not in _FACE]  # head, shoulders and hands
_SHARED = list(range(2, len(EYES[0])))  # of an eye's controls: those that both eyes show


class Seen(NamedTuple):
    """What the comparison needs of N pictures.

    mouth: `[N, C, h, w]`, eyes: `[N, 2, C, h, w]`: pixels and features of the crops; body: `[N, C, H/16, W/16]`;
    places: `[N, 6]` of mouth and eyes in [-1, 1]; read: `[N, K]`, the renderer's own reading of the motion
    """

    mouth: Tensor
    eyes: Tensor
    body: Tensor
    places: Tensor
    read: Tensor

    def select(self, index: Tensor) -> Seen:
        """The readings of these pictures `[M]`, which may be repeated."""
        return Seen(*(field[index] for field in self))


def seen(found: Appearance, landmarks: Landmarks, config: RendererConfig) -> Seen:
    """From what the renderer's encoder gives for N pictures."""
    crops = [crop(found.picture, found.corners[:, i], size) for i, size in enumerate(config.crop_sizes)]
    mouth, *eyes = (F.pixel_unshuffle(part, _FOLD) for part in crops)
    masks = F.avg_pool2d(found.masks.float(), 4).to(found.coarse)
    return Seen(
        torch.cat([mouth, found.mouth_coarse], 1),
        torch.stack([torch.cat([eye, found.eyes_coarse[:, i]], 1) for i, eye in enumerate(eyes)], 1),
        torch.cat([found.coarse, masks], 1),
        (landmarks.places / (config.size / 2) - 1).flatten(1),
        landmarks.read,
    )


class _Reading(nn.Module):
    """A map of features `[N, inputs, h, w]` -> a vector `[N, outputs]`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.first = Residual(width)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)  # sides may be odd
        self.second = Residual(width)
        self.outputs = _CELLS**2 * width

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.down(self.first(self.enter(x))))
        return F.adaptive_avg_pool2d(F.silu(h), _CELLS).flatten(1)


class _Comparison(nn.Module):
    """Readings of a part in a frame and in the reference -> by how much the renderer's reading is off."""

    def __init__(self, inputs: int, width: int, hidden: int, controls: int) -> None:
        super().__init__()
        self.reading = _Reading(inputs, width)
        told = 4 * len(PARTS) + 2 * controls  # where the parts are and how they were read, in both pictures
        self.compare = mlp(2 * self.reading.outputs + told, hidden, 2)
        self.out = nn.Linear(hidden, controls)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, frame: Tensor, reference: Tensor, told: Tensor) -> Tensor:
        """frame, reference `[N, inputs, h, w]`, told `[N, t]` -> `[N, controls]`."""
        return self.out(self.compare(torch.cat([self.reading(frame), self.reading(reference), told], 1)))


class MotionEncoder(nn.Module):
    """Frames and references of the same characters -> motion. Sizes follow the renderer's."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = c = config
        pixels = 3 * _FOLD**2
        self.mouth = _Comparison(pixels + c.mouth_widths[1], c.mouth_widths[0], c.hidden, len(MOUTH))
        self.eyes = nn.ModuleList(
            _Comparison(pixels + c.eye_widths[1], c.eye_widths[0], c.hidden, len(EYES[0])) for _ in EYES
        )
        self.body = _Comparison(c.coarse_width + c.parts, c.fine_width, c.hidden, len(_BODY))

    def forward(self, frame: Seen, reference: Seen) -> Tensor:
        """Motion `[N, K]`, normalised, of N frames, each beside a reading of its own reference."""

        def told(columns: list[int]) -> Tensor:
            parts = (frame.places, reference.places, frame.read[:, columns], reference.read[:, columns])
            return torch.cat(parts, 1).to(frame.body)

        off = torch.zeros_like(frame.read)
        off[:, MOUTH] = self.mouth(frame.mouth, reference.mouth, told(MOUTH)).float()
        off[:, _BODY] = self.body(frame.body, reference.body, told(_BODY)).float()
        for side, columns in enumerate(EYES):
            found = self.eyes[side](frame.eyes[:, side], reference.eyes[:, side], told(columns)).float()
            off[:, columns[:2]] = found[:, :2]  # this eye's own lid and brow; the others are both eyes' mean
            shared = [i for i in _SHARED if columns[i] not in MOUTH]
            off[:, [columns[i] for i in shared]] = off[:, [columns[i] for i in shared]] + 0.5 * found[:, shared]
        return frame.read.detach() + off


class Codec(nn.Module):
    """Both directions of the embedded codec: frames to motion, and motion to frames."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        self.renderer = Renderer(config)
        self.motion = MotionEncoder(config)

    def see(self, picture: Tensor) -> tuple[Appearance, Landmarks, Seen]:
        """Pictures `[N, 3, H, W]` in [-1, 1] as references, and as the motion encoder sees them."""
        net = self.renderer
        found, landmarks = net.encoder(picture, net.mouth, net.eyes)
        return found, landmarks, seen(found, landmarks, self.config)

    def reference(self, found: Appearance, itself: Seen) -> Appearance:
        """The same references with their own motion as the encoder reads it beside itself.

        What is wrong with a reading is then wrong alike in the reference and in its frames, and moves nothing.
        """
        return found._replace(own=self.motion(itself, itself))

    @torch.no_grad()
    def encode(self, frames: Tensor, reference: Seen) -> Tensor:
        """Motion `[N, K]`, normalised, of frames `[N, 3, H, W]` in [-1, 1] beside one reference `[1, ...]`."""
        _, _, now = self.see(frames)
        return self.motion(now, reference.select(torch.zeros(len(frames), dtype=torch.long)))
