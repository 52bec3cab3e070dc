# SPDX-License-Identifier: Apache-2.0
"""Latents to pictures in a live stream, where what hardly moves costs little.

A talking head fills half of the canvas, and of that half most parts only sway. So a latent's four pictures are made
in three ways: cells that stand still show the reference's picture; cells that move are drawn once, as the latent's
last picture, and faded to from the one before, which for movements of less than a pixel is what drawing would show;
only cells that change quickly (lips, lids, a turning head) are drawn picture by picture. What sways is drawn once in
all latents of a step, if that shows it as well. Each way has one rectangle, since a decoder of convolutions works on
rectangles. Around the first lies the reference, as the convolutions saw it; around the second what they saw for the
picture that was drawn once.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowact_ros.models.pair import Pair
from flowact_ros.models.surroundings import Inside, Surroundings
from flowact_ros.models.vae import VAE
from flowact_ros.models.window import HALF_CELL, Window

REST = 0.9  # of a cell's movement is remembered from latent to latent: what has moved is drawn for a while
LULL = 0.7  # the same of its pace


@dataclass(frozen=True, eq=False)
class Scene:
    """What is on screen where nothing moves: the reference, as if it had been there for ever.

    latent:  `[1, C, h, w]`
    deep:    features of the decoder's first layers `[1, width, h, w]`, and what those saw
    picture: uint8 `[32h, 32w, 3]`, and what the layers that drew it saw
    """

    latent: Tensor
    deep: Tensor
    deep_seen: Surroundings
    picture: Tensor
    seen: Surroundings


@dataclass(frozen=True, eq=False)
class Trail:
    """What the next latent's pictures depend on: the latent before it, with how its cells `[h, w]` moved so far."""

    latent: Tensor
    deep: Tensor
    moves: Tensor
    pace: Tensor


class Calm:
    """One picture of `drawn`, a latent's last one: drawn once, by the first thread that wants it.

    latent: `[1, C, h, w]`; deep: its features `[1, width, h, w]`; keep: part of `drawn` whose surroundings are wanted
    """

    def __init__(
        self, latent: Tensor, deep: Tensor, drawn: Window, keep: Window | None, scene: Scene, users: int = 1
    ) -> None:
        self.drawn = drawn
        self._latent, self._deep, self._scene, self._keep, self._users = latent, deep, scene, keep, users
        self._drawing, self._lock = threading.Lock(), threading.Lock()
        self._see: Inside | None = None
        self._picture: Tensor | None = None

    def _look(self) -> Inside:
        with self._lock:
            if self._see is None:
                self._see, self._picture = Inside(self.drawn, self._scene.seen, keep=self._keep), None
            return self._see

    @property
    def seen(self) -> Surroundings:
        """Of `keep`, as it is drawn: others may wait for it."""
        return self._look().seen

    @property
    def done(self) -> bool:
        return self._picture is not None

    def draw(self, vae: VAE) -> Tensor:
        """uint8 `[1, rows, columns, 3]`."""
        with self._drawing:
            if self._picture is None:
                see = self._look()
                try:
                    past, last = vae.decoder.apart(self.drawn.cells.of(self._deep, 0.5), 2, 4).split(1)
                    self._picture = _draw(vae, last, past, self._latent, self.drawn, see)
                finally:
                    see.end()
            return self._picture

    def leave(self) -> None:
        """One of its `users` has been painted. After the last one what was seen, megabytes a layer, is let go; whoever
        wants it again has it drawn again.
        """
        with self._lock:
            self._users -= 1
            if self._users <= 0:
                self._see = None


@dataclass(frozen=True, eq=False)
class Sketch:
    """One latent's pictures before they are drawn.

    drawn: beyond it the scene is shown; None: all is drawn, picture by picture; quick: the part of it that is
    calm:  what is faded to, in as many latents as are `left`, this one included
    """

    before: Trail
    after: Trail
    drawn: Window | None
    quick: Window | None
    calm: Calm | None = None
    left: int = 1


@dataclass(frozen=True, eq=False)
class Painting:
    """What was drawn: uint8 `[n, rows, columns, 3]`, the picture of `drawn` that is faded to, and those of `quick`: the
    latent's first three, where that is its last one, else all four.
    """

    sketch: Sketch
    last: Tensor
    between: Tensor | None


@dataclass(frozen=True, eq=False)
class Shown:
    """A latent's last picture uint8 `[32h, 32w, 3]`, which beyond `drawn` is the scene's."""

    picture: Tensor
    drawn: Window


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures uint8 `[n, rows, columns, 3]` of `window`; beyond it is the scene's."""

    pictures: Tensor
    window: Window

    def upon(self, ground: Tensor) -> Tensor:
        """Whole pictures `[n, H, W, 3]`: on `ground` `[H, W, 3]`, the scene's. Either may have been resized, both by
        the same factor, for which half a cell must be whole lines and columns.
        """
        rows, columns = self.pictures.shape[1:3]
        window, made = self.window, ground.expand(len(self.pictures), -1, -1, -1).clone()
        high, wide = rows // window.rows, columns // window.columns
        made[
            :, high * window.top : high * window.bottom, wide * window.left : wide * window.right
        ] = self.pictures
        return made


