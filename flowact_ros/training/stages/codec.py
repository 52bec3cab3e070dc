# SPDX-License-Identifier: Apache-2.0
"""The codec on footage, by itself: `flowact train codec --init runs/motion_encoder --data FOOTAGE --run runs/codec`.

Two frames of a shot: one is the reference, the motion encoder reads the other's motion, and the renderer must draw it
again. Nothing but 40 named controls goes from one to the other, so what is learned is motion. What the names mean is
kept by every third step, which reads drawn characters whose controls are known; without footage all steps are such
steps, and train the encoder alone. The renderer stays as it is, or learns later and at a lower rate: it can draw
already, in other styles, and where motion is not read well it learns to draw the mean of several places, a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.data.footage_store import Shot
from flowact_ros.models.codec.appearance import heat_near
from flowact_ros.models.codec.motion import CONTROL_NAMES, clamp, control_index, denormalise, normalise
from flowact_ros.models.codec.motion_encoder import Codec, Seen
from flowact_ros.training.pictures import psnr, save_sheet
from flowact_ros.training.stages.codec_data import Pairs, Poses, boxes, draw_pairs, held_pairs
from flowact_ros.training.stages.renderer import HELDOUT, edges, frozen, picture_loss
from flowact_ros.training.stages.renderer_data import Batch, Cast, draw_batch
from flowact_ros.training.world import moved as on_device

KNOWN = 3  # every so many steps show drawn characters, whose motion is known
FRAMES = 4  # of each reference in a step
HELD = (4, 6)  # references and frames of each, of the figures on footage
RENDERER = 0.3  # the renderer's share of the learning rate
BEYOND = 0.1  # weight of motion that leaves the rig's limits
FIGURES = ("jaw", "mouth_width", "mouth_round", "head_yaw", "head_pitch", "gaze_x", "blink_left", "smile")
_EVENTS = {"jaw": 3.0, "lip_press": 2.0, "mouth_width": 2.0, "mouth_round": 2.0, "blink_left": 2.0, "blink_right": 2.0}
WEIGHT = torch.tensor([_EVENTS.get(name, 1.0) for name in CONTROL_NAMES])


class CodecStage:
    """A `Method` of the trainer, `Grouped`."""

    def __init__(self, codec: Codec, shots: Sequence[Shot], *, references: int = 1, alone: float = 0) -> None:
        """shots: prepared footage, at the renderer's size; none: drawn characters alone

        alone: steps in which the encoder learns before the renderer does

        Raises ValueError for footage of another size.
        """
        self.module = codec
        self.shots, self.references, self.alone = list(shots), references, alone
        self.motions = Poses("train", pool=48)
        wrong = next((shot for shot in self.shots if shot.size != codec.config.size), None)
        if wrong is not None:
            raise ValueError(
                f"{wrong.path} has frames of {wrong.size} pixels; this preset draws {codec.config.size}: prepare the "
                "footage for it with --preset"
            )
        self._held: Pairs | Batch | None = None

    def groups(self) -> list[dict[str, Any]]:
        """Parameters, and their shares of the learning rate."""
        encoder, renderer = self.module.motion, self.module.renderer
        return [
            {"params": list(encoder.parameters()), "rate": 1.0},
            {"params": list(renderer.parameters()), "rate": RENDERER},
        ]

    def batch(self, generator: torch.Generator, iteration: int) -> Pairs | Batch:
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        of = {"references": self.references, "frames": FRAMES}
        if self.shots and iteration % KNOWN:
            return draw_pairs(rng, self.shots, self.module.config, **of)
        return draw_batch(rng, self.motions, self.module.config.size, cast=Cast(), **of)

    def step(self, batch: Pairs | Batch, iteration: int) -> dict[str, Tensor]:
        if not isinstance(batch, Pairs):
            return self._known(batch)
        with frozen(*([self.module.renderer] if iteration < self.alone else [])):
            return self._drawn_again(batch)

    def _known(self, batch: Batch) -> dict[str, Tensor]:
        """The encoder alone, on motion that is known."""
        codec = self.module
        with torch.no_grad():
            now, who = codec.see(batch.picture)[2], codec.see(batch.reference)[2]
        off = codec.motion(now, who.select(batch.whose)) - batch.motion
        loss = (F.smooth_l1_loss(off, torch.zeros_like(off), reduction="none") * WEIGHT.to(off)).mean()
        return {"loss": loss, "named": loss.detach(), "jaw": off[:, control_index("jaw")].detach().abs().mean()}

    def _drawn_again(self, batch: Pairs) -> dict[str, Tensor]:
        """Encoder and renderer, on what the frames look like."""
        codec, net = self.module, self.module.renderer
        found, landmarks, seen = codec.see(batch.reference)
        with torch.no_grad():
            now = codec.see(batch.picture)[2]
        itself = Seen(*(field.detach() for field in seen))
        found = codec.reference(found, itself)
        read = codec.motion(now, itself.select(batch.whose))
        beyond = (read - normalise(clamp(denormalise(read)))).abs().mean()
        who, motion = found.select(batch.whose), read + batch.noise
        warped, carried, _, cover = net.warp(net.face(who, motion), who, motion)
        drawn = net.hands(warped, who.identity, motion)
        near = heat_near(landmarks.heat, batch.landmarks / (net.config.size / 2) - 1)
        off = (landmarks.places - batch.landmarks).abs().mean() / 10 - near.clamp_min(1e-4).log().mean()
        picture = picture_loss(drawn, batch.picture, batch.weight)
        moved = ((carried - batch.picture).abs() * batch.weight).mean()
        loss = picture + 0.2 * moved + 0.02 * cover.mean() + 0.1 * off + BEYOND * beyond
        parts = {"drawn": picture, "carried": moved, "cover": cover.mean(), "landmark": off, "beyond": beyond}
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    # -- figures ---------------------------------------------------------------------------------------------------

    def sheet(self, module: Codec, path: Path) -> dict[str, float]:
        """Footage: reference, then truth and drawn in turn, of the ends of shots. Without it: how well controls of
        unseen characters are read."""
        if self._held is None:
            self._held = on_device(self._draw_held(), next(module.parameters()).device)
        held = self._held
        each = len(held.whose) // len(held.reference)
        rows, read = [], []
        for i, reference in enumerate(held.reference):
            one = slice(i * each, (i + 1) * each)
            found, _, seen = module.see(reference[None])
            motion = module.encode(held.picture[one], seen)
            who = module.reference(found, seen).select(torch.zeros(each, dtype=torch.long))
            read.append(motion)
            rows.append(module.renderer(who, motion).clamp(-1, 1))
        save_sheet(
            [
                [held.reference[i], *(x for j in range(each) for x in (held.picture[i * each + j], rows[i][j]))]
                for i in range(len(rows))
            ],
            path,
        )
        if isinstance(held, Batch):
            return correlations(torch.cat(read), held.motion)
        return picture_figures(torch.cat(rows), held, module.config)

    def _draw_held(self) -> Pairs | Batch:
        if self.shots:
            return held_pairs(self.shots, self.module.config, references=HELD[0], frames=HELD[1])
        rng, motions = np.random.default_rng(5), Poses("validation", pool=8)
        return draw_batch(rng, motions, self.module.config.size, references=8, frames=8, cast=Cast(HELDOUT))


def correlations(read: Tensor, truth: Tensor) -> dict[str, float]:
    """Of some controls `[N, K]`, and the mean of all that move in both."""
    both = torch.stack([read, truth]) - torch.stack([read, truth]).mean(1, keepdim=True)
    spread = both.square().sum(1).sqrt()
    found = (both[0] * both[1]).sum(0) / (spread[0] * spread[1]).clamp_min(1e-6)
    moving = spread.amin(0) > 1e-3
    named = {name: float(found[control_index(name)]) for name in FIGURES}
    return {**named, "mean": float(found[moving].mean()) if bool(moving.any()) else 0.0}


def picture_figures(drawn: Tensor, held: Pairs, config: Any) -> dict[str, float]:
    """PSNR [dB] of the whole, of eyes and mouths; gradients in the face against truth."""
    masks = {name: torch.zeros_like(held.weight) for name in ("mouth", "eyes")}
    for i, every in enumerate(boxes(held.places, config).round().int().tolist()):
        for name, (x0, y0, x1, y1) in zip(("mouth", "eyes", "eyes"), every):
            masks[name][i, :, y0:y1, x0:x1] = 1.0
    face = (held.weight >= 2).float()
    sharp = [
        sum(float((e.abs() * face[..., : e.shape[2], : e.shape[3]]).sum()) for e in edges(x))
        for x in (drawn, held.picture)
    ]
    return {
        "psnr": psnr(drawn, held.picture, torch.ones_like(held.weight)),
        "psnr_eyes": psnr(drawn, held.picture, masks["eyes"]),
        "psnr_mouth": psnr(drawn, held.picture, masks["mouth"]),
        "edges": sharp[0] / max(sharp[1], 1e-6),
    }
