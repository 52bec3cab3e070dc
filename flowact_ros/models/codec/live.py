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

Graph = Callable[..., tuple[Tensor, ...]]
#: Makes a graph of a module that is called with tensors of the shapes of these examples from now on.
Compile = Callable[[nn.Module, tuple[Tensor, ...]], Graph]


def eager(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """The module itself."""
    return module


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
        face, body = self._graphs
        added = [x.numpy() for x in face(*to_face)]
        flow, paint, cover = (x.numpy() for x in body(*to_body))
        reference = who.picture[0].permute(1, 2, 0).numpy() * 127.5 + 128.0  # half a level more: bytes are cut off
        for i, frame in enumerate(out):
            picture = reference.copy()
            for (x, y), size, part in zip(who.corners[0].tolist(), sizes, added):
                picture[y : y + size, x : x + size] += 127.5 * part[i]
            picture = np.clip(picture, 0, 255, out=picture).astype(np.uint8)
            places = self._places + cv2.resize(flow[i], (self.size, self.size)) * (self.size / 2)
            moved = cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            over = spread_out(cover[i, :, :, None])[..., 0]
            frame[...] = cv2.blendLinear(spread_out(paint[i]), moved, over, 1.0 - over)
        self.renderer.hands.lay(out, who.identity, motion)


def spread_out(patches: np.ndarray) -> np.ndarray:
    """Patches `[h, w, C, p, p]` -> the picture `[p h, p w, C]` that they make up."""
    rows, columns, channels, side, _ = patches.shape
    return np.ascontiguousarray(patches.transpose(0, 3, 1, 4, 2)).reshape(rows * side, columns * side, channels)
