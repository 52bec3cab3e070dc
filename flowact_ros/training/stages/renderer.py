# SPDX-License-Identifier: Apache-2.0
"""The renderer's training: `flowact train renderer --run runs/renderer --minutes 60`.

Frames whose head stays where the reference has it train the painters of mouth and eyes in the reference's own place;
frames of any motion train everything. Motion of one clip, picture of any character: a procedural world gives
cross-identity targets for nothing, so identity does not leak into motion.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.models.codec.appearance import Appearance, crop, heat_near
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.training.stages.renderer_data import CHARACTERS, Batch, Motions, draw_batch

HELDOUT = range(7_000_000, 7_000_008)  # characters of the sample sheet
NOISE = 0.1  # largest deviation of noise on the motion that the renderer is given


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours, along rows and along columns."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(drawn: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean distance of pixels and of their gradients: the second keeps lids, lips and teeth sharp."""
    off = drawn - truth
    across, along = edges(off)
    return (
        (off.abs() * weight).mean()
        + (across.abs() * weight[..., 1:]).mean()
        + (along.abs() * weight[..., 1:, :]).mean()
    )


def anchor_loss(flow: Tensor, anchors: Tensor, size: int) -> Tensor:
    """Mean distance, in units of 10 pixels, by which `flow` `[N, 2, h, w]` misses where points come from.

    anchors `[N, P, 2, 2]`: places in the reference and in the frame. The procedural world knows them: with pixels alone
    the warp needs thousands of steps to find out what moves with what.
    """
    before, now = anchors.unbind(2)
    grid = (now / (size / 2) - 1)[:, :, None]
    found = F.grid_sample(flow, grid, align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)
    return (found * (size / 2) - (before - now)).abs().mean() / 10


def part_loss(net: Renderer, who: Appearance, motion: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Of painted mouths and eyes in frames whose head is where the reference's is, without the rest of the picture."""
    losses = []
    for i, part in enumerate(net.parts(who, motion)):
        corners, size = who.corners[:, i], part.shape[-1]
        losses.append(picture_loss(part, crop(truth, corners, size), crop(weight, corners, size)))
    return torch.stack(losses).mean()


class RendererStage:
    """A `Method` of the trainer."""

    def __init__(self, renderer: Renderer, *, references: int = 2, still: int = 6, moved: int = 2) -> None:
        self.module = renderer
        self.counts = {"references": references, "still": still, "moved": moved}
        self.motions = Motions("train", pool=48)
        self._held: Batch | None = None

    def batch(self, generator: torch.Generator) -> list[Tensor]:
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        return list(
            draw_batch(
                rng, self.motions, self.module.config.size, characters=range(CHARACTERS), **self.counts
            )
        )

    def step(self, batch: list[Tensor], iteration: int) -> dict[str, Tensor]:
        given, net = Batch(*batch), self.module
        found, landmarks = net.encoder(given.reference, net.mouth, net.eyes)
        near = heat_near(landmarks.heat, given.landmarks / (net.config.size / 2) - 1)
        landmark = (landmarks.places - given.landmarks).abs().mean() / 10 - near.clamp_min(1e-4).log().mean()
        own = (found.own - given.own).abs().mean()
        # the networks behind it learn from what will be read, once that is worth something
        mixed = torch.where(torch.rand(len(given.own), 1) < 0.5, given.own, found.own.detach())
        who = found._replace(own=mixed.to(found.own)).select(given.whose)
        motion = given.motion + NOISE * torch.rand(len(given.motion), 1) * torch.randn_like(given.motion)
        still, moved = given.still, ~given.still
        at_rest, moving = (type(who)(*(f[chosen] for f in who)) for chosen in (still, moved))
        loss_parts = part_loss(net, at_rest, motion[still], given.picture[still], given.weight[still])
        warped, carried, flow, cover = net.warp(net.face(moving, motion[moved]), moving, motion[moved])
        drawn = net.hands(warped, moving.identity, motion[moved])
        loss_moved = picture_loss(drawn, given.picture[moved], given.weight[moved])
        loss_carried = ((carried - given.picture[moved]).abs() * given.weight[moved]).mean()
        followed = anchor_loss(flow, given.anchors[moved], net.config.size)
        found_out = 0.1 * followed + 0.1 * landmark + 0.05 * own
        loss = 0.3 * loss_parts + loss_moved + 0.2 * loss_carried + 0.02 * cover.mean() + found_out
        parts = {
            "parts": loss_parts,
            "moved": loss_moved,
            "carried": loss_carried,
            "followed": followed,
            "cover": cover.mean(),
            "landmark": landmark,
            "own": own,
        }
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def sheet(self, module: Renderer, path: Path) -> dict[str, float]:
        """Rows of an unseen character: reference, then truth and drawn in turn; PSNR whole, in eyes and in mouths."""
        if self._held is None:
            rng = np.random.default_rng(5)
            motions = Motions("validation", pool=8)
            rows = [
                draw_batch(
                    rng,
                    motions,
                    module.config.size,
                    references=1,
                    still=1,
                    moved=4,
                    characters=range(seed, seed + 1),
                )
                for seed in HELDOUT
            ]
            self._held = Batch(*(torch.cat(part) for part in zip(*rows)))
        held = self._held
        each = len(held.motion) // len(held.reference)
        drawn = []
        for i, reference in enumerate(held.reference):
            who = module.appearance(reference[None]).select(torch.zeros(each, dtype=torch.long))
            drawn.append(module(who, held.motion[i * each : (i + 1) * each]).clamp(-1, 1))
        sheet = [
            [held.reference[i], *(x for j in range(each) for x in (held.picture[i * each + j], drawn[i][j]))]
            for i in range(len(drawn))
        ]
        save_sheet(sheet, path)
        return figures(torch.cat(drawn), held)


def save_sheet(rows: list[list[Tensor]], path: Path) -> None:
    """Pictures `[3, H, W]` in [-1, 1] in rows, at half their size."""
    whole = torch.cat([torch.cat(row, 2) for row in rows], 1)
    picture = Image.fromarray(((whole + 1) * 127.5).byte().permute(1, 2, 0).numpy())
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX).save(path)


def figures(drawn: Tensor, held: Batch) -> dict[str, float]:
    """PSNR [dB] of the whole picture, of eyes, mouths, hands and still heads; gradients in the face against truth."""
    error = (drawn - held.picture).square()

    def psnr(mask: Tensor) -> float:
        return 10 * math.log10(4 / float((error * mask).sum() / (3 * mask.sum())))

    ones = torch.ones_like(held.weight)
    face = (held.weight >= 2).float()
    sharp = [
        sum(float((e.abs() * face[..., : e.shape[2], : e.shape[3]]).sum()) for e in edges(x))
        for x in (drawn, held.picture)
    ]
    return {
        "psnr": psnr(ones),
        "psnr_eyes": psnr((held.weight == 5).float()),
        "psnr_mouth": psnr((held.weight == 6).float()),
        "psnr_hands": psnr((held.weight == 3).float()),
        "psnr_still": psnr(ones * held.still[:, None, None, None]),
        "edges": sharp[0] / sharp[1],
    }