def settle(vae: VAE, latent: Tensor) -> tuple[Scene, Trail, Shown]:
    """Where a stream starts: as if latent `[1, C, h, w]`, the reference's, had been on screen for ever."""
    decoder, raw, whole = vae.decoder, vae.raw(latent.unsqueeze(1)), Window.whole(latent)
    wide = decoder.mix32(decoder.widen(raw[0]), 1, None)[0]
    deep = decoder.inner(wide, inner := Inside(whole, keep=whole))
    patches = decoder.body(decoder.frames(deep, 1, None)[0][-1:], body := Inside(whole, keep=whole))
    picture = vae.pictures(patches.unsqueeze(0), decoder.tint(raw))[0]
    for see in (inner, body):
        see.end()
    none = torch.zeros_like(latent[0, 0], dtype=torch.float32)
    scene = Scene(latent, deep, inner.seen, picture, body.seen)
    return scene, Trail(latent, deep, none, none), Shown(picture, whole)


def sketch(
    vae: VAE, latents: Tensor, before: Trail, scene: Scene, *, still: float, calm: float
) -> list[Sketch]:
    """What is to be drawn of latents `[1, N, C, h, w]`, which follow `before`: one each.

    still: cells nearer to the reference than this (mean distance of a channel) show its picture; 0: all is drawn
    calm:  cells that change by less than this from latent to latent are drawn once and faded to; where they do so from
           `before` to the last latent, and on a straight way, once in all of them
    """
    made = deepen(vae, latents, before.latent, scene, still)
    trails = [before]
    for latent, deep in zip(latents.unbind(1), made.split(1)):
        moves = torch.maximum(_distance(latent, scene.latent), REST * trails[-1].moves)
        pace = torch.maximum(_distance(latent, trails[-1].latent), LULL * trails[-1].pace)
        trails.append(Trail(latent, deep, moves, pace))
    steps = list(zip(trails, trails[1:]))
    if still <= 0:
        return [Sketch(*step, None, None) for step in steps]
    single = [regions(after.moves, after.pace, still, calm) for _, after in steps]
    bends = torch.stack(_bends([trail.latent for trail in trails])).amax(0) >= calm
    joint = [regions(a.moves, torch.where(bends, a.pace.clamp_min(calm), a.pace), still, calm) for _, a in steps]
    drawn, quick = _join(d for d, _ in joint), _join(q for _, q in joint)
    assert drawn is not None
    together = drawn.area + sum(4 * q.area for _, q in joint if q) - (joint[-1][1].area if joint[-1][1] else 0)
    if together < sum(d.area + (3 * q.area if q else 0) for d, q in single):
        last = Calm(trails[-1].latent, trails[-1].deep, drawn, quick, scene, len(steps))
        return [Sketch(*step, drawn, q, last, len(steps) - i) for i, (step, (_, q)) in enumerate(zip(steps, joint))]
    return [Sketch(*s, d, q, Calm(s[1].latent, s[1].deep, d, q, scene)) for s, (d, q) in zip(steps, single)]


def _bends(latents: list[Tensor]) -> list[Tensor]:
    """How far cells `[h, w]` go from the first of N + 1 latents to the last, and how far beside the straight way."""
    first, last, steps = latents[0], latents[-1], len(latents) - 1
    way = [_distance(x, torch.lerp(first, last, i / steps)) for i, x in enumerate(latents[1:-1], 1)]
    return [_distance(first, last), *way]


def _join(windows: Iterable[Window | None]) -> Window | None:
    """The smallest one that holds all of them, None without any."""
    some = [window for window in windows if window is not None]
    return functools.reduce(Window.joined, some) if some else None


def deepen(vae: VAE, latents: Tensor, before: Tensor, scene: Scene, still: float) -> Tensor:
    """The decoder's layers that see whole latents `[1, N, C, h, w]`, which follow `before` `[1, C, h, w]`: `[N, ...]`.

    For all of a step at once their large weights are read once.
    """
    decoder, row = vae.decoder, torch.cat([before.unsqueeze(1), latents], 1)
    wide = decoder.widen(vae.raw(row)[0])
    if still <= 0:
        return decoder.inner(decoder.mix32(wide[1:], 1, wide[:1])[0])
    moves = (row[0] - scene.latent).float().abs().mean(1).amax(0)
    window = Window.around(moves >= still)
    part = window.of(wide, 0.5)
    part = decoder.mix32(part[1:], 1, part[:1])[0].contiguous(memory_format=torch.channels_last)
    deep = scene.deep.expand(len(wide) - 1, -1, -1, -1).clone(memory_format=torch.channels_last)
    window.of(deep, 0.5).copy_(decoder.inner(part, Inside(window, scene.deep_seen)))
    return deep


