# SPDX-License-Identifier: Apache-2.0
"""The decoder on a rank of its own: it is sent latents and sends frames back, while the denoiser's GPU goes on.

Latents are small and frames are wanted on the CPU, so both travel there. The other rank has the character's picture and
encodes it as rank 0 does; rendering is a function of that and of the latents alone.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.interfaces import Reference
from flowact_ros.engine.orders import Chunk, Recent
from flowact_ros.engine.parallel.ranks import END, FIRST_OWN, Channel
from flowact_ros.models.dit import Condition
from flowact_ros.timebase import FRAMES_PER_LATENT

CHARACTER, DRAW = FIRST_OWN, FIRST_OWN + 1


class DistantDecoder:
    """Rank 0's: its methods take the place of a pipeline's. Each may be called in any thread."""

    def __init__(self, pipeline: LatentPipeline, channel: Channel, rank: int) -> None:
        """rank: of the decoder"""
        self._size = pipeline.height, pipeline.width
        self._channel, self._rank = channel, rank
        self._shown: Reference | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="distant-decoder")

    def begin(self, reference: Reference, latents: Chunk) -> tuple[Callable[[], np.ndarray], ...]:
        """As `LatentPipeline.begin`; what waits for a latent's frames raises RankLost."""
        return tuple(self._begin(reference, latents[i : i + 1]) for i in range(len(latents)))

    def render(self, reference: Reference, latents: Chunk) -> np.ndarray:
        """n latents -> frames uint8 `[4 * n, height, width, 3]`. Raises RankLost."""
        return np.concatenate([wait() for wait in latents.drawing or self.begin(reference, latents)])

    def _begin(self, reference: Reference, one: Chunk) -> Callable[[], np.ndarray]:
        # Copied before anything else is asked of the denoiser's device: the copy would have to wait for that.
        latents, before = _on_host(one.latents), None
        if one.before is not None:
            before = Recent(_on_host(one.before.latents), one.before.reach)
        return self._thread.submit(self._draw, reference, latents, before).result

    def _draw(self, reference: Reference, latents: torch.Tensor, before: Recent | None) -> np.ndarray:
        if self._shown is not reference:
            rgb = torch.from_numpy(np.ascontiguousarray(reference.rgb))
            with self._channel.command(CHARACTER, *rgb.shape[:2]):
                self._channel.send(rgb)
            self._shown = reference
        reach, count = (0, 0) if before is None else (before.reach, before.latents.shape[1])
        with self._channel.command(DRAW, latents.shape[1], reach, count):
            self._channel.send(latents)
            if before is not None and count:
                self._channel.send(before.latents)
            frames = torch.empty(FRAMES_PER_LATENT * latents.shape[1], *self._size, 3, dtype=torch.uint8)
            return self._channel.send(frames, self._rank).numpy()


def _on_host(x: torch.Tensor) -> torch.Tensor:
    return x.float().cpu().contiguous()


@torch.inference_mode()
def decode(pipeline: LatentPipeline, channel: Channel, rank: int) -> None:
    """The decoder's rank: draws until rank 0 has it end. Raises RankLost."""
    shape, character = pipeline.config.dit.latent_shape, None
    while True:
        command, *numbers = channel.hear()
        if command == END:
            return
        if command == CHARACTER:
            with channel.failing():
                rgb = channel.send(torch.empty(*numbers[:2], 3, dtype=torch.uint8)).numpy()
            character = pipeline.load_reference(rgb)
            continue
        assert character is not None  # rank 0 sends it first
        n, reach, count = numbers[:3]
        with channel.failing():
            latents = channel.send(torch.empty(1, n, *shape)).to(pipeline.device)
            recent = torch.empty(1, count, *shape)
            recent = (channel.send(recent) if count else recent).to(pipeline.device)
        nothing = Condition(latents.new_zeros(1, n, 0), latents.new_zeros(1, n, 0))
        chunk = Chunk(latents, nothing, before=Recent(recent, reach) if reach else None)
        frames = torch.from_numpy(np.ascontiguousarray(pipeline.render(character, chunk)))
        with channel.failing():
            channel.send(frames, rank)
