# SPDX-License-Identifier: Apache-2.0
"""The renderer's training: what its three kinds of batches hold, what each of them trains, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import STYLES, feature_boxes, identity_from_seed
from flowact_ros.data.poses import random_movement
from flowact_ros.models.checkpoint import load_weights
from flowact_ros.models.codec.appearance import EYES, MOUTH, PARTS, paste, shares
from flowact_ros.models.codec.motion import control_index, denormalise, neutral
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import preset
from flowact_ros.training.export import export_renderer
from flowact_ros.training.stages import renderer_crops
from flowact_ros.training.stages.renderer import HARDEST, TURNS, RendererStage, cover_loss
from flowact_ros.training.stages.renderer_crops import Faces, RaisedHands, draw_faces
from flowact_ros.training.stages.renderer_data import Batch, Cast, Motions, levels

SEED = 4_000_123  # of a character that is no named one
DRAW = Motions.draw


@pytest.fixture(autouse=True)
def _poses_without_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Performances need a synthesiser and seconds each; wide random poses are enough here."""

    def draw(self: Motions, rng: np.random.Generator, frames: int, **hardest: object) -> torch.Tensor:
        return torch.cat([random_movement(rng, 1) for _ in range(frames)])

    monkeypatch.setattr(Motions, "draw", draw)


@pytest.fixture(scope="module")
def stage() -> RendererStage:
    torch.manual_seed(0)
    return RendererStage(Renderer(preset("debug").renderer))


@pytest.mark.parametrize("without", STYLES)
def test_a_style_can_be_left_out(without: str) -> None:
    rng = np.random.default_rng(0)
    drawn = {Cast(without=without).draw(rng).style for _ in range(120)}
    assert drawn == set(STYLES) - {without}
    assert RendererStage(Renderer(preset("debug").renderer), without=without).cast.without == without


def test_a_style_can_be_drawn_more_often() -> None:
    def share(cast: Cast) -> float:
        rng = np.random.default_rng(0)
        return np.mean([cast.draw(rng).style == HARDEST for _ in range(200)])

    assert share(Cast(often=HARDEST)) > share(Cast()) + 0.2
    stage = RendererStage(Renderer(preset("debug").renderer))
    assert (stage.painted.often, stage.cast.often) == (HARDEST, None)
    # a style that is left out cannot be drawn more often: nobody would ever be found
    assert RendererStage(Renderer(preset("debug").renderer), without=HARDEST).painted.often is None


