# SPDX-License-Identifier: Apache-2.0
"""Frames of several streams drawn at once, by torch on a GPU: each with its own reference's texture."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from flowact_ros.engine.streams.lockstep import Call, call, filled
from flowact_ros.models.codec.appearance import Appearance
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.timebase import FRAMES_PER_LATENT

KEPT = 256  # appearances on the device; a stream shows one at a time


class BatchedCodec:
    """Called as the `LiveCodec` that it is made of. References are encoded where they were; latents are drawn on
    `device`, up to `batch` together, by the network as it was trained instead of the graphs that a CPU runs.
    """

    def __init__(self, codec: LiveCodec, device: torch.device, batch: int) -> None:
        self.size, self.encode, self.renderer = codec.size, codec.encode, codec.renderer
        self._drawing = Drawing(codec, device, batch)

    def render(self, who: Appearance, motion: Tensor) -> np.ndarray:
        """motion `[4 n, K]`, normalised, of whole latents -> frames uint8 `[4 n, size, size, 3]`.

        Raises ValueError when the frames are not whole latents.
        """
        if len(motion) % FRAMES_PER_LATENT:
            raise ValueError(f"{len(motion)} frames asked for; a latent has {FRAMES_PER_LATENT}")
        return np.concatenate([call(self._drawing, who, latent) for latent in motion.split(FRAMES_PER_LATENT)])

    def draw(self, who: Appearance, latents: Iterator[Tensor]) -> Iterator[np.ndarray]:
        """The same of one latent after another."""
        return (self.render(who, latent) for latent in latents)


class Drawing:
    """The kernel: (appearance of one reference, motion `[4, K]`) -> frames uint8 `[4, H, W, 3]`."""

    def __init__(self, codec: LiveCodec, device: torch.device, size: int) -> None:
        self.size, self.device = size, device
        self.renderer = deepcopy(codec.renderer).to(device)
        self._there: dict[int, tuple[Appearance, Appearance]] = {}  # by identity: as given, and on the device

    def key(self, given: Call) -> Hashable:
        who, motion = given
        return tuple(field.shape for field in who), motion.shape

    @torch.inference_mode()
    def compute(self, calls: Sequence[Call]) -> list[np.ndarray]:
        lanes = filled(calls, self.size)
        fields = zip(*(self._moved(who) for who, _ in lanes))
        everybody = Appearance(*(torch.cat(field).repeat_interleave(FRAMES_PER_LATENT, 0) for field in fields))
        drawn = self.renderer(everybody, torch.cat([motion for _, motion in lanes]).to(self.device))
        levels = (drawn[: len(calls) * FRAMES_PER_LATENT] * 127.5 + 128.0).clamp(0, 255).to(torch.uint8)
        return np.split(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy(), len(calls))

    def _moved(self, who: Appearance) -> Appearance:
        found = self._there.pop(id(who), None)
        if found is None or found[0] is not who:
            found = who, Appearance(*(field.to(self.device) for field in who))
        self._there[id(who)] = found  # the last one is the newest
        while len(self._there) > KEPT:
            del self._there[next(iter(self._there))]
        return found[1]

