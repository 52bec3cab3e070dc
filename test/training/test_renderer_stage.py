# SPDX-License-Identifier: Apache-2.0
"""The renderer's training: what its three kinds of batches hold, what each of them trains, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import feature_boxes, identity_from_seed
from flowact_ros.data.poses import random_movement
from flowact_ros.models.codec.motion import denormalise
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import preset
from flowact_ros.training.stages import renderer_crops
from flowact_ros.training.stages.renderer import TURNS, RendererStage, cover_loss
from flowact_ros.training.stages.renderer_crops import Faces, RaisedHands, draw_faces
from flowact_ros.training.stages.renderer_data import Batch, Motions, levels

SEED = 4_000_123  # of a character that is no named one


@pytest.fixture(autouse=True)
def _poses_without_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Performances need a synthesiser and seconds each; wide random poses are enough here."""

    def draw(self: Motions, rng: np.random.Generator, frames: int) -> torch.Tensor:
        return torch.cat([random_movement(rng, 1) for _ in range(frames)])

    monkeypatch.setattr(Motions, "draw", draw)


@pytest.fixture(scope="module")
def stage() -> RendererStage:
    torch.manual_seed(0)
    return RendererStage(Renderer(preset("debug").renderer))


def batch_of(stage: RendererStage, kind: type) -> Batch | Faces | RaisedHands:
    return stage.batch(torch.Generator().manual_seed(3), TURNS.index(kind))


def test_crops_of_faces_are_crops_of_the_whole_picture(stage: RendererStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_crops, "MISPLACED", 0.0)
    config, who = stage.module.config, identity_from_seed(SEED)
    places = []
    corners = stage.module.encoder.corners
    of = {"references": 1, "frames": 3, "characters": range(SEED, SEED + 1)}
    batch = draw_faces(
        np.random.default_rng(1), Motions("train", 0), config, lambda at: places.append(corners(at)) or places[-1], **of
    )
    whole = levels(who, denormalise(batch.motion), config.size)
    boxes = feature_boxes(who, denormalise(batch.motion), config.size)
    for i, (name, size) in enumerate(zip(("mouth", "eye_left", "eye_right"), config.crop_sizes)):
        x, y = places[0][0, i].tolist()
        assert batch.pictures[i].shape == (3, 3, size, size)
        off = (batch.pictures[i] - whole[:, :, y : y + size, x : x + size]).abs()
        assert float(off.max()) <= 1.01 / 127.5, name  # a level: boxes that are cut begin at other places
        heavy = (batch.weights[i][0, 0] > 1).nonzero()
        x0, y0, x1, y1 = boxes[name][0].tolist()
        assert abs(heavy[:, 1].min() + x - max(x0, x)) <= 1 and abs(heavy[:, 0].min() + y - max(y0, y)) <= 1, name
    head = [i for i in range(batch.motion.shape[1]) if i not in renderer_crops.FACE]
    assert torch.allclose(batch.motion[:, head], batch.own[:, head].expand(3, -1))  # the head is where it was


def test_a_raised_hand_is_all_that_differs(stage: RendererStage) -> None:
    batch = batch_of(stage, RaisedHands)
    assert len(batch.picture) == len(batch.corners) == len(batch.motion) == 8
    differs = (batch.picture - batch.behind).abs().amax(1) > 0.02
    assert all(0.002 < float(part.float().mean()) < 0.9 for part in differs)
    raw = denormalise(batch.motion)
    lowered = denormalise(torch.zeros(1, raw.shape[1]))
    raised = [(raw[:, k] - lowered[:, k]).abs() > 1e-3 for k in (renderer_crops._HAND[s][1] for s in ("left", "right"))]
    assert bool((raised[0] ^ raised[1]).all())


@pytest.mark.parametrize(("kind", "trains"), [(Faces, {"mouth", "eyes"}), (RaisedHands, {"hands"})])
def test_steps_on_crops_train_their_painters_alone(stage: RendererStage, kind: type, trains: set[str]) -> None:
    stage.module.zero_grad(set_to_none=True)
    stage.step(batch_of(stage, kind), 0)["loss"].backward()
    touched = {name.split(".")[0] for name, p in stage.module.named_parameters() if p.grad is not None}
    assert touched == trains


def test_a_hand_that_covers_nothing_has_a_gradient() -> None:
    behind, picture = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    picture[..., :2] = 0.5
    logit = torch.full((1, 1, 4, 4), -6.0, requires_grad=True)
    cover_loss(torch.sigmoid(logit), behind, picture).backward()
    assert float(logit.grad[..., :2].max()) < -0.05 and float(logit.grad[..., 2:].abs().max()) < 1e-3


@pytest.mark.parametrize("kind", [Faces, RaisedHands, Batch])
def test_it_learns_a_batch_by_heart(kind: type) -> None:
    torch.manual_seed(0)
    stage = RendererStage(Renderer(preset("debug").renderer), references=1)
    batch = batch_of(stage, kind)
    optimizer = torch.optim.Adam(stage.module.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = stage.step(batch, 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.8 * losses[0], kind
