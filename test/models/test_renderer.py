# SPDX-License-Identifier: Apache-2.0
"""The renderer at the debug size: which control moves which part, places, hands, and the live codec beside it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flowact_ros.models.codec import hands, live
from flowact_ros.models.codec.appearance import PARTS, Appearance, crop, paste, settled
from flowact_ros.models.codec.blocks import interpolating, spread, spread_flow, warp
from flowact_ros.models.codec.motion import CONTROLS, control_index, neutral, normalise
from flowact_ros.models.codec.renderer import Renderer, parts_seen
from flowact_ros.models.config import preset


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(1)
    network = Renderer(preset("debug").renderer)
    for parameter in network.parameters():  # layers that start at zero would hide what goes through them
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def who(renderer: Renderer) -> Appearance:
    return renderer.appearance(2 * torch.rand(1, 3, 128, 128) - 1)


def moved(**controls: float) -> torch.Tensor:
    raw = neutral(1)
    for name, value in controls.items():
        raw[0, control_index(name)] = value
    return normalise(raw)


def boxes(renderer: Renderer, who: Appearance) -> dict[str, torch.Tensor]:
    """Masks [H, W] of the painted crops."""
    out = {}
    for i, name in enumerate(PARTS):
        x, y = who.corners[0, i].tolist()
        height, width = renderer.config.crop_sizes[i]
        out[name] = torch.zeros(128, 128, dtype=torch.bool)
        out[name][y : y + height, x : x + width] = True
    return out


@pytest.mark.parametrize(
    ("control", "parts"),
    [
        ("jaw", ("mouth",)),
        ("blink_left", ("eye_left",)),
        ("blink_right", ("eye_right",)),
        ("gaze_x", ("eye_left", "eye_right")),
        ("smile", ("mouth", "eye_left", "eye_right")),
    ],
)
def test_a_face_control_paints_its_own_parts_only(
    renderer: Renderer, who: Appearance, control: str, parts: tuple[str, ...]
) -> None:
    changed = (renderer.face(who, moved(**{control: 0.9})) - renderer.face(who, moved()))[0].abs().amax(
        0
    ) > 1e-6
    masks = boxes(renderer, who)
    allowed = torch.stack([masks[name] for name in parts]).any(0)
    assert changed.any() and not (changed & ~allowed).any()


def test_head_controls_leave_the_face_in_its_place_and_warp_the_picture(
    renderer: Renderer, who: Appearance
) -> None:
    assert torch.equal(renderer.face(who, moved(head_yaw=0.3)), renderer.face(who, moved()))
    assert not torch.allclose(renderer(who, moved(head_yaw=0.3)), renderer(who, moved()))


def test_a_hand_is_laid_over_where_the_motion_says(renderer: Renderer, who: Appearance) -> None:
    picture = torch.zeros(1, 3, 128, 128)
    assert renderer.hands(picture, who.identity, moved()) is not None
    assert torch.equal(renderer.hands(picture, who.identity, moved()), picture)
    for x in (0.25, 0.75):
        drawn = (
            renderer.hands(picture, who.identity, moved(hand_right_x=x, hand_right_y=0.5))[0].abs().amax(0)
            > 0
        )
        columns = drawn.any(0).nonzero().flatten().float()
        assert abs(float(columns.min() + columns.max()) / 2 - x * 128) <= 2
        assert not drawn[: 64 - renderer.config.hand_window // 2].any()


def test_layers_are_cut_at_the_picture_and_left_out_beyond_it() -> None:
    layer = torch.ones(4, 8, 8)
    picture = torch.zeros(3, 16, 16)
    assert hands.over(picture, layer, -4, 12).sum() == 3 * 4 * 4
    assert torch.equal(hands.over(picture, layer, 16, 0), picture)
    assert hands.overlap((16, 16), (8, 8), -8, 0) is None


def test_crops_are_pasted_where_they_were_cut() -> None:
    picture = torch.randn(2, 3, 20, 20)
    corners = torch.tensor([[3, 7], [12, 0]])
    cut = crop(picture, corners, (10, 8))
    assert torch.equal(cut[0], picture[0, :, 7:17, 3:11]) and torch.equal(cut[1], picture[1, :, 0:10, 12:20])
    emptied = paste(picture, corners, -cut)
    assert crop(emptied, corners, (10, 8)).abs().max() < 1e-6
    assert emptied.count_nonzero() == picture.numel() - 2 * 3 * 80


def test_spread_is_a_pixel_shuffle_and_a_flow_of_nothing_changes_nothing() -> None:
    x = torch.randn(2, 12, 4, 6).contiguous(memory_format=torch.channels_last)
    assert torch.equal(spread(x, 2), torch.nn.functional.pixel_shuffle(x, 2))
    picture = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(warp(picture, torch.zeros(1, 2, 8, 8)), picture)
    shifted = warp(picture, torch.tensor([2.0 * 2 / 8, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8))
    torch.testing.assert_close(shifted[..., :6], picture[..., 2:])  # flow says where a pixel comes from


def test_a_flow_is_spread_as_an_interpolation_would_or_with_a_sharp_edge() -> None:
    flow = torch.randn(1, 2, 5, 7)
    smooth = spread_flow(flow, interpolating()[None, :, None, None].expand(1, -1, 5, 7))
    assert torch.allclose(smooth, F.interpolate(flow, scale_factor=2.0, mode="bilinear"), atol=2e-3)
    nearest = torch.full((4, 9), -30.0)
    nearest[:, 4] = 0.0  # each of the four places is what its own cell is
    sharp = spread_flow(flow, nearest.flatten()[None, :, None, None].expand(1, -1, 5, 7))
    assert torch.allclose(sharp, F.interpolate(flow, scale_factor=2.0, mode="nearest"))


def test_one_picture_is_warped_as_its_copies_are() -> None:
    picture, flow = torch.randn(1, 3, 12, 16), 0.1 * torch.randn(4, 2, 6, 8)
    moved = warp(picture, flow)
    assert moved.shape == (4, 3, 6, 8)
    torch.testing.assert_close(moved, warp(picture.expand(4, -1, -1, -1), flow))


def test_a_part_in_front_covers_the_place_to_which_it_moves_and_no_other() -> None:
    part = torch.zeros(1, 8, 16)
    part[:, :, 2:6] = 1.0
    masks = torch.stack([1 - part, part], 1)  # what is behind, and the part
    shift = torch.tensor([[[0.0, 0.0], [-1.0, 0.0]]])  # a place of the part comes from half the width further left
    seen = parts_seen(masks, torch.zeros(1, 2, 2, 2), shift, torch.tensor([0.0, 20.0]))
    assert torch.allclose(seen[0, 1, :, 10:14], torch.ones(8, 4), atol=1e-3)
    assert float(seen[0, 1, :, :9].max()) < 1e-3
    assert torch.allclose(seen[0, 0, :, 7:9], torch.ones(8, 2), atol=1e-3)


def test_landmarks_keep_crops_inside_the_picture(renderer: Renderer) -> None:
    places = torch.tensor([[[-50.0, -50.0], [500.0, 10.0], [64.0, 64.0]]])
    corners = renderer.encoder.corners(places)
    assert corners[0, 0].tolist() == [0, 0]
    assert corners[0, 1].tolist() == [128 - 24, 0]
    assert corners[0, 2].tolist() == [64 - 12, 64 - 12 - 3]


def test_the_live_codec_draws_what_the_network_draws(renderer: Renderer, who: Appearance) -> None:
    motion = torch.cat(
        [
            moved(jaw=0.5, head_roll=0.1, hand_right_y=0.7), moved(hand_left_y=0.6, hand_right_y=0.7),
            moved(blink_left=1.0), moved(hand_left_y=0.7, hand_right_y=0.65),
        ]
    )  # five hands: more than a graph takes at once
    drawn = renderer(who.select(torch.zeros(4, dtype=torch.long)), motion)
    wanted = (drawn.clamp(-1, 1) * 127.5 + 127.5).round().permute(0, 2, 3, 1).numpy()
    frames = live.LiveCodec(renderer).render(who, motion)
    assert frames.shape == (4, 128, 128, 3) and frames.dtype == np.uint8
    # OpenCV places pixels to a thirty-second of their distance, and this picture is noise, which cubic weights amplify
    assert np.abs(frames - wanted).max() <= 24 and np.abs(frames - wanted).mean() < 1
    with pytest.raises(ValueError, match="3 frames asked for; a latent has 4"):
        live.LiveCodec(renderer).render(who, motion[:3])


def test_a_graph_that_fails_leaves_the_others_free(renderer: Renderer, who: Appearance) -> None:
    waited: list[str] = []

    def compile(module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> live.Graph:
        name, graph = type(module).__name__, live.eager(module, example)

        def begin(*inputs: torch.Tensor):
            wait = graph(*inputs)

            def counted() -> tuple[np.ndarray, ...]:
                waited.append(name)
                if name == "Mouth":
                    raise RuntimeError("no memory")
                return wait()

            return counted

        return begin

    with pytest.raises(RuntimeError, match="no memory"):
        live.LiveCodec(renderer, compile).render(who, moved().repeat(4, 1))
    assert waited == ["Mouth", "Eyes", "Body"]


def test_a_reference_is_read_without_its_neighbours(renderer: Renderer) -> None:
    pictures = 2 * torch.rand(2, 3, 128, 128) - 1
    both, one = renderer.appearance(pictures), renderer.appearance(pictures[1:])
    for together, alone in zip(both.select(torch.tensor([1])), one):
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert one.own.shape == (1, CONTROLS)


def test_a_reference_that_is_nearly_neutral_is_neutral(renderer: Renderer) -> None:
    read = torch.tensor([[0.0, 0.5, -0.5, 0.7, -2.0]])
    assert settled(read).tolist() == [[0.0, 0.0, 0.0, read[0, 3].item(), -2.0]]
    appearance, landmarks = renderer.encoder(
        2 * torch.rand(1, 3, 128, 128) - 1, renderer.mouth, renderer.eyes
    )
    assert torch.equal(appearance.own, settled(landmarks.read)) and not torch.equal(
        appearance.own, landmarks.read
    )


def test_dyes_are_shares_of_the_parts_colours(renderer: Renderer) -> None:
    """A hand of a character whose parts all have one colour gets that colour, not a multiple of it."""
    config = renderer.config
    identity = torch.zeros(2, config.identity + 3 * config.parts)
    identity[1, config.identity :] = 0.5
    motion = moved(hand_left_y=0.7).repeat(2, 1)
    both = copy.deepcopy(renderer.hands)
    torch.nn.init.zeros_(both.hand.paint.weight)
    torch.nn.init.zeros_(both.hand.paint.bias)
    layers = [layer for n, layer, *_ in both.layers(identity, motion)]
    middle = config.hand_window // 2
    colours = [layer[:3, middle, middle] for layer in layers[1::2]]
    assert torch.allclose(colours[0], torch.zeros(3), atol=1e-5)
    assert torch.allclose(colours[1], torch.full((3,), 0.5), atol=1e-5)


@pytest.mark.parametrize("every", [2, 4])
def test_of_some_frames_the_first_is_drawn_and_shown_for_all(
    renderer: Renderer, who: Appearance, every: int
) -> None:
    shown = {f"hand_{side}_y": 0.7 for side in ("left", "right")}
    motion = torch.cat([moved(jaw=0.1 * k, head_roll=0.02 * k, **shown) for k in range(8)])
    whole = live.LiveCodec(renderer).render(who, motion)
    shapes: list[int] = []

    def compile(module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> live.Graph:
        shapes.append(len(example[-1]))
        return live.eager(module, example)

    some = live.LiveCodec(renderer, compile, every=every).render(who, motion)
    assert some.shape == whole.shape and shapes == [4 // every] * 4  # so much less is computed
    for k, frame in enumerate(some):
        assert np.array_equal(frame, some[k - k % every])
        # the same, but for sums in another order
        assert np.abs(frame.astype(int) - whole[k - k % every].astype(int)).max() <= 1
    assert not np.array_equal(some[0], some[every])
    each = live.LiveCodec(renderer, every=every).poses(who, motion)
    assert np.abs(each.astype(int) - whole.astype(int)).max() <= 1
