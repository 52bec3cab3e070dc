# SPDX-License-Identifier: Apache-2.0
"""The engine's own pipeline of random weights, and steps of it as the live stream makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.interfaces import Reference, StreamState
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.models.checkpoint import RANDOM
from flowact_ros.timebase import SAMPLES_PER_LATENT

TEXT = "talking to a visitor"


@dataclass(frozen=True, eq=False)
class Stream:
    """A pipeline, and a stream of it whose memory is full. full, fresh: the states of a stream that has run, and of one
    that begins.
    """

    pipeline: LatentPipeline
    reference: Reference
    fresh: StreamState
    full: StreamState

    @staticmethod
    def begin(pipeline: LatentPipeline) -> Stream:
        noise = np.random.default_rng(0)
        reference = pipeline.load_reference(noise.integers(0, 255, (256, 256, 3), dtype=np.uint8))
        fresh = state = pipeline.start(reference, 0)
        size = pipeline.config.schedule.chunk_latents
        chunk = pipeline.denoise(state, sound(pipeline, size), size, TEXT)
        assert chunk is not None
        for _ in range(pipeline.config.memory.long_term + 1):
            state = pipeline.advance(state, chunk)
        return Stream(pipeline, reference, fresh, state)

    def denoise(self, state: StreamState, pcm: np.ndarray, latents: int) -> Any:
        chunk = self.pipeline.denoise(state, pcm, latents, TEXT)
        assert chunk is not None  # nobody asked it to stop
        return chunk

    def step(self, pcm: np.ndarray) -> None:
        """A whole step: sound is encoded, a chunk denoised, drawn, and committed."""
        chunk = self.denoise(self.full, pcm, self.pipeline.config.schedule.chunk_latents)
        self.pipeline.render(self.reference, chunk)
        self.pipeline.advance(self.full, chunk)

    def first_frame(self, pcm: np.ndarray, latents: int) -> None:
        """Of a stream that begins: sound is encoded, `latents` denoised, the first of them drawn."""
        chunk = self.denoise(self.fresh, pcm, latents)
        self.pipeline.render(self.reference, chunk[:1])


def built(name: str, device: str, precision: str, runtime: str, overrides: dict[str, Any]) -> LatentPipeline:
    """The pipeline of a preset with changes. Raises as `build_pipeline`."""
    return build_pipeline(
        name, device, weights=RANDOM, precision=precision, runtime=runtime, overrides=overrides
    )


def sound(pipeline: LatentPipeline, latents: int) -> np.ndarray:
    """Noise, of the length that so many latents are denoised from."""
    length = pipeline.context_samples + latents * SAMPLES_PER_LATENT + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(latents).standard_normal(length)).astype(np.float32)
