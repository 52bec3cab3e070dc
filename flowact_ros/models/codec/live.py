# SPDX-License-Identifier: Apache-2.0
"""The embedded codec as the live stream uses it: a reference picture once, then a latent's frames at a time.

What networks compute is cut into static graphs, so that a runtime may compile them and two cores share them: `Body`
(how the picture moves, and what is painted on it) takes about as long as `Mouth`, `Eyes` and `HandSprites` together,
of which the last is computed only where hands are to be seen. So a CPU computes the body beside all others. What moves
pixels at full resolution (pasting, warping, blending) is done on bytes by OpenCV, which takes a third of the time that
graphs of floats take for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.appearance import EYES, MOUTH, Appearance, Landmarks
from flowact_ros.models.codec.blocks import positions
from flowact_ros.models.codec.hands import Shown
from flowact_ros.models.codec.laying import lay_hands
from flowact_ros.models.codec.moving import bends, median_flow, move
from flowact_ros.models.codec.quantise import Ranges, rounded
from flowact_ros.models.codec.renderer import PAINT_STRIDE, RESERVE, Renderer
from flowact_ros.timebase import FRAMES_PER_LATENT

#: Begins to compute; what it returns waits for the outputs, or computes them then. So graphs run beside each other.
Graph = Callable[..., Callable[[], tuple[np.ndarray, ...]]]
Wait = Callable[[], Any]
#: Makes a graph of a module that is called with tensors of the shapes of these examples from now on.
Compile = Callable[[nn.Module, tuple[Tensor, ...]], Graph]
KEPT = 4  # references whose bytes are kept, some 8 MB each
COMPOSERS = 2  # frames of a latent that are put together side by side
COLOURS = 3 * PAINT_STRIDE**2  # of the paint's channels; the others are its cover
FAINTEST = (
    RESERVE - 3.476
)  # logit; paint that covers less than 3 % is not laid: it would change a level or two


def eager(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """The module itself, computed when it is waited for."""
    return lambda *inputs: lambda: tuple(x.numpy() for x in module(*inputs))


def outputs_of(begun: Sequence[Wait]) -> list[Any]:
    """Of graphs that were begun. Where one fails the others are waited for all the same: who waits gives back what a
    graph computes with, and the next frame would wait for that for ever.
    """
    outputs, failed = [], None
    for wait in begun:
        try:
            outputs.append(wait())
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return outputs


def painted(painter: nn.Module, controls: Tensor, weight: Tensor, *reference: Tensor) -> Tensor:
    """What is to be added to crops `[C, 3, h, w]` of the reference, `[C N, h, w, 3]`, for controls `[C N, k]`.

    reference: the crops and their features; weight `[C, 1, h, w]`: how much of the painted crops is seen
    """
    frames = controls.shape[0] // weight.shape[0]
    crops, fine, coarse, weight = (x.repeat_interleave(frames, 0) for x in (*reference, weight))
    return (weight * (painter(crops, fine, coarse, controls) - crops)).permute(0, 2, 3, 1)


class Mouth(nn.Module):
    """The painter of the mouth for the frames of one latent, of one reference."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.mouth = renderer.mouth

    def forward(
        self, crop: Tensor, weight: Tensor, fine: Tensor, coarse: Tensor, own: Tensor, motion: Tensor
    ) -> tuple[Tensor]:
        """crop `[1, 3, h, w]`, own `[1, K]`, motion `[N, K]` -> what is to be added to the crop, `[N, h, w, 3]`."""
        own = own.expand(motion.shape[0], -1)
        controls = torch.cat([motion[:, MOUTH], own[:, MOUTH]], 1)
        return (painted(self.mouth, controls, weight, crop, fine, coarse),)