def test_every_second_frame_has_eyes_of_a_moment_of_their_own(
    stage: RendererStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    jaw, blink = control_index("jaw"), control_index("blink_left")
    moments = iter(range(1, 100))

    def draw(self: Motions, rng: np.random.Generator, frames: int, **how: object) -> torch.Tensor:
        raw = neutral(frames)
        raw[:, [jaw, blink]] = next(moments) / 100
        return raw

    monkeypatch.setattr(Motions, "draw", draw)
    of = {"references": 2, "frames": 8, "cast": Cast()}
    config, corners = stage.module.config, stage.module.encoder.corners
    motion = denormalise(draw_faces(np.random.default_rng(0), stage.motions, config, corners, **of).motion)
    together = (motion[:, jaw] - motion[:, blink]).abs() < 1e-3
    assert together.tolist() == [False, True] * 8


def batch_of(stage: RendererStage, kind: type) -> Batch | Faces | RaisedHands:
    return stage.batch(torch.Generator().manual_seed(3), TURNS.index(kind))


def test_crops_of_faces_are_crops_of_the_whole_picture(stage: RendererStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_crops, "MISPLACED", 0.0)
    config, who = stage.module.config, identity_from_seed(SEED)
    places = []
    corners = stage.module.encoder.corners
    of = {"references": 1, "frames": 3, "cast": Cast(range(SEED, SEED + 1))}
    batch = draw_faces(
        np.random.default_rng(1), Motions("train", 0), config, lambda at: places.append(corners(at)) or places[-1], **of
    )
    for i, (name, (height, width)) in enumerate(zip(PARTS, config.crop_sizes)):
        motion = batch.own.repeat(3, 1)
        moves = MOUTH if name == "mouth" else renderer_crops.EYES[0] + renderer_crops.EYES[1]
        motion[:, moves] = batch.motion[:, moves]  # what this painter is told of, and nothing else
        whole = levels(who, denormalise(motion), config.size)
        boxes = feature_boxes(who, denormalise(motion), config.size)
        x, y = places[0][0, i].tolist()
        assert batch.pictures[i].shape == (3, 3, height, width)
        off = (batch.pictures[i] - whole[:, :, y : y + height, x : x + width]).abs()
        assert float(off.max()) <= 1.01 / 127.5, name  # a level: boxes that are cut begin at other places
        last = torch.tensor([width, height, width, height]) - 1
        inside = (boxes[name][0] - torch.tensor([x, y, x, y])).clamp(torch.zeros(4), last).round()
        x0, y0, x1, y1 = inside.int().tolist()
        seen = shares(places[0], config)[i][0, 0]
        weight = batch.weights[i][0, 0]
        assert torch.allclose(weight[y0 + 1 : y1, x0 + 1 : x1], 4 * seen[y0 + 1 : y1, x0 + 1 : x1]), name
        assert bool((weight[seen == 0] == 0).all()), name
    head = [i for i in range(batch.motion.shape[1]) if i not in {*MOUTH, *EYES[0], *EYES[1]}]
    assert torch.allclose(batch.motion[:, head], batch.own[:, head].expand(3, -1))  # the head is where it was


def test_the_most_expressive_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six moments of a performance in which the mouth opens ever wider the widest, of one any."""
    clip = neutral(100)
    clip[:, control_index("jaw")] = torch.linspace(0, 1, 100)
    motions = Motions("train", 1)
    motions.pool = [clip.numpy()]
    monkeypatch.setattr(motions, "_renew", lambda rng: None)
    wide, usual = (DRAW(motions, np.random.default_rng(2), 400, among=n)[:, control_index("jaw")] for n in (6, 1))
    assert float(wide.mean()) > float(usual.mean()) + 0.1


def test_a_raised_hand_is_all_that_differs(stage: RendererStage) -> None:
    batch = batch_of(stage, RaisedHands)
    assert len(batch.picture) == len(batch.corners) == len(batch.motion) == 8
    differs = (batch.picture - batch.behind).abs().amax(1) > 0.02
    shares = differs.float().mean((1, 2))
    assert float(shares.max()) < 0.9
    assert int((shares > 0.002).sum()) >= 6  # of a hand at the lower border only fingertips are seen
    raw = denormalise(batch.motion)
    lowered = denormalise(torch.zeros(1, raw.shape[1]))
    raised = [(raw[:, k] - lowered[:, k]).abs() > 1e-3 for k in (renderer_crops._HAND[s][1] for s in ("left", "right"))]
    assert bool((raised[0] ^ raised[1]).all())


def test_every_place_is_seen_once() -> None:
    config = preset("debug").renderer
    corners = torch.tensor([[[44, 60], [34, 44], [60, 44]]])  # the eyes overlap each other and the mouth
    total = torch.zeros(1, 1, config.size, config.size)
    for i, share in enumerate(shares(corners, config)):
        assert 0 <= float(share.min()) and float(share.max()) <= 1
        total = paste(total, corners[:, i], share)
    assert float(total.max()) <= 1 + 1e-5
    assert float(shares(corners, config)[0][0, 0, 0].max()) < 0.02  # the eyes have that place


def test_painters_of_another_run_are_taken_over(stage: RendererStage, tmp_path: Path) -> None:
    other = Renderer(preset("debug").renderer)
    torch.save({"ema": other.state_dict()}, tmp_path / "state.pt")
    mine = RendererStage(Renderer(preset("debug").renderer), painters=tmp_path, parts=["hands"])
    warp = mine.module.warp.affine.bias.clone()
    mine.batch(torch.Generator().manual_seed(3), 0)
    for name in ("mouth", "eyes"):
        theirs = other.get_submodule(name).state_dict()
        ours = mine.module.get_submodule(name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert torch.equal(mine.module.warp.affine.bias, warp)


@pytest.mark.parametrize(
    ("kind", "trains"),
    [(Faces, {"mouth", "eyes"}), (RaisedHands, {"hands"}), (Batch, {"encoder", "warp", "hands"})],
)
def test_steps_train_their_part_alone(stage: RendererStage, kind: type, trains: set[str]) -> None:
    stage.module.zero_grad(set_to_none=True)
    stage.step(batch_of(stage, kind), 0)["loss"].backward()
    touched = {name.split(".")[0] for name, p in stage.module.named_parameters() if p.grad is not None}
    assert touched == trains or touched | {"hands"} == trains  # whole frames need not show hands
    assert all(p.requires_grad for p in stage.module.parameters())


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


def test_export_takes_painters_of_their_own_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    nets = {name: Renderer(preset("debug").renderer) for name in ("renderer", "painters")}
    for name, net in nets.items():
        (tmp_path / name).mkdir()
        state = {"ema": net.state_dict(), "iteration": len(name), "seconds": 1.0, "slices": [{"parts": [name]}]}
        torch.save(state, tmp_path / name / "state.pt")
    path = export_renderer(preset("debug"), tmp_path / "renderer", tmp_path / "out", tmp_path / "painters")
    made = Renderer(preset("debug").renderer)
    card = load_weights(path, made, kind="renderer", config=preset("debug").renderer)
    for name, value in made.state_dict().items():
        source = nets["painters" if name.split(".")[0] in ("mouth", "eyes") else "renderer"]
        assert torch.equal(value, source.state_dict()[name].half().float()), name
    assert card["slices"] == [{"parts": ["renderer"]}] and card["painters"]["slices"] == [{"parts": ["painters"]}]
    assert (card["steps"], card["painters"]["steps"]) == (len("renderer"), len("painters"))
