# SPDX-License-Identifier: Apache-2.0
"""The embedded codec as the live stream uses it: a reference picture once, then four frames at a time.

The renderer is cut into static graphs, so that a runtime may compile them: `Face` (what is added to the crops of mouth
and eyes) and `Body` (the moved picture, as bytes). Cutting out and pasting, whose places depend on the reference, and
hands, which most frames do not show, stay outside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.models.codec.appearance import EYES, MOUTH, Appearance, Landmarks, crop
from flowact_ros.models.codec.renderer import Renderer
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
        """What is to be added to the crops of mouth, left and right eye, `[N, 3, s, s]` each, for motion `[N, K]`.

        mouth `[1, 3, s, s]`, eyes `[2, 3, s, s]`: crops of the reference, with their features; own `[1, K]`
        """
        frames = motion.shape[0]
        own = own.expand(frames, -1)

        def painted(painter: nn.Module, controls: Tensor, weight: Tensor, *reference: Tensor) -> Tensor:
            every = [x.expand(frames, -1, -1, -1) for x in reference]
            return weight * (painter(*every, controls) - reference[0])

        both = torch.cat([motion[:, MOUTH], own[:, MOUTH]], 1)
        added = [painted(self.mouth, both, mouth_weight, mouth, mouth_fine, mouth_coarse)]
        for i, (side, columns) in enumerate(zip((-1.0, 1.0), EYES)):
            controls = torch.cat([motion[:, columns], own[:, columns], torch.full_like(own[:, :1], side)], 1)
            one = [x[i : i + 1] for x in (eyes_weight, eyes, eyes_fine, eyes_coarse)]
            added.append(painted(self.eyes, controls, *one))
        return added[0], added[1], added[2]


class Body(nn.Module):
    """Moves pictures that have their frame's face, and makes bytes of them."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self.warp = renderer.warp

    def forward(
        self,
        face: Tensor,
        masks: Tensor,
        fine: Tensor,
        coarse: Tensor,
        own: Tensor,
        identity: Tensor,
        motion: Tensor,
    ) -> tuple[Tensor]:
        """face `[N, 3, H, W]`; of the reference, each `[1, ...]`; motion `[N, K]` -> pictures uint8 `[N, H, W, 3]`."""
        frames = motion.shape[0]
        masks, fine, coarse = (x.expand(frames, -1, -1, -1) for x in (masks, fine, coarse))
        moved, _, _ = self.warp.move(
            face, masks, fine, coarse, own.expand(frames, -1), identity.expand(frames, -1), motion
        )
        return ((moved * 127.5 + 128.0).clamp(0.0, 255.0).permute(0, 2, 3, 1).to(torch.uint8),)


class LiveCodec:
    """`encode` a reference once, `render` latents. Stateless apart from the compiled graphs."""

    def __init__(self, renderer: Renderer, compile: Compile = eager) -> None:
        self.renderer = renderer.eval().requires_grad_(False)
        self.size = renderer.config.size
        self._compile = compile
        self._graphs: tuple[Graph, Graph] | None = None

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
        parts = [self._latent(who, part) for part in motion.split(FRAMES_PER_LATENT)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _latent(self, who: Appearance, motion: Tensor) -> np.ndarray:
        sizes = self.renderer.config.crop_sizes
        crops = [crop(who.picture, who.corners[:, i], size) for i, size in enumerate(sizes)]
        to_face = (
            crops[0], who.mouth_weight, who.mouth_fine, who.mouth_coarse, torch.cat(crops[1:]), who.eyes_weight[0],
            who.eyes_fine[0], who.eyes_coarse[0], who.own, motion,
        )  # fmt: skip
        face, body = self._graphs or (None, None)
        if face is None:
            face = self._compile(Face(self.renderer), to_face)
        added = face(*to_face)
        picture = who.picture.repeat(len(motion), 1, 1, 1)
        for (x, y), size, part in zip(who.corners[0].tolist(), sizes, added):
            picture[:, :, y : y + size, x : x + size] += part
        to_body = (picture, who.masks, who.fine, who.coarse, who.own, who.identity, motion)
        if body is None:
            body = self._compile(Body(self.renderer), to_body)
        self._graphs = (face, body)
        (frames,) = body(*to_body)
        return self.renderer.hands.lay_bytes(np.asarray(frames), who.identity, motion)
