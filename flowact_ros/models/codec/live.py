# SPDX-License-Identifier: Apache-2.0
"""The embedded codec as the live stream uses it: a reference picture once, then four frames at a time.

What networks compute is cut into two static graphs, so that a runtime may compile them: `Face` (painted mouths and
eyes) and `Body` (how the picture moves, and what is painted on it). What moves pixels at full resolution (pasting,
warping, blending, hands) is done on bytes by OpenCV, which takes a third of the time that graphs of floats take for it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.models.codec.appearance import EYES, MOUTH, Appearance, Landmarks, crop
from flowact_ros.models.codec.blocks import positions
from flowact_ros.models.codec.renderer import PAINT_STRIDE, RESERVE, Renderer
from flowact_ros.timebase import FRAMES_PER_LATENT

#: Begins to compute; what it returns waits for the outputs. So the two graphs run beside each other on two cores.
Graph = Callable[..., Callable[[], tuple[np.ndarray, ...]]]
#: Makes a graph of a module that is called with tensors of the shapes of these examples from now on.
Compile = Callable[[nn.Module, tuple[Tensor, ...]], Graph]
FAINTEST = 0.03  # paint that covers less is not laid: it would change a level or two, and cost a quarter of the frame


def eager(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """The module itself, computed when it is waited for."""
    return lambda *inputs: lambda: tuple(x.numpy() for x in module(*inputs))


class Face(nn.Module):
    """Painters of mouth and eyes for the frames of one latent, of one reference."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.mouth, self.eyes = renderer.mouth, renderer.eyes

    def forward(
        self, mouth: Tensor, mouth_weight: Tensor, mouth_fine: Tensor, mouth_coarse: Tensor, eyes: Tensor,
        eyes_weight: Tensor, eyes_fine: Tensor, eyes_coarse: Tensor, own: Tensor, motion: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """What is to be added to the crops of mouth, left and right eye, `[N, s, s, 3]` each, for motion `[N, K]`.

        mouth `[1, 3, s, s]`, eyes `[2, 3, s, s]`: crops of the reference, with their features; own `[1, K]`
        """
        frames = motion.shape[0]
        own = own.expand(frames, -1)

        def painted(painter: nn.Module, controls: Tensor, weight: Tensor, *reference: Tensor) -> Tensor:
            every = [x.expand(frames, -1, -1, -1) for x in reference]
            return (weight * (painter(*every, controls) - reference[0])).permute(0, 2, 3, 1)

        both = torch.cat([motion[:, MOUTH], own[:, MOUTH]], 1)
        added = [painted(self.mouth, both, mouth_weight, mouth, mouth_fine, mouth_coarse)]
        for i, (side, columns) in enumerate(zip((-1.0, 1.0), EYES)):
            controls = torch.cat([motion[:, columns], own[:, columns], torch.full_like(own[:, :1], side)], 1)
            one = [x[i : i + 1] for x in (eyes_weight, eyes, eyes_fine, eyes_coarse)]
            added.append(painted(self.eyes, controls, *one))
        return added[0], added[1], added[2]


class Body(nn.Module):
    """Where the pixels of a frame come from, and what is painted over them."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.warp = renderer.warp

    def forward(
        self, masks: Tensor, fine: Tensor, coarse: Tensor, own: Tensor, identity: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the reference, each `[1, ...]`, and motion `[N, K]` -> flow `[N, h, w, 2]`, paint as levels of bytes
        `[N, h, w, 3, 8, 8]` and its cover `[N, h, w, 8, 8]`.
        """
        frames = motion.shape[0]
        masks, fine, coarse = (x.expand(frames, -1, -1, -1) for x in (masks, fine, coarse))
        flow, paint = self.warp.plan(masks, fine, coarse, own.expand(frames, -1), identity.expand(frames, -1), motion)
        paint = paint.permute(0, 2, 3, 1).unflatten(3, (4, PAINT_STRIDE, PAINT_STRIDE))
        levels = (paint[..., :3, :, :] * 127.5 + 128.0).clamp(0.0, 255.0).to(torch.uint8)
        return flow.permute(0, 2, 3, 1), levels, torch.sigmoid(paint[..., 3, :, :] - RESERVE)


class LiveCodec:
    """`encode` a reference once, `render` latents. Stateless apart from the compiled graphs."""

    def __init__(self, renderer: Renderer, compile: Compile = eager) -> None:
        self.renderer = renderer.eval().requires_grad_(False)
        self.size = renderer.config.size
        self._compile = compile
        self._graphs: tuple[Graph, Graph] | None = None
        half = self.size / 2
        self._places = (positions(self.size, self.size).permute(1, 2, 0).numpy() + 1) * half - 0.5  # [H, W, (x, y)]

    @torch.inference_mode()
    def encode(self, picture: Tensor) -> tuple[Appearance, Landmarks]:
        """picture `[1, 3, size, size]` in [-1, 1] -> its appearance and its landmarks."""
        return self.renderer.encoder(picture, self.renderer.mouth, self.renderer.eyes)

    @torch.inference_mode()
    def render(self, who: Appearance, motion: Tensor) -> np.ndarray:
        """motion `[4 n, K]`, normalised, of whole latents -> frames uint8 `[4 n, size, size, 3]`.

        Raises ValueError when the frames are not whole latents: the compiled graphs take four at a time.
        """
        if len(motion) % FRAMES_PER_LATENT:
            raise ValueError(f"{len(motion)} frames asked for; a latent has {FRAMES_PER_LATENT}")
        frames = np.empty((len(motion), self.size, self.size, 3), np.uint8)
        for first in range(0, len(motion), FRAMES_PER_LATENT):
            self._latent(who, motion[first : first + FRAMES_PER_LATENT], frames[first : first + FRAMES_PER_LATENT])
        return frames

    def _latent(self, who: Appearance, motion: Tensor, out: np.ndarray) -> None:
        sizes = self.renderer.config.crop_sizes
        crops = [crop(who.picture, who.corners[:, i], size) for i, size in enumerate(sizes)]
        to_face = (
            crops[0], who.mouth_weight, who.mouth_fine, who.mouth_coarse, torch.cat(crops[1:]), who.eyes_weight[0],
            who.eyes_fine[0], who.eyes_coarse[0], who.own, motion,
        )  # fmt: skip
        to_body = (who.masks, who.fine, who.coarse, who.own, who.identity, motion)
        if self._graphs is None:
            self._graphs = (
                self._compile(Face(self.renderer), to_face), self._compile(Body(self.renderer), to_body),
            )  # fmt: skip
        face, body = (graph(*inputs) for graph, inputs in zip(self._graphs, (to_face, to_body)))
        added, (flow, paint, cover) = face(), body()
        reference = who.picture[0].permute(1, 2, 0).numpy() * 127.5 + 128.0  # half a level more: bytes are cut off
        whole = reference.clip(0, 255).astype(np.uint8)
        corners = who.corners[0].numpy()
        (left, top), (right, bottom) = corners.min(0), (corners + np.array(sizes)[:, None]).max(0)
        for i, frame in enumerate(out):
            drawn = reference[top:bottom, left:right].copy()
            for (x, y), size, part in zip(corners - (left, top), sizes, added):
                drawn[y : y + size, x : x + size] += 127.5 * part[i]
            whole[top:bottom, left:right] = drawn.clip(0, 255)
            places = cv2.resize(flow[i], (self.size, self.size)) * np.float32(self.size / 2)
            places += self._places
            frame[...] = cv2.remap(whole, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            lay_paint(frame, paint[i], cover[i])
        self.renderer.hands.lay(out, who.identity, motion)


def lay_paint(frame: np.ndarray, paint: np.ndarray, cover: np.ndarray) -> None:
    """Blend paint `[h, w, 3, p, p]` over `frame` `[p h, p w, 3]`, in place, by its cover `[h, w, p, p]`."""
    rows, columns, _, side, _ = paint.shape
    patches = frame.reshape(rows, side, columns, side, 3).swapaxes(1, 2)  # a view
    row, column = np.nonzero(cover.max((2, 3)) > FAINTEST)
    below = patches[row, column].astype(np.float32)
    over = paint[row, column].transpose(0, 2, 3, 1) - below
    patches[row, column] = (below + cover[row, column][..., None] * over + 0.5).astype(np.uint8)