class Eyes(nn.Module):
    """The painter of the eyes for the frames of one latent, of one reference."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.eyes = renderer.eyes

    def forward(
        self, crops: Tensor, weights: Tensor, fine: Tensor, coarse: Tensor, own: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor]:
        """crops `[2, 3, h, w]` of the left and the right eye -> what is to be added to each, `[N, h, w, 3]`."""
        own = own.expand(motion.shape[0], -1)
        sides = [
            torch.cat([motion[:, columns], own[:, columns], torch.full_like(own[:, :1], side)], 1)
            for side, columns in zip((-1.0, 1.0), EYES)
        ]
        left, right = painted(self.eyes, torch.cat(sides), weights, crops, fine, coarse).chunk(2)
        return left, right


class Body(nn.Module):
    """Where the pixels of a frame come from, and where how much is painted over them."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.warp = renderer.warp

    def forward(
        self,
        masks: Tensor,
        finest: Tensor,
        fine: Tensor,
        coarse: Tensor,
        own: Tensor,
        identity: Tensor,
        motion: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the reference, each `[1, ...]`, and motion `[N, K]` -> flow `[N, h, w, 2]`, what colours are made of
        `[N, h, w, finest_width]`, and the logits of their cover `[N, h, w, 16]`.
        """
        frames = motion.shape[0]
        vectors = own.expand(frames, -1), identity.expand(frames, -1), motion
        flow, plan = self.warp.plan(masks, finest, fine, coarse, *vectors)
        weight, bias = self.warp.paint.weight, self.warp.paint.bias
        cover = F.conv2d(plan, weight[COLOURS:], bias[COLOURS:])
        return flow.permute(0, 2, 3, 1), plan.permute(0, 2, 3, 1), cover.permute(0, 2, 3, 1)


class HandSprites(nn.Module):
    """The painters of hands and forearms, for as many of them as frames are drawn of a latent."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.hands = renderer.hands
        self.register_buffer("size", torch.tensor([127.5, 127.5, 127.5, 255.0])[:, None, None])
        self.register_buffer("middle", torch.tensor([127.5, 127.5, 127.5, 0.0])[:, None, None])

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """inputs `[N, hands.inputs]` -> hands and forearms, `[N, h, w, 4]`: colour and coverage, in levels."""
        hands, arms = self.hands.sprites(inputs)
        return self._levels(hands), self._levels(arms)

    def _levels(self, sprites: Tensor) -> Tensor:
        return (sprites * self.size + self.middle).clamp(0, 255).permute(0, 2, 3, 1)


class LiveCodec:
    """`encode` a reference once, `render` latents. It keeps the compiled graphs, and references as bytes."""

    def __init__(
        self, renderer: Renderer, compile: Compile = eager, ranges: Ranges | None = None, every: int = 1
    ) -> None:
        """ranges: of the convolutions' inputs, for a runtime that computes them in int8; every: 1, 2 or 4: of so many
        frames of a latent the first is drawn, and shown in place of the others
        """
        self.every, self.drawn = every, FRAMES_PER_LATENT // every
        self.renderer = renderer.eval().requires_grad_(False)
        self.size = renderer.config.size
        self._compile, self._ranges = compile, ranges
        self._graphs: dict[type[nn.Module], Graph] = {}
        self._stills: dict[int, tuple[Appearance, np.ndarray, np.ndarray]] = {}  # by identity
        self._pool = ThreadPoolExecutor(COMPOSERS, "compose")
        places = (positions(self.size, self.size).permute(1, 2, 0) + 1) * (self.size / 2) - 0.5
        self._places = places.contiguous().numpy()  # [H, W, (x, y)]
        paint = renderer.warp.paint
        self._colours = paint.weight[:COLOURS, :, 0, 0].T.contiguous().numpy(), paint.bias[:COLOURS].numpy()

    @torch.inference_mode()
    def encode(self, picture: Tensor) -> tuple[Appearance, Landmarks]:
        """picture `[1, 3, size, size]` in [-1, 1] -> its appearance and its landmarks."""
        return self.renderer.encoder(picture, self.renderer.mouth, self.renderer.eyes)

    @torch.inference_mode()
    def render(self, who: Appearance, motion: Tensor) -> np.ndarray:
        """motion `[4 n, K]`, normalised, of whole latents -> frames uint8 `[4 n, size, size, 3]`.

        Raises ValueError when the frames are not whole latents: the compiled graphs take one at a time.
        """
        if len(motion) % FRAMES_PER_LATENT:
            raise ValueError(f"{len(motion)} frames asked for; a latent has {FRAMES_PER_LATENT}")
        return np.concatenate(list(self.draw(who, iter(motion.split(FRAMES_PER_LATENT)))))

    def poses(self, who: Appearance, motion: Tensor) -> np.ndarray:
        """The same of motion `[4 n, K]` that is no stream: each of its frames is drawn, whatever `every` is."""
        return self.render(who, motion.repeat_interleave(self.every, 0))[:: self.every]

    @torch.inference_mode()
    def draw(self, who: Appearance, latents: Iterator[Tensor]) -> Iterator[np.ndarray]:
        """Frames uint8 `[4, size, size, 3]` of each latent, motion `[4, K]`.

        While one is put together, it is computed how the body moves in the next, which is asked for before.
        """
        motions = (latent[:: self.every] for latent in latents)
        motion = next(motions, None)
        body = None if motion is None else self._begin(Body, who, motion)
        try:
            while motion is not None:
                faces, hands = partial(self._faces, who, motion), partial(self._hands, who, motion)
                parts, body = [faces, hands, body], None
                wholes, shown, (flow, plan, cover) = outputs_of(parts)
                motion = next(motions, None)
                body = None if motion is None else self._begin(Body, who, motion)
                frames = np.empty((FRAMES_PER_LATENT, self.size, self.size, 3), np.uint8)
                drawn = frames[:: self.every]
                for _ in self._pool.map(self._draw, drawn, wholes, flow, plan, cover):
                    pass
                if shown is not None:
                    lay_hands(drawn, *shown, self.renderer.config)
                for k in range(1, self.every):
                    frames[k :: self.every] = drawn
                yield frames
        finally:
            if body is not None:
                body()  # what was begun and is not wanted: the next one would wait for it for ever

    @torch.inference_mode()
    def _hands(self, who: Appearance, latent: Tensor) -> tuple[Shown, np.ndarray, np.ndarray] | None:
        """Those of a latent that are to be seen, with the sprites of hands and forearms, uint8 `[n, h, w, 4]`.

        The graph takes as many as frames are drawn of a latent; a rest is filled with its last one.
        """
        shown = self.renderer.hands.shown(who.identity.expand(len(latent), -1), latent)
        if not shown.frames:
            return None
        graph, parts = self._graphs[HandSprites], []
        for some in shown.inputs.split(self.drawn):
            filled = torch.cat([some, some[-1:].expand(self.drawn - len(some), -1)])
            parts.append([(x[: len(some)] + 0.5).astype(np.uint8) for x in graph(filled)()])
        hands, arms = (np.concatenate(each) for each in zip(*parts))
        return shown, hands, arms

    def _still(self, who: Appearance) -> tuple[np.ndarray, np.ndarray]:
        """The reference as floats, and as bytes with what `bends`: made once for each of the last few."""
        found = self._stills.get(id(who))
        if found is None or found[0] is not who:
            # half a level more: bytes are cut off
            reference = who.picture[0].permute(1, 2, 0).numpy() * 127.5 + 128.0
            still = cv2.cvtColor(reference.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2RGBA)
            still[..., 3] = bends(still)
            if len(self._stills) >= KEPT:
                self._stills.clear()
            self._stills[id(who)] = found = who, reference, still
        return found[1:]

    def _faces(self, who: Appearance, latent: Tensor) -> list[np.ndarray]:
        """The reference with a latent's mouths and eyes."""
        reference, still = self._still(who)
        mouths, both = outputs_of([self._begin(part, who, latent) for part in (Mouth, Eyes)])
        wholes = []
        for added in zip(*mouths, *both):
            wholes.append(still.copy())
            self._paste(wholes[-1], reference, who, added)
        return wholes

    def _draw(
        self, frame: np.ndarray, whole: np.ndarray, flow: np.ndarray, plan: np.ndarray, cover: np.ndarray
    ) -> None:
        """One frame uint8 `[size, size, 3]`, in place, from what `_faces` gave, and the outputs of `Body` for it."""
        places = cv2.resize(median_flow(flow) * np.float32(self.size / 2), (self.size, self.size))
        cv2.add(places, self._places, dst=places)
        cv2.cvtColor(move(whole, places), cv2.COLOR_RGBA2RGB, dst=frame)
        lay_paint(frame, plan, cover, *self._colours)

    def _begin(self, part: type[nn.Module], who: Appearance, motion: Tensor) -> Wait:
        """Starts to compute what `Mouth`, `Eyes` or `Body` makes of a latent."""
        boxes = zip(who.corners[0].tolist(), self.renderer.config.crop_sizes)
        crops = [who.picture[:, :, y : y + h, x : x + w].contiguous() for (x, y), (h, w) in boxes]
        eyes = who.eyes_weight[0], who.eyes_fine[0], who.eyes_coarse[0]
        inputs: dict[type[nn.Module], tuple[Tensor, ...]] = {
            Mouth: (crops[0], who.mouth_weight, who.mouth_fine, who.mouth_coarse, who.own, motion),
            Eyes: (torch.cat(crops[1:]), *eyes, who.own, motion),
            Body: (who.masks, who.finest, who.fine, who.coarse, who.own, who.identity, motion),
            HandSprites: (motion.new_zeros(self.drawn, self.renderer.hands.inputs),),
        }
        if not self._graphs:
            parts = [kind(self.renderer) for kind in inputs]
            if self._ranges:
                parts = [rounded(part, self._ranges) for part in parts]
            self._graphs = dict(zip(inputs, self._pool.map(self._compile, parts, inputs.values())))
        return self._graphs[part](*inputs[part])

    def _paste(
        self, whole: np.ndarray, reference: np.ndarray, who: Appearance, added: tuple[np.ndarray, ...]
    ) -> None:
        """Put a frame's mouth and eyes into the picture `whole` `[H, W, 4]`, in place, and mark where they bend."""
        sizes, corners = np.array(self.renderer.config.crop_sizes), who.corners[0].numpy()
        (left, top), (right, bottom) = corners.min(0), (corners + sizes[:, ::-1]).max(0)
        drawn = reference[top:bottom, left:right].copy()
        for (x, y), (height, width), part in zip(corners - (left, top), sizes, added):
            drawn[y : y + height, x : x + width] += 127.5 * part
        box = whole[top:bottom, left:right]
        box[..., :3] = drawn.clip(0, 255)
        box[..., 3] = np.maximum(box[..., 3], bends(box))


def lay_paint(
    frame: np.ndarray, plan: np.ndarray, cover: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> None:
    """Blend paint over `frame` `[4 h, 4 w, 3]`, in place, where its cover, logits `[h, w, 16]`, is to be seen.

    Colours are computed for these patches only: `plan` `[h, w, C]` by `weight` `[C, 48]` and `bias`.
    """
    if cover.max() <= FAINTEST:
        return
    rows, columns, _ = plan.shape
    side = PAINT_STRIDE
    patches = frame.reshape(rows, side, columns, side, 3).swapaxes(1, 2)  # a view
    row, column = np.nonzero(cover.max(2) > FAINTEST)
    colour = (plan[row, column] @ weight + bias) * 127.5 + 127.5
    colour = colour.clip(0, 255).reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    share = 1 / (1 + np.exp(RESERVE - cover[row, column])).reshape(-1, side, side, 1)
    below = patches[row, column].astype(np.float32)
    patches[row, column] = (below + share * (colour - below) + 0.5).astype(np.uint8)
