# SPDX-License-Identifier: Apache-2.0
"""Pictures of a live stream: what is drawn, what is faded to and what stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowact_ros.models.config import debug
from flowact_ros.models.decoding import (
    Scene,
    Shown,
    Sketch,
    Trail,
    fade,
    paint,
    regions,
    settle,
    show,
    sketch,
)
from flowact_ros.models.pair import Pair
from flowact_ros.models.surroundings import Surroundings
from flowact_ros.models.vae import VAE
from flowact_ros.models.window import Window

STILL, CALM = 0.03, 0.08
Start = tuple[Scene, Trail, Shown]


def draw(vae: VAE, latents: Tensor, start: Start, still: float = STILL, calm: float = CALM) -> tuple[Tensor, Start]:
    """Pictures `[4 N, H, W, 3]` of latents `[1, N, C, h, w]` after `start`."""
    scene, trail, shown = start
    pictures = []
    for one in sketch(vae, latents, trail, scene, still=still, calm=calm):
        made, shown = show(paint(vae, one, scene), shown, scene)
        trail = one.after
        pictures.append(made.upon(scene.picture))
    return torch.cat(pictures), (scene, trail, shown)


def make_vae() -> VAE:
    torch.manual_seed(0)
    vae = VAE(replace(debug().vae, corrector_widths=())).eval().requires_grad_(False)
    for parameter in vae.parameters():  # the zero-initialised branches would hide mistakes
        parameter.add_(0.05 * torch.randn_like(parameter))
    vae.latent_std.fill_(4.0)  # pictures with contrast
    return vae


def test_windows_hold_what_moves_and_half_a_cell_around_it() -> None:
    moves, pace = torch.zeros(16, 16), torch.zeros(16, 16)
    assert regions(moves, pace, STILL, CALM) == (Window(15, 19, 15, 19), None)  # something has to be drawn
    moves[4, 3], moves[9, 12] = 0.06, 0.2
    moves[0, 0] = 0.02  # too little
    assert regions(moves, pace, STILL, CALM) == (Window(7, 21, 5, 27), None)
    pace[5, 4] = 0.1
    assert regions(moves, pace, STILL, CALM) == (Window(7, 21, 5, 27), Window(9, 13, 7, 11))
    pace[15, 15] = 0.08  # what is quick is drawn, whatever else is known of it
    assert regions(moves, pace, STILL, CALM) == (Window(7, 32, 5, 32), Window(9, 32, 7, 32))


def test_where_all_is_quick_all_is_drawn() -> None:
    vae = make_vae()
    latents = torch.randn(1, 4, 8, 4, 3)
    whole = vae.decode_rgb(latents)[0][0]
    pictures, (_, _, shown) = draw(vae, latents[:, 1:], settle(vae, latents[:, 0]))
    assert pictures.shape == (12, 128, 96, 3) and pictures.dtype == torch.uint8
    assert int((pictures.int() - whole[4:].int()).abs().max()) <= 1
    assert torch.equal(shown.picture, pictures[-1])


def test_it_does_not_matter_how_latents_are_cut_into_steps() -> None:
    vae, latents = make_vae(), torch.randn(1, 4, 8, 6, 6)
    latents[:, 1:] = latents[:, :1] + 0.1 * latents[:, 1:] * (torch.rand(6, 6) > 0.5)
    together, _ = draw(vae, latents[:, 1:], start := settle(vae, latents[:, 0]))
    single = []
    for k in (1, 2, 3):
        pictures, start = draw(vae, latents[:, k : k + 1], start)
        single.append(pictures)
    assert (together.int() - torch.cat(single).int()).abs().max() <= 1
    alone, _ = draw(vae, latents[:, 2:3], settle(vae, latents[:, 0]))
    assert not torch.equal(single[1], alone)  # the one before matters


def test_switched_off_it_is_the_plain_decoder() -> None:
    vae, latents = make_vae(), torch.randn(1, 3, 8, 4, 3)
    pictures, _ = draw(vae, latents[:, 1:], settle(vae, latents[:, 0]), still=0.0)
    whole = vae.decode_rgb(latents)[0][0]
    assert (pictures.int() - whole[4:].int()).abs().max() <= 1


def test_what_stands_still_is_shown_as_it_was() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    still = settle(vae, latent)
    moved = latent.clone()
    moved[..., 3:5, 4:6] += torch.randn(8, 2, 2)
    pictures, (scene, _, shown) = draw(vae, moved.unsqueeze(1), still)
    changed = (pictures != scene.picture).any(0).any(-1).nonzero()
    assert changed.amin(0).tolist() >= [80, 112] and changed.amax(0).tolist() < [176, 208]
    assert len(changed) > 0.5 * 96 * 96
    assert shown.drawn == Window(5, 11, 7, 13)
    back, _ = draw(vae, latent.unsqueeze(1), (scene, still[1], shown))  # a trail that knows of no movement
    assert torch.equal(back[-1], scene.picture) and not torch.equal(back[0], scene.picture)


def test_at_its_borders_a_drawn_part_sees_the_rest_of_the_picture() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    moved = latent.clone()
    moved[..., 3:5, 4:6] += 0.1 * torch.randn(8, 2, 2)
    whole = vae.decode_rgb(torch.stack([latent, moved], 1))[0][0, -1, 80:176, 112:208].int()
    scene, trail, shown = settle(vae, latent)
    nothing = Surroundings(scene.seen.box, [torch.zeros_like(x) for x in scene.seen.seen])
    error, blind = (
        (draw(vae, moved.unsqueeze(1), (around, trail, shown))[0][-1, 80:176, 112:208] - whole).abs().float().mean()
        for around in (scene, replace(scene, seen=nothing))
    )
    unmoved = (scene.picture[80:176, 112:208].int() - whole).abs().float().mean()
    assert error < 0.25 * blind and error < 0.25 * unmoved, (error, blind, unmoved)


def test_slow_movement_is_faded_to_and_quick_movement_drawn() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    still = settle(vae, latent)
    sway = latent.clone()
    sway[..., 1:3, 1:3] += 0.05
    sway[..., 5:7, 6:9] += torch.randn(8, 2, 3)
    pictures, (scene, _, shown) = draw(vae, sway.unsqueeze(1), still)
    first, last = scene.picture.float(), pictures[-1].float()
    assert torch.equal(shown.picture, pictures[-1])
    way = torch.stack([torch.lerp(first, last, share) for share in (0.25, 0.5, 0.75)])
    off = (pictures[:-1] - way).abs().amax(-1)
    assert off[:, :128, :128].max() <= 1 and (last - first)[:128, :128].abs().max() > 1
    assert off[:, 176:208, 208:272].max() > 8  # the pictures between are no mixture
    again = draw(vae, sway.unsqueeze(1), still)[0]
    assert torch.equal(again, pictures)  # nothing of a state is written in place


def test_what_sways_on_a_straight_way_is_drawn_once_a_step() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    scene, trail, shown = settle(vae, latent)
    sway = torch.stack([latent, latent, latent], 1)
    sway[:, :, :, 1:4, 1:4] += torch.tensor([0.02, 0.04, 0.06])[:, None, None, None]
    quick = torch.randn(8, 2, 3)
    sway[:, 1, :, 5:7, 6:9] += quick  # a blink
    sketches = sketch(vae, sway, trail, scene, still=STILL, calm=CALM)
    calm = sketches[0].calm
    assert calm is not None and [s.calm for s in sketches] == 3 * [calm] and [s.left for s in sketches] == [3, 2, 1]
    pictures, (_, _, after) = draw(vae, sway, (scene, trail, shown))
    first, last = scene.picture.float(), pictures[-1].float()
    way = torch.stack([torch.lerp(first, last, (k + 1) / 12) for k in range(12)])
    off, sways = (pictures - way)[:, :144, :144], (last - first)[:144, :144]
    assert off.abs().max() <= 1.5 and sways.abs().max() > 2
    whole = vae.decode_rgb(torch.cat([latent.unsqueeze(1), sway], 1))[0][0, 4:].float()
    error, unmoved = (
        (x - whole)[:, 160:224, 192:288].abs().mean((1, 2, 3)) for x in (pictures.float(), first)
    )
    assert (error[4:8] < 0.2 * unmoved[4:8]).all(), (error, unmoved)  # picture by picture
    assert torch.equal(after.picture, pictures[-1]) and after.drawn == sketches[0].drawn
    for pair in (None, Pair()):  # what was seen has been let go; they come out the same, whatever their order
        kept = sketch(vae, sway, trail, scene, still=STILL, calm=CALM)
        for _ in range(2):
            paintings = {s.left: paint(vae, s, scene, pair) for s in reversed(kept)}
            assert kept[0].calm is not None and kept[0].calm._see is None
            now, again = shown, []
            for left in (3, 2, 1):
                part, now = show(paintings[left], now, scene)
                again.append(part.upon(scene.picture))
            assert torch.equal(torch.cat(again), pictures)
    cut = [show(paint(vae, s, scene), shown, scene) for s in sketches[:1]]  # a rewind after the first latent
    part_, midway = cut[0]
    assert torch.equal(part_.upon(scene.picture), pictures[:4]) and torch.equal(midway.picture, pictures[3])
    bent = sway.clone()
    bent[:, 1, :, 1:4, 1:4] += 1.0  # there and back
    assert all(s.quick is not None for s in sketch(vae, bent, trail, scene, still=STILL, calm=CALM)[1:])
    far = sway.clone()
    far[:, :, :, 0:8, 0:10] += torch.tensor([0.05, 0.1, 0.15])[:, None, None, None]  # more than `calm` in all
    assert [s.left for s in sketch(vae, far, trail, scene, still=STILL, calm=CALM)] == [1, 1, 1]


def test_what_has_moved_is_drawn_for_a_while() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 8)
    moved = latent.clone()
    moved[..., 2, 2] += 1.0
    start, seen = draw(vae, moved.unsqueeze(1), settle(vae, latent))[1], []
    for _ in range(40):
        start = draw(vae, latent.unsqueeze(1), start)[1]
        seen.append((bool(start[1].moves[2, 2] >= STILL), bool(start[1].pace[2, 2] >= CALM)))
    drawn, quick = ([pair[i] for pair in seen] for i in (0, 1))
    assert drawn.index(False) == 33 and not any(drawn[33:])  # 0.9 ** 34 < 0.03
    assert quick.index(False) == 8 and not any(quick[8:])  # back where it was at once; 0.7 ** 8 < 0.08
    scene, _, shown = start
    changed = (shown.picture != scene.picture).any(-1).nonzero()
    assert not len(changed) or (changed.amin() >= 112 and changed.amax() < 176)  # the middle is always drawn


def test_a_fade_is_a_mixture() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    before, after = values[:, None, None].expand(256, 256, 3), values[None, :, None].expand(256, 256, 3)
    pictures = fade(before, after)
    assert pictures.dtype == torch.uint8 and torch.equal(pictures[3], after)
    for picture, share in zip(pictures, (0.25, 0.5, 0.75)):
        assert (picture - torch.lerp(before.float(), after.float(), share)).abs().max() < 1


def test_two_threads_paint_the_same_and_do_not_wait_for_what_failed() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    scene, trail, _ = settle(vae, latent)
    moved = latent.clone()
    moved[..., 1:3, 1:3] += 0.05
    moved[..., 5:7, 6:9] += torch.randn(8, 2, 3)
    (one,) = sketch(vae, moved.unsqueeze(1), trail, scene, still=STILL, calm=CALM)

    def again(scene: Scene) -> Sketch:
        return next(iter(sketch(vae, moved.unsqueeze(1), trail, scene, still=STILL, calm=CALM)))

    alone = paint(vae, one, scene)
    assert alone.between is not None
    for _ in range(5):
        both = paint(vae, again(scene), scene, Pair())
        assert torch.equal(both.last, alone.last) and torch.equal(both.between, alone.between)
    broken = replace(scene, seen=replace(scene.seen, seen=list(scene.seen.seen)[:2]))
    with pytest.raises(IndexError):
        paint(vae, again(broken), scene, Pair())
    apart = vae.decoder.apart

    def failing(x: Tensor, first: int, stop: int) -> Tensor:
        if first == 2:  # of the part that is drawn once, before its first layer
            raise MemoryError("no memory")
        return apart(x, first, stop)

    vae.decoder.apart = failing  # type: ignore[method-assign]
    with pytest.raises(MemoryError, match="no memory"):
        paint(vae, again(scene), scene, Pair())
