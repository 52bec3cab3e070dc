# SPDX-License-Identifier: Apache-2.0
"""The renderer: a picture of the reference's character with any motion.

Three stages, the order in which drawn characters are animated: mouth and eyes are painted in the reference's own place;
then the picture is warped part by part, so that head and body move with all their texture; then hands are laid over it.
A frame depends on (appearance, motion) alone: any cut, rewind or skip gives the same frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.appearance import EYES, MOUTH, Appearance, AppearanceEncoder, crop, paste
from flowact_ros.models.codec.blocks import (
    Residual,
    Up,
    bounded,
    interpolating,
    median_flow,
    mlp,
    positions,
    spread,
    spread_flow,
    warp,
)
from flowact_ros.models.codec.hands import Hands
from flowact_ros.models.codec.motion import CONTROLS
from flowact_ros.models.codec.painters import CropPainter
from flowact_ros.models.config import RendererConfig

PAINT_STRIDE = 4
RESERVE = 3.0  # paint begins nearly transparent: what is there moves, and only what is missing is painted
FRONT = 10.0  # so that `front` is learned as fast as the weights are
_AFFINE = 6  # numbers of a part's own movement: a 2 x 2 matrix and a shift


class Warp(nn.Module):
    """Part-wise warping: soft masks of the reference, an affine movement a part, and a residual network that mends."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = c = config
        self.vector = mlp(2 * CONTROLS + c.identity + 3 * c.parts, c.hidden, 3)
        self.affine = nn.Linear(c.hidden, c.parts * _AFFINE)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        self.code = nn.Linear(c.hidden, c.parts * c.part_code)
        self.front = nn.Parameter(torch.zeros(c.parts))
        self.enter16 = nn.Conv2d(c.coarse_width + c.part_code, c.coarse_width, 1)
        self.block16 = Residual(c.coarse_width, c.hidden)
        self.up = Up(c.coarse_width, c.fine_width)
        self.enter8 = nn.Conv2d(2 * c.fine_width + c.part_code, c.fine_width, 1)
        self.flow = nn.Conv2d(c.fine_width, 2, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.bias)
        self.up4 = Up(c.fine_width, c.finest_width)
        self.enter4 = nn.Conv2d(2 * c.finest_width, c.finest_width, 1)
        self.block4 = Residual(c.finest_width, c.hidden)
        self.finest_flow = nn.Conv2d(c.finest_width, 2, 3, padding=1)
        nn.init.zeros_(self.finest_flow.weight)
        nn.init.zeros_(self.finest_flow.bias)
        self.blend_flow = nn.Conv2d(c.finest_width, 36, 1)
        nn.init.zeros_(self.blend_flow.weight)
        self.blend_flow.bias.data.copy_(interpolating())
        self.paint = nn.Conv2d(c.finest_width, 4 * PAINT_STRIDE**2, 1)

    def forward(
        self, picture: Tensor, who: Appearance, motion: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """picture `[N, 3, H, W]`: the reference with this frame's face -> the moved picture; its warped part, the flow
        and the cover of what is painted over it.
        """
        flow, plan = self.plan(who.masks, who.finest, who.fine, who.coarse, who.own, who.identity, motion)
        if not self.training:  # losses teach the flow itself, all of it
            flow = median_flow(flow)
        colour, mask = spread(self.paint(plan), PAINT_STRIDE).split([3, 1], 1)
        # Cubic: between pixels, linear interpolation is a blur that takes a tenth of all edges in a face.
        moved = warp(picture, F.interpolate(flow, picture.shape[2:], mode="bilinear"), mode="bicubic")
        cover = torch.sigmoid(mask - RESERVE)
        return moved + cover * (colour - moved), moved, flow, cover

    def plan(
        self,
        masks: Tensor,
        finest: Tensor,
        fine: Tensor,
        coarse: Tensor,
        own: Tensor,
        identity: Tensor,
        motion: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What is done to the picture, from the fields of an appearance and motion: flow `[N, 2, H/2, W/2]`, and what
        `paint` makes colours and their cover of, `[N, finest_width, H/4, W/4]`. The fields may be of one appearance
        `[1, ...]` for all motions.
        """
        vector = self.vector(torch.cat([motion, own, identity], 1))
        with torch.autocast(
            masks.device.type, enabled=False
        ):  # bfloat16 would put the picture off by half a pixel
            parts, code = self._parts(masks.float(), vector.float())
        flow, code = F.avg_pool2d(parts, 2), F.avg_pool2d(code, 2)
        h = torch.cat([warp(coarse, F.avg_pool2d(flow, 2)), F.avg_pool2d(code, 2)], 1)
        h = self.block16(self.enter16(h), vector)
        h = self.enter8(torch.cat([self.up(h), warp(fine, flow), code], 1))
        mended = F.interpolate(bounded(self.flow(h).float(), 0.1), scale_factor=2.0, mode="bilinear")
        flow = parts + mended  # where parts meet, their flow keeps its edge
        h = self.block4(self.enter4(torch.cat([self.up4(h), warp(finest, flow)], 1)), vector)
        flow, plan = flow + bounded(self.finest_flow(h).float(), 0.03), F.silu(h)
        return spread_flow(flow, self.blend_flow(plan)), plan

    def _parts(self, masks: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Flow `[N, 2, h, w]` and code `[N, part_code, h, w]` of every place, from the parts that lie there then."""
        c = self.config
        affine = 0.3 * self.affine(vector).unflatten(1, (c.parts, _AFFINE))
        matrix = affine[..., :4].unflatten(2, (2, 2))
        weight = F.avg_pool2d(masks, 2)
        place = positions(*weight.shape[2:], masks.device).flatten(1)
        weight = weight.flatten(2)
        centre = weight @ place.T / (weight.sum(-1, keepdim=True) + 1e-4)  # [N, parts, 2]
        shift = affine[..., 4:] - (matrix @ centre[..., None])[..., 0]
        seen = parts_seen(masks.expand(shift.shape[0], -1, -1, -1), matrix, shift, FRONT * self.front)
        values = torch.cat([matrix.flatten(2), shift, self.code(vector).unflatten(1, (c.parts, -1))], 2)
        at = (values.transpose(1, 2) @ seen.flatten(2)).unflatten(2, masks.shape[2:])
        place = positions(*masks.shape[2:], masks.device)
        x = at[:, 0] * place[0] + at[:, 1] * place[1] + at[:, 4]
        y = at[:, 2] * place[0] + at[:, 3] * place[1] + at[:, 5]
        return bounded(torch.stack([x, y], 1), 0.8), at[:, _AFFINE:]


def parts_seen(masks: Tensor, matrix: Tensor, shift: Tensor, front: Tensor) -> Tensor:
    """How much of each part is seen at every place after their movements, `[N, parts, h, w]`, of masks of that shape.

    A part is looked for where its own movement takes a place from, `place + matrix @ place + shift` (matrix
    `[N, parts, 2, 2]`, shift `[N, parts, 2]`; First Order Motion Model, arXiv 2003.00196, section 3.2), so that its
    outline moves with it. Where several parts lie, those in front, by `front` `[parts]`, hide the others.
    """
    place, each = positions(*masks.shape[2:], masks.device), masks.flatten(0, 1)[:, None]
    turn = (matrix + torch.eye(2, device=masks.device)).flatten(0, 1)
    by_column = turn[:, None, None, :, 0] * place[0, :1, :, None]  # [N parts, 1, w, (x, y)]
    by_row = turn[:, None, None, :, 1] * place[1, :, :1, None] + shift.flatten(0, 1)[:, None, None]
    there = F.grid_sample(each, by_column + by_row, padding_mode="border", align_corners=False)
    seen = there.view_as(masks) * torch.exp(front)[:, None, None]
    return seen / (seen.sum(1, keepdim=True) + 1e-4)


class Renderer(nn.Module):
    """The whole embedded codec network; sizes from `RendererConfig`."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = c = config
        self.mouth = CropPainter(c.mouth_size, 2 * len(MOUTH), c.mouth_widths, c.hidden)
        self.eyes = CropPainter(c.eye_size, 2 * len(EYES[0]) + 1, c.eye_widths, c.hidden)
        self.encoder = AppearanceEncoder(c)
        self.warp = Warp(c)
        self.hands = Hands(c)
        self.to(memory_format=torch.channels_last)

    def appearance(self, picture: Tensor) -> Appearance:
        """Of reference pictures `[N, 3, H, W]` in [-1, 1]."""
        return self.encoder(picture, self.mouth, self.eyes)[0]

    def parts(self, who: Appearance, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of mouth, left and right eye with the motion `[N, K]`, the head where it was: `[N, 3, h, w]` each."""
        sizes = self.config.crop_sizes
        mouth, *eyes = (crop(who.picture, who.corners[:, i], size) for i, size in enumerate(sizes))
        left, right = ((eye, who.eyes_fine[:, i], who.eyes_coarse[:, i]) for i, eye in enumerate(eyes))
        return self.paint((mouth, who.mouth_fine, who.mouth_coarse), left, right, who.own, motion)

    def paint(
        self,
        mouth: tuple[Tensor, ...],
        left: tuple[Tensor, ...],
        right: tuple[Tensor, ...],
        own: Tensor,
        motion: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same from crops of references `[N, 3, h, w]` and their painters' features; own `[N, K]`."""
        painted = self.mouth(*mouth, torch.cat([motion[:, MOUTH], own[:, MOUTH]], 1))
        controls = [
            torch.cat([motion[:, k], own[:, k], motion.new_full((len(motion), 1), side)], 1)
            for side, k in zip((-1.0, 1.0), EYES)
        ]
        both = (torch.cat(pair) for pair in zip(left, right))
        return (painted, *self.eyes(*both, torch.cat(controls)).chunk(2))

    def face(self, who: Appearance, motion: Tensor) -> Tensor:
        """The reference with the mouth and eyes of `motion` `[N, K]`, its head where it was: `[N, 3, H, W]`."""
        picture = who.picture
        weights = (who.mouth_weight, who.eyes_weight[:, 0], who.eyes_weight[:, 1])
        for i, (part, weight) in enumerate(zip(self.parts(who, motion), weights)):
            corners = who.corners[:, i]
            picture = paste(picture, corners, weight * (part - crop(who.picture, corners, part.shape[2:])))
        return picture

    def forward(self, who: Appearance, motion: Tensor) -> Tensor:
        """Frames `[N, 3, H, W]` in about [-1, 1] of N appearances with motions `[N, K]`, normalised."""
        moved, *_ = self.warp(self.face(who, motion), who, motion)
        return self.hands(moved, who.identity, motion)
