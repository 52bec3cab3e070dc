# SPDX-License-Identifier: Apache-2.0
"""The pipeline of the spatial presets: the denoiser works on latents of pictures, which a causal VAE encodes and draws.

Its memory, orders and conditions are those of the motion presets; what differs is named here. The reference slot holds
the picture itself, encoded as four equal frames. A latent is drawn after the two before it, which come with every
chunk: the decoder's state is a function of them, so that rewinds and replays need no decoder that remembers.

There is no rig behind such latents. So `motion` has no columns, `look_at` is refused by the session, and nothing
watches the motion for drift.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.interfaces import EngineError, Reference
from flowact_ros.engine.orders import Chunk
from flowact_ros.engine.portrait import fit_picture
from flowact_ros.engine.provenance import Provenance
from flowact_ros.engine.runtime.base import Runtime
from flowact_ros.models.codec.live import Graph
from flowact_ros.models.codec.video_vae import REACH, NextFrames, VideoVAE, to_tokens
from flowact_ros.models.config import ModelConfig, video_of
from flowact_ros.models.dit import DiT
from flowact_ros.timebase import FRAMES_PER_LATENT


def finite(latents: Tensor) -> Tensor:
    """The latents themselves: they have no limits. Raises EngineError for a NaN or an infinity."""
    if not bool(torch.isfinite(latents).all()):
        raise EngineError("the denoiser gave a NaN or an infinity; another precision may help, or reset_memory")
    return latents


class SpatialPipeline(LatentPipeline):
    """`engine.interfaces.Pipeline` on networks whose latents are pictures. See `engine.pipeline.build_pipeline`."""

    def __init__(
        self,
        config: ModelConfig,
        vae: VideoVAE,
        denoiser: DiT,
        audio_encoder: nn.Module,
        text_encoder: Any,
        *,
        device: str = "cpu",
        provenance: Provenance | None = None,
        precision: str = "auto",
        runtime: Runtime | None = None,
    ) -> None:
        """See `LatentPipeline`; vae: on `device`, in the type that it is to be computed in; runtime: draws, too.

        Raises ConfigError for a preset of motion.
        """
        super().__init__(
            config, denoiser, audio_encoder, text_encoder, finite, device=device, precision=precision,
            provenance=provenance, runtime=runtime, reach=REACH,
        )  # fmt: skip
        video = video_of(config)
        self.vae = vae.eval().requires_grad_(False)
        self.height, self.width, self.grid = video.height, video.width, video.grid
        self._dtype = vae.latent_mean.dtype
        self._lock = threading.Lock()
        self._next_frames: Graph | None = None

    @torch.inference_mode()
    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 `[H, W, 3]` of any size, cropped to the preset's shape -> Reference, whose appearance is a latent.

        Raises ReferenceError_ for a wrong type, shape or size.
        """
        picture = fit_picture(rgb, self.height, self.width).to(self.device, self._dtype)
        latents, _ = self.vae.encode(picture[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1))
        return Reference(rgb=rgb, appearance=to_tokens(latents).float()[:, 0])

    def reference_latent(self, reference: Reference) -> Tensor:
        """The picture itself, as the VAE encodes four equal frames."""
        return reference.appearance

    @torch.inference_mode()
    def render(self, reference: Reference, latents: Chunk) -> np.ndarray:
        """Latent by latent, so that a frame is the same bit for bit however the stream is cut."""
        return np.concatenate([wait() for wait in latents.drawing or self.begin(reference, latents)])

    def begin(self, reference: Reference, latents: Chunk) -> tuple[Callable[[], np.ndarray], ...]:
        return tuple(self._begin(latents[i : i + 1]) for i in range(len(latents)))

    def _begin(self, one: Chunk) -> Callable[[], np.ndarray]:
        assert one.before is not None  # every chunk of this pipeline's has it
        wait = self._graph()(one.before.latents, one.latents)
        return lambda: wait()[0]

    def _graph(self) -> Graph:
        """Made when the first latent is drawn, or by `prepare`."""
        with self._lock:
            if self._next_frames is None:
                dit = self.config.dit
                example = (torch.zeros(1, n, *dit.latent_shape, device=self.device) for n in (REACH, 1))
                self._next_frames = self.runtime.compile(NextFrames(self.vae, self.grid), tuple(example))
            return self._next_frames

    @torch.inference_mode()
    def prepare_codec(self) -> None:
        self.load_reference(np.zeros((self.height, self.width, 3), np.uint8))
        self._graph()

    def motion(self, latents: Chunk) -> np.ndarray:
        """n latents -> float32 `[4 * n, 0]`: a spatial latent has no named controls."""
        return np.zeros((FRAMES_PER_LATENT * len(latents), 0), np.float32)

    def with_motion(self, latents: Chunk, motion: np.ndarray) -> Chunk:
        """Raises EngineError: pictures cannot be moved by named controls."""
        raise EngineError(f"preset {self.config.name} has no named motion: its pictures cannot be moved by it")

    def render_motion(self, reference: Reference, motion: np.ndarray) -> np.ndarray:
        """Raises EngineError: the records hold no motion from which pictures could be drawn."""
        raise EngineError(
            f"preset {self.config.name} has no named motion to draw from; only the denoiser can make its frames again"
        )
