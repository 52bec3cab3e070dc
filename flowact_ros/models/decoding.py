# SPDX-License-Identifier: Apache-2.0
"""Latents to pictures in a live stream, where what hardly moves costs little.

A talking head fills half of the canvas, and of that half most parts only sway. So a latent's four pictures are made
in three ways: cells that stand still show the reference's picture; cells that move are drawn once, as the latent's
last picture, and faded to from the one before, which for movements of less than a pixel is what drawing would show;
only cells that change quickly (lips, lids, a turning head) are drawn picture by picture. Each way has one rectangle,
since a decoder of convolutions works on rectangles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.models.vae import VAE, State
from flowact_ros.models.window import HALF_CELL, Window

REST = 0.9  # of a cell's movement is remembered from latent to latent: what has moved is drawn for a while
LULL = 0.7  # the same of its pace


def deepen(vae: VAE, latents: Tensor, before: Tensor) -> Tensor:
    """The decoder's layers that see whole latents `[1, N, C, h, w]`, which follow `before` `[1, C, h, w]`: `[N, ...]`.

    What `decode` needs of each of them. For all of a step at once their large weights are read once.
    """
    past = vae.decoder.widen(vae.raw(before.unsqueeze(1)).flatten(0, 1))
    return vae.decoder.deep(vae.raw(latents), past)[0]


def settle(vae: VAE, latent: Tensor) -> State:
    """State of `decode` as if latent `[1, C, h, w]`, the reference's, had been on screen for ever."""
    pictures, state = vae.decode_rgb(latent.unsqueeze(1))
    picture, none = pictures[0, -1], torch.zeros_like(latent[0, 0], dtype=torch.float32)
    now = {"latent": latent, "picture": picture, "16": state["decoder.16"]}
    return {**now, **{f"still.{name}": tensor for name, tensor in now.items()}, "moves": none, "pace": none}


def decode(
    vae: VAE, latent: Tensor, deep: Tensor, state: State, *, still: float, calm: float
) -> tuple[Tensor, State]:
    """latent `[1, C, h, w]` after `state` -> pictures uint8 `[4, 32h, 32w, 3]` and the next state.

    deep:  what `deepen` says of it `[1, ...]`
    still: cells nearer to the reference than this (mean distance of a channel) show its picture; 0: all is drawn
    calm:  cells that change by less than this from latent to latent are drawn once and faded to
    """
    decoder, tint = vae.decoder, vae.decoder.tint(vae.raw(latent.unsqueeze(1)))
    if still <= 0:
        x, past16 = decoder.frames(deep, 1, state["16"])
        return vae.pictures(decoder.body(x).unsqueeze(0), tint), {**state, "16": past16}
    moves = torch.maximum(_distance(latent, state["still.latent"]), REST * state["moves"])
    pace = torch.maximum(_distance(latent, state["latent"]), LULL * state["pace"])
    drawn, quick = regions(moves, pace, still, calm)
    wide = drawn.wide(Window.whole(latent))
    x, seen16 = decoder.frames(deep, 1, state["16"], wide)

    def draw(frames: Tensor, window: Window) -> Tensor:
        patches = decoder.body(frames, window, wide).unsqueeze(0)
        return vae.pictures(patches, window.of(tint, HALF_CELL // vae.config.stem_patch))

    last = state["still.picture"].clone()
    _paste(draw(x[-1:], drawn), last.unsqueeze(0), drawn)
    past16 = state["still.16"].clone()
    wide.of(past16).copy_(seen16)
    pictures = fade(state["picture"], last)
    if quick is not None:
        _paste(draw(x[:-1], quick), pictures[:-1], quick)
    return pictures, {**state, "latent": latent, "picture": last, "16": past16, "moves": moves, "pace": pace}


def regions(moves: Tensor, pace: Tensor, still: float, calm: float) -> tuple[Window, Window | None]:
    """What is drawn, and what of it picture by picture (None: nothing), from the movement and pace of cells `[h, w]`.

    With half a cell around: a cell's neighbours show a little of it, too.
    """
    quick = pace >= calm
    whole = Window.whole(moves)
    drawn = Window.around((moves >= still) | quick).grown(1, whole)
    return drawn, Window.around(quick).grown(1, whole) if bool(quick.any()) else None


def fade(before: Tensor, after: Tensor) -> Tensor:
    """Pictures uint8 `[4, H, W, 3]` a quarter, a half, three quarters and all of the way from one to another."""
    start, end = before.to(torch.int16), after.to(torch.int16)
    half = _between(start, end)
    steps = (_between(start, half), half, _between(half, end), end)
    return torch.stack([step.to(torch.uint8) for step in steps])


def _between(a: Tensor, b: Tensor) -> Tensor:
    return (a + b).add_(1).bitwise_right_shift_(1)


def _distance(latent: Tensor, other: Tensor) -> Tensor:
    """Mean distance of a channel `[h, w]`."""
    return (latent - other).float().abs().mean((0, 1))


def _paste(part: Tensor, pictures: Tensor, window: Window) -> None:
    """Pictures of a window `[n, rows, columns, 3]` into whole ones, in place."""
    window.of(pictures.movedim(-1, 1), HALF_CELL).copy_(part.movedim(-1, 1))
