# SPDX-License-Identifier: Apache-2.0
"""Pictures of a live stream: what is drawn, what is faded to and what stays."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flowact_ros.models.config import debug
from flowact_ros.models.decoding import decode, deepen, fade, regions, settle
from flowact_ros.models.vae import VAE, State
from flowact_ros.models.window import Window

STILL, CALM = 0.03, 0.08


def show(vae: VAE, latent: Tensor, state: State, still: float = STILL, calm: float = CALM) -> tuple[Tensor, State]:
    """`decode` of latent `[1, C, h, w]` after `state`."""
    deep = deepen(vae, latent.unsqueeze(1), state["latent"])
    return decode(vae, latent, deep, state, still=still, calm=calm)


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
    state = settle(vae, latents[:, 0])
    plain = vae.decode_rgb(latents[:, :1])[1]
    for k in range(1, 4):
        whole, plain = vae.decode_rgb(latents[:, k : k + 1], plain)
        pictures, state = show(vae, latents[:, k], state)
        assert pictures.shape == (4, 128, 96, 3) and pictures.dtype == torch.uint8
        assert int((pictures.int() - whole[0].int()).abs().max()) <= 1
        assert torch.equal(state["picture"], pictures[-1])
        torch.testing.assert_close(state["16"], plain["decoder.16"], rtol=1e-4, atol=1e-4)


def test_layers_of_whole_latents_may_be_made_for_a_step_at_once() -> None:
    vae, latents = make_vae(), torch.randn(1, 4, 8, 4, 3)
    together = deepen(vae, latents[:, 1:], latents[:, 0])
    single = [deepen(vae, latents[:, k : k + 1], latents[:, k - 1]) for k in (1, 2, 3)]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(single[1], deepen(vae, latents[:, 2:3], latents[:, 0]))  # the one before matters


def test_switched_off_it_is_the_plain_decoder() -> None:
    vae, latents = make_vae(), torch.randn(1, 2, 8, 4, 3)
    state = settle(vae, latents[:, 0])
    pictures, after = show(vae, latents[:, 1], state, still=0.0)
    whole, plain = vae.decode_rgb(latents[:, 1:], vae.decode_rgb(latents[:, :1])[1])
    assert (pictures.int() - whole[0].int()).abs().max() <= 1
    torch.testing.assert_close(after["16"], plain["decoder.16"], rtol=1e-4, atol=1e-4)


def test_what_stands_still_is_shown_and_remembered_as_it_was() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    still = settle(vae, latent)
    moved = latent.clone()
    moved[..., 3:5, 4:6] += torch.randn(8, 2, 2)
    pictures, after = show(vae, moved, still)
    changed = (pictures != still["picture"]).any(0).any(-1).nonzero()
    assert changed.amin(0).tolist() >= [80, 112] and changed.amax(0).tolist() < [176, 208]
    assert len(changed) > 0.5 * 96 * 96
    kept = (after["16"] != still["16"])[0].any(0).nonzero()
    assert kept.amin(0).tolist() == [2, 4] and kept.amax(0).tolist() == [
        13,
        15,
    ]  # with a border, in whole cells


def test_slow_movement_is_faded_to_and_quick_movement_drawn() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 10)
    still = settle(vae, latent)
    sway = latent.clone()
    sway[..., 1:3, 1:3] += 0.05
    sway[..., 5:7, 6:9] += torch.randn(8, 2, 3)
    pictures, after = show(vae, sway, still)
    first, last = still["picture"].float(), pictures[-1].float()
    assert torch.equal(after["picture"], pictures[-1])
    way = torch.stack([torch.lerp(first, last, share) for share in (0.25, 0.5, 0.75)])
    off = (pictures[:-1] - way).abs().amax(-1)
    assert off[:, :128, :128].max() <= 1 and (last - first)[:128, :128].abs().max() > 1
    assert off[:, 176:208, 208:272].max() > 8  # the pictures between are no mixture
    again = show(vae, sway, still)[0]
    assert torch.equal(again, pictures)  # nothing of a state is written in place


def test_what_has_moved_is_drawn_for_a_while() -> None:
    vae, latent = make_vae(), torch.randn(1, 8, 8, 8)
    moved = latent.clone()
    moved[..., 2, 2] += 1.0
    state, seen = show(vae, moved, settle(vae, latent))[1], []
    for _ in range(40):
        state = show(vae, latent, state)[1]
        seen.append((bool(state["moves"][2, 2] >= STILL), bool(state["pace"][2, 2] >= CALM)))
    drawn, quick = ([pair[i] for pair in seen] for i in (0, 1))
    assert drawn.index(False) == 33 and not any(drawn[33:])  # 0.9 ** 34 < 0.03
    assert quick.index(False) == 8 and not any(quick[8:])  # back where it was at once; 0.7 ** 8 < 0.08
    changed = (state["picture"] != state["still.picture"]).any(-1).nonzero()
    assert changed.amin() >= 112 and changed.amax() < 176  # nothing but the middle, which is always drawn


def test_a_fade_is_a_mixture() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    before, after = values[:, None, None].expand(256, 256, 3), values[None, :, None].expand(256, 256, 3)
    pictures = fade(before, after)
    assert pictures.dtype == torch.uint8 and torch.equal(pictures[3], after)
    for picture, share in zip(pictures, (0.25, 0.5, 0.75)):
        assert (picture - torch.lerp(before.float(), after.float(), share)).abs().max() < 1