def paint(vae: VAE, sketch: Sketch, scene: Scene, pair: Pair | None = None) -> Painting:
    """Draws: most of the work, and nothing but its arguments matters. pair: threads for its two windows."""
    decoder, (deep, before) = vae.decoder, (sketch.after.deep, sketch.before.deep)
    if sketch.drawn is None:
        tint = decoder.tint(vae.raw(sketch.after.latent.unsqueeze(1)))
        x = decoder.frames(deep, 1, decoder.apart(before, 3, 4))[0]
        pictures = vae.pictures(decoder.body(x).unsqueeze(0), tint)
        return Painting(sketch, pictures[3:], pictures[:3])

    calm, quick = sketch.calm, sketch.quick
    assert calm is not None

    def between() -> Tensor:
        """Each layer a little behind that of `calm`, which it takes its surroundings from."""
        own, earlier = (quick.cells.of(x, 0.5) for x in (deep, before))
        frames, past = decoder.apart(own, 0, 3 if sketch.left == 1 else 4), decoder.apart(earlier, 3, 4)
        return _draw(vae, frames, past, sketch.after.latent, quick, Inside(quick, seen))

    def once() -> Tensor:
        return calm.draw(vae)

    if quick is None:
        painting = Painting(sketch, once(), None)
    else:
        seen = calm.seen  # before `done` is asked: it is not, if what was seen had been let go
        painting = Painting(sketch, *(pair(once, between) if pair and not calm.done else (once(), between())))
    calm.leave()
    return painting


def _draw(vae: VAE, frames: Tensor, past: Tensor, latent: Tensor, window: Window, see: Inside) -> Tensor:
    """Pictures of a window from features of its cells, with those of the frame before and the latent's colour."""
    x = window.of(vae.decoder.mix16(frames, 1, past)[0], 1.0, window.cells)
    tint = vae.decoder.tint(vae.raw(latent.unsqueeze(1)))
    patches = vae.decoder.body(x, see).unsqueeze(0)
    return vae.pictures(patches, window.of(tint, HALF_CELL // vae.config.stem_patch))


def show(painting: Painting, before: Shown, scene: Scene) -> tuple[Part, Shown]:
    """A painting after what was shown `before` -> four pictures, and what is shown now."""
    drawn, quick = painting.sketch.drawn, painting.sketch.quick
    if drawn is None:
        pictures = torch.cat([painting.between, painting.last])
        return Part(pictures, before.drawn), Shown(pictures[-1], before.drawn)
    picture = scene.picture.clone()
    _paste(painting.last, picture.unsqueeze(0), drawn)
    window, left = drawn.joined(before.drawn), painting.sketch.left  # all else is the scene's, before and after
    start, end = (window.of(x.movedim(-1, 0), HALF_CELL).movedim(0, -1) for x in (before.picture, picture))
    if left > 1:
        end = torch.lerp(start.float(), end.float(), 1 / left).round_().to(torch.uint8)
    pictures = fade(start, end)
    if quick is not None:
        _paste(painting.between, pictures[: len(painting.between)], quick, window)
    if left > 1:
        _paste(pictures[3:], picture.unsqueeze(0), window)
        drawn = window  # what was there before has not gone yet
    return Part(pictures, window), Shown(picture, drawn)


def regions(moves: Tensor, pace: Tensor, still: float, calm: float) -> tuple[Window, Window | None]:
    """What is drawn, and what of it picture by picture (None: nothing), from the movement and pace of cells `[h, w]`.

    With half a cell around: a cell's neighbours show a little of it, too.
    """
    quick = pace >= calm
    whole = Window.whole(moves)
    drawn = Window.around((moves >= still) | quick).grown(1, whole)
    return drawn, Window.around(quick).grown(1, whole) if bool(quick.any()) else None


def _paste(part: Tensor, pictures: Tensor, window: Window, inside: Window | None = None) -> None:
    """Pictures of a window `[n, rows, columns, 3]` into whole ones, or into those of `inside`, in place."""
    window.of(pictures.movedim(-1, 1), HALF_CELL, inside).copy_(part.movedim(-1, 1))


def fade(before: Tensor, after: Tensor) -> Tensor:
    """Pictures uint8 `[4, H, W, 3]` a quarter, a half, three quarters and all of the way from one to another."""
    start, end = before.to(torch.int16), after.to(torch.int16)
    half = _halfway(start, end)
    steps = (_halfway(start, half), half, _halfway(half, end), end)
    return torch.stack([step.to(torch.uint8) for step in steps])


def _halfway(a: Tensor, b: Tensor) -> Tensor:
    return (a + b).add_(1).bitwise_right_shift_(1)


def _distance(latent: Tensor, other: Tensor) -> Tensor:
    """Mean distance of a channel `[h, w]`."""
    return (latent - other).float().abs().mean((0, 1))
