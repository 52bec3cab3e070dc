# SPDX-License-Identifier: Apache-2.0
"""The renderer's training: `flowact train renderer --run runs/renderer --minutes 60`.

Steps of three kinds take turns. Crops of faces whose head stays where the reference has it train the painters of mouth
and eyes, views of raised hands those of hands, and whole frames of any motion everything: of these a third as many fit
into an hour. Motion of one clip, picture of any character: a procedural world gives cross-identity targets for nothing,
so identity does not leak into motion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.appearance import heat_near
from flowact_ros.models.codec.hands import over
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.training.pictures import psnr, save_sheet
from flowact_ros.training.stages.renderer_crops import Faces, RaisedHands, draw_faces, draw_hands
from flowact_ros.training.stages.renderer_data import Batch, Cast, Motions, draw_batch
from flowact_ros.training.trainer import read_state
from flowact_ros.training.world import moved

HELDOUT = range(7_000_000, 7_000_008)  # characters of the sample sheet
NOISE = 0.1  # largest deviation of noise on the motion that the renderer is given
PARTS = {"faces": Faces, "hands": RaisedHands, "whole": Batch}
TURNS = (Faces, Batch, RaisedHands, Faces, Batch, RaisedHands, Faces, Batch, RaisedHands, Faces)  # kinds of steps
SEEN = 0.02  # [half the range of a colour] of a hand against what is behind it
PAINTERS = ("mouth", "eyes")  # sub-modules that faces train
RELOAD = 100  # steps after which another run's painters are taken over again
HARDEST = "outlined"  # the style whose faces and sleeves, of thin lines, are hardest to paint: drawn more often
FRAMES = {Faces: 8, RaisedHands: 4, Batch: 4}  # of each reference in a step


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


def cover_loss(cover: Tensor, behind: Tensor, picture: Tensor) -> Tensor:
    """Cross-entropy of how much hands cover `[N, 1, h, w]`, against where they change the picture.

    Without it the error of a badly painted hand is least where it covers nothing, and there no gradient is left.
    """
    covered = ((picture - behind).abs().amax(1, keepdim=True) > SEEN).float()
    return F.binary_cross_entropy(cover.clamp(1e-5, 1 - 1e-5), covered)


def disturbed(motion: Tensor) -> Tensor:
    """Motion `[N, K]` with noise on a quarter of its frames: frames must stay sharp under a denoiser's noise."""
    chance, size = torch.rand(2, len(motion), 1, device=motion.device)
    amount = NOISE * size * (chance < 0.25)
    return motion + amount * torch.randn_like(motion)


def take_painters(net: Renderer, run: Path) -> None:
    """The painters of mouth and eyes of another run's EMA weights. Raises ValueError for a damaged run."""
    ema = read_state(run / "state.pt", {"ema"})["ema"]
    for name in PAINTERS:
        part = {key.removeprefix(f"{name}."): value for key, value in ema.items() if key.startswith(f"{name}.")}
        net.get_submodule(name).load_state_dict(part)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """No gradients of these modules' parameters inside."""
    for module in modules:
        module.requires_grad_(False)
    yield
    for module in modules:
        module.requires_grad_(True)


def paint(net: Renderer, batch: Faces, own: Tensor, motion: Tensor) -> tuple[Tensor, ...]:
    """Mouths, left and right eyes `[N, 3, s, s]` of a batch, with motion `[N, K]`; own `[R, K]` of its references."""
    mouth, *eyes = batch.references
    of_mouth, of_eyes = net.mouth.features(mouth), net.eyes.features(torch.cat(eyes))
    inputs = [(mouth, *of_mouth)]
    for i, eye in enumerate(eyes):
        inputs.append((eye, *(features.chunk(2)[i] for features in of_eyes)))
    return net.paint(*([x[batch.whose] for x in part] for part in inputs), own[batch.whose], motion)


class RendererStage:
    """A `Method` of the trainer."""

    def __init__(
        self,
        renderer: Renderer,
        *,
        references: int = 2,
        parts: Sequence[str] = tuple(PARTS),
        painters: Path | None = None,
        without: str | None = None,
    ) -> None:
        """parts: of `PARTS`; steps of other kinds are left out; without: a style of which no character is drawn

        painters: a run that trains faces, perhaps at the same time; its painters are taken over again and again
        """
        self.module = renderer
        self.turns = [kind for kind in TURNS if kind in {PARTS[part] for part in parts}]
        self.references = references
        self.motions = Motions("train", pool=48)
        self.painters = painters
        self.cast = Cast(without=without)
        self.painted = Cast(without=without, often=None if without == HARDEST else HARDEST)
        self._held: tuple[Batch, Faces] | None = None

    def batch(self, generator: torch.Generator, iteration: int) -> Batch | Faces | RaisedHands:
        if self.painters is not None and iteration % RELOAD == 0:
            take_painters(self.module, self.painters)
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        kind = self.turns[iteration % len(self.turns)]
        cast = self.cast if kind is Batch else self.painted
        return self._draw(kind, rng, self.motions, self.references, FRAMES[kind], cast)

    def _draw(
        self, kind: type, rng: np.random.Generator, motions: Motions, references: int, frames: int, cast: Cast
    ) -> Batch | Faces | RaisedHands:
        config = self.module.config
        of = {"references": references, "frames": frames, "cast": cast}
        if kind is Faces:
            return draw_faces(rng, motions, config, self.module.encoder.corners, **of)
        if kind is RaisedHands:
            return draw_hands(rng, motions, config, **of)
        return draw_batch(rng, motions, config.size, **of)

    def step(self, batch: Batch | Faces | RaisedHands, iteration: int) -> dict[str, Tensor]:
        if isinstance(batch, Faces):
            return self._faces(batch)
        if isinstance(batch, RaisedHands):
            return self._hands(batch)
        with frozen(self.module.mouth, self.module.eyes):  # they learn from faces, where nothing else moves
            return self._whole(batch)

    def _faces(self, batch: Faces) -> dict[str, Tensor]:
        painted = paint(self.module, batch, disturbed(batch.own), disturbed(batch.motion))
        losses = [picture_loss(*part) for part in zip(painted, batch.pictures, batch.weights)]
        loss = torch.stack(losses).mean()
        return {"loss": loss, "mouth": losses[0].detach(), "eyes": (losses[1] + losses[2]).detach() / 2}

    def _hands(self, batch: RaisedHands) -> dict[str, Tensor]:
        net = self.module
        with torch.no_grad():
            identity = net.appearance(batch.reference).identity[batch.whose]
        pictures, covers = list(batch.behind), list(torch.zeros_like(batch.behind[:, :1]))
        for n, layer, x, y in net.hands.layers(identity, disturbed(batch.motion)):
            x, y = x - batch.corners[n][0], y - batch.corners[n][1]
            pictures[n] = over(pictures[n], layer, x, y)
            covers[n] = over(covers[n], torch.cat([torch.ones_like(layer[3:]), layer[3:]]), x, y)
        drawn = picture_loss(torch.stack(pictures), batch.picture, torch.ones_like(batch.picture[:, :1]))
        covered = cover_loss(torch.stack(covers), batch.behind, batch.picture)
        return {"loss": drawn + 0.1 * covered, "hands": drawn.detach(), "covered": covered.detach()}

    def _whole(self, batch: Batch) -> dict[str, Tensor]:
        net = self.module
        found, landmarks = net.encoder(batch.reference, net.mouth, net.eyes)
        near = heat_near(landmarks.heat, batch.landmarks / (net.config.size / 2) - 1)
        landmark = (landmarks.places - batch.landmarks).abs().mean() / 10 - near.clamp_min(1e-4).log().mean()
        own = (landmarks.read - batch.own).abs().mean()
        # the networks behind it learn from what will be read, once that is worth something
        given = torch.rand(len(batch.own), 1, device=batch.own.device) < 0.5
        mixed = torch.where(given, batch.own, found.own.detach())
        who = found._replace(own=mixed.to(found.own)).select(batch.whose)
        motion = disturbed(batch.motion)
        warped, carried, flow, cover = net.warp(net.face(who, motion), who, motion)
        drawn = net.hands(warped, who.identity, motion)
        loss_drawn = picture_loss(drawn, batch.picture, batch.weight)
        loss_carried = ((carried - batch.picture).abs() * batch.weight).mean()
        followed = anchor_loss(flow, batch.anchors, net.config.size)
        found_out = 0.4 * followed + 0.1 * landmark + 0.05 * own
        loss = loss_drawn + 0.2 * loss_carried + 0.02 * cover.mean() + found_out
        parts = {
            "drawn": loss_drawn,
            "carried": loss_carried,
            "followed": followed,
            "cover": cover.mean(),
            "landmark": landmark,
            "own": own,
        }
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def sheet(self, module: Renderer, path: Path) -> dict[str, float]:
        """Rows of an unseen character: reference, then truth and drawn in turn; PSNR whole and of its parts."""
        if self._held is None:
            self._held = moved(self._draw_held(), next(module.parameters()).device)
        held, faces = self._held
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
        mouth, left, right = paint(module, faces, faces.own, faces.motion)
        seen = [(weight > 0.5).float() for weight in faces.weights]
        still = {
            "psnr_still_mouth": psnr(mouth, faces.pictures[0], seen[0]),
            "psnr_still_eyes": psnr(torch.cat([left, right]), torch.cat(faces.pictures[1:]), torch.cat(seen[1:])),
        }
        return {**figures(torch.cat(drawn), held), **still}

    def _draw_held(self) -> tuple[Batch, Faces]:
        rng, motions = np.random.default_rng(5), Motions("validation", pool=8)
        rows = [
            [self._draw(kind, rng, motions, 1, 4, Cast(range(seed, seed + 1))) for seed in HELDOUT]
            for kind in (Batch, Faces)
        ]
        return _together(rows[0]), _together(rows[1])


def _together(batches: list) -> Batch | Faces:
    """One batch of batches of one reference each."""
    joined = {}
    for field in fields(batches[0]):
        parts = [getattr(batch, field.name) for batch in batches]
        if field.name == "whose":
            joined[field.name] = torch.cat([part + i for i, part in enumerate(parts)])
        elif isinstance(parts[0], Tensor):
            joined[field.name] = torch.cat(parts)
        else:
            joined[field.name] = tuple(torch.cat(part) for part in zip(*parts))
    return type(batches[0])(**joined)


def figures(drawn: Tensor, held: Batch) -> dict[str, float]:
    """PSNR [dB] of the whole picture, of eyes, mouths and hands; gradients in the face against truth."""
    face = (held.weight >= 2).float()
    sharp = [
        sum(float((e.abs() * face[..., : e.shape[2], : e.shape[3]]).sum()) for e in edges(x))
        for x in (drawn, held.picture)
    ]
    return {
        "psnr": psnr(drawn, held.picture, torch.ones_like(held.weight)),
        "psnr_eyes": psnr(drawn, held.picture, (held.weight == 5).float()),
        "psnr_mouth": psnr(drawn, held.picture, (held.weight == 6).float()),
        "psnr_hands": psnr(drawn, held.picture, (held.weight == 3).float()),
        "edges": sharp[0] / sharp[1],
    }
