# SPDX-License-Identifier: Apache-2.0
"""The networks behind one seam: sound and text to motion (`denoise`), memory (`advance`), pictures (`render`).

`AvatarPipeline` is that of the motion presets; `engine.spatial` has that of the spatial ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.interfaces import Reference
from flowact_ros.engine.orders import Chunk
from flowact_ros.engine.portrait import check_drawn, fit_picture
from flowact_ros.engine.provenance import Provenance, values_hash, weights_hash
from flowact_ros.engine.runtime.base import Runtime, choose
from flowact_ros.engine.spatial_build import build_spatial
from flowact_ros.models.audio_encoder import EmbeddedAudioEncoder, load_audio_encoder
from flowact_ros.models.checkpoint import RANDOM, CheckpointError, load_weights, weights_dir
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.codec.motion_statistics import MotionStatistics
from flowact_ros.models.codec.quantise import Ranges
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import ModelConfig, preset, sampled_as
from flowact_ros.models.dit import DiT
from flowact_ros.models.ports import check_ports
from flowact_ros.models.precision import check_device, has_int8
from flowact_ros.models.text_encoder import EmbeddedTextEncoder, load_text_encoder
from flowact_ros.timebase import FRAMES_PER_LATENT

SMALL = ("debug", "avatar_spatial_debug")  # presets for tests
TRAINING_MOTION = "training_motion.json"  # beside the weights; without it the live watch knows nothing


class AvatarPipeline(LatentPipeline):
    """`engine.interfaces.Pipeline` on networks whose latents are motion. See `build_pipeline`."""

    control_names = rig.CONTROL_NAMES

    def __init__(
        self,
        config: ModelConfig,
        codec: LiveCodec,
        denoiser: DiT,
        audio_encoder: nn.Module,
        text_encoder: Any,
        *,
        device: str = "cpu",
        check_references: bool = True,
        training_motion: MotionStatistics | None = None,
        provenance: Provenance | None = None,
        precision: str = "auto",
        runtime: Runtime | None = None,
    ) -> None:
        """See `LatentPipeline`; precision: of the denoiser, see `models.precision`; codec: of the same runtime."""
        super().__init__(
            config, denoiser, audio_encoder, text_encoder, rig.limited, device=device, precision=precision,
            provenance=provenance, runtime=runtime,
        )  # fmt: skip
        self.codec = codec
        self.height = self.width = config.renderer.size
        self.check_references = check_references
        self.training_motion = training_motion
        self._drew = False

    @torch.inference_mode()
    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 `[H, W, 3]` of any size (centre-cropped to a square) -> Reference.

        Raises ReferenceError_ for a wrong type, shape or size, and for a picture that cannot be drawn and moved.
        """
        picture = fit_picture(rgb, self.height, self.width)
        who, landmarks = self.codec.encode(picture)
        if self.check_references:
            check_drawn(self.codec, who, landmarks)
            self._drew = True
        return Reference(rgb=rgb, appearance=who)

    @torch.inference_mode()
    def prepare_codec(self) -> None:
        if self._drew:  # a reference was checked: all that draws is compiled
            return
        who, _ = self.codec.encode(torch.zeros(1, 3, self.height, self.width))
        self.codec.render(who, rig.normalise(rig.neutral(FRAMES_PER_LATENT)))

    def reference_latent(self, reference: Reference) -> Tensor:
        """Four frames of the motion that the picture itself shows."""
        own = rig.limited(reference.appearance.own.float())
        return own[:, None].expand(-1, FRAMES_PER_LATENT, -1)

    def render(self, reference: Reference, latents: Chunk) -> np.ndarray:
        return self.codec.render(reference.appearance, latents.latents[0].flatten(0, 1).cpu())

    def draw(self, reference: Reference, latents: Iterator[Chunk]) -> Iterator[np.ndarray]:
        motions = (latent.latents[0].flatten(0, 1).cpu() for latent in latents)
        return self.codec.draw(reference.appearance, motions)

    def motion(self, latents: Chunk) -> np.ndarray:
        """n latents -> float32 `[4 * n, K]` in the rig's own units, what is rendered of each frame that is drawn."""
        return rig.denormalise(latents.latents[0].flatten(0, 1)).cpu().numpy()

    def with_motion(self, latents: Chunk, motion: np.ndarray) -> Chunk:
        """Latents of the same place that render as `motion` float32 `[4 * n, K]`. They are not to be committed."""
        given = rig.normalise(rig.clamp(torch.from_numpy(motion))).unflatten(0, (-1, FRAMES_PER_LATENT))
        return Chunk(given[None], latents.condition)

    def render_motion(self, reference: Reference, motion: np.ndarray) -> np.ndarray:
        """Recorded motion float32 `[4 * n, K]` -> frames uint8 `[4 * n, height, width, 3]`, without the denoiser."""
        return self.codec.render(reference.appearance, rig.normalise(torch.from_numpy(motion)))


def build_pipeline(
    preset_name: str = "avatar_cpu",
    device: str = "cpu",
    *,
    weights: Path | str | None = None,
    overrides: dict[str, Any] | None = None,
    runtime: str = "auto",
    audio_backend: str = "embedded",
    audio_path: Path | str | None = None,
    text_backend: str = "embedded",
    text_path: Path | str | None = None,
    precision: str = "auto",
) -> LatentPipeline:
    """Build the pipeline of a preset with its shipped weights (random ones for `debug`).

    weights: folder with denoiser.safetensors, and of a motion preset renderer.safetensors and training_motion.json for
    the live watch, of a spatial one vae.safetensors; default is the package's folder of the preset. "random": networks
    that nobody trained, for speed runs and tests.
    runtime: what computes the networks, one of `engine.runtime.base.RUNTIMES`.
    precision: what the denoiser is computed in, one of `models.precision.PRECISIONS`.
    Raises ConfigError, CheckpointError, NotEnoughMemory or ValueError with one line that names what is wrong.
    """
    config = preset(preset_name, overrides)
    check_device(device)
    settings = json.dumps(overrides or {}, sort_keys=True)
    if config.name in SMALL and runtime == "auto" and torch.device(device).type == "cpu":
        runtime = "eager"  # converting takes longer than all that they are used for
    computes = choose(runtime, device)
    if config.video is not None:
        return build_spatial(
            config, device, weights=weights, settings=settings, runtime=computes, audio_backend=audio_backend,
            audio_path=audio_path, text_backend=text_backend, text_path=text_path, precision=precision,
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same everywhere
        renderer, denoiser = Renderer(config.renderer), DiT(config)
        if config.name == "debug":
            parts = EmbeddedAudioEncoder(), EmbeddedTextEncoder()
            networks = (renderer, denoiser, *parts)
            return AvatarPipeline(
                config, LiveCodec(renderer, computes.compile, every=config.draw_every), denoiser, *parts, device=device,
                check_references=False, precision=precision, runtime=computes,
                provenance=_provenance(config, settings, computes, networks, "embedded", "embedded"),
            )  # fmt: skip
    random = weights == RANDOM
    if random:
        ranges = {name: (-4.0, 4.0) for name, m in renderer.named_modules() if isinstance(m, nn.Conv2d)}
        statistics = None
    else:
        folder = Path(weights).expanduser() if weights else weights_dir() / config.name
        ranges, statistics, card = _load_motion(folder, config, renderer, denoiser)
        config = denoiser.config = sampled_as(config, card, overrides)
    ranges = ranges if computes.rounds and has_int8() else None
    parts = load_audio_encoder(audio_backend, audio_path), load_text_encoder(text_backend, text_path)
    check_ports(config, *parts, audio_backend, text_backend)
    networks = (renderer, denoiser, *parts)
    return AvatarPipeline(
        config,
        LiveCodec(renderer, computes.compile, ranges, config.draw_every),
        denoiser,
        *parts,
        device=device,
        check_references=not random,
        training_motion=statistics,
        precision=precision,
        runtime=computes,
        provenance=_provenance(
            config, settings, computes, networks, audio_backend, text_backend, ranges=ranges, random=random
        ),
    )


def _load_motion(
    folder: Path, config: ModelConfig, renderer: Renderer, denoiser: DiT
) -> tuple[Any, MotionStatistics | None, dict[str, Any]]:
    """The renderer's ranges of activations, what the live watch compares with, if it is there, the denoiser's card."""
    if (folder / "mmdit.safetensors").exists() and not (folder / "denoiser.safetensors").exists():
        raise CheckpointError(f"{folder} holds weights of version 1, which denoised pictures; restore or train new")
    card = load_weights(folder / "renderer.safetensors", renderer, kind="renderer", config=config.renderer)
    contract = config.denoiser_contract()
    sampled = load_weights(folder / "denoiser.safetensors", denoiser, kind="denoiser", config=contract)
    statistics = folder / TRAINING_MOTION
    return card["activations"], MotionStatistics.load(statistics) if statistics.exists() else None, sampled


def motion_pipeline(pipeline: LatentPipeline) -> AvatarPipeline:
    """The pipeline itself, for what reads or draws motion. Raises ValueError for that of a spatial preset."""
    if not isinstance(pipeline, AvatarPipeline):
        raise ValueError(f"preset {pipeline.config.name} denoises pictures, and this is about motion; use avatar_cpu")
    return pipeline


def _provenance(
    config: ModelConfig, settings: str, runtime: Runtime, networks: Sequence[Any], audio_backend: str,
    text_backend: str, *, ranges: Ranges | None = None, random: bool = False,
) -> Provenance:  # fmt: skip
    """ranges: that the renderer's activations are rounded between; none: they are not"""
    modules = (network for network in networks if isinstance(network, nn.Module))
    return Provenance(
        preset=config.name,
        settings=settings,
        weights=RANDOM if random else weights_hash(modules),
        audio_encoder=audio_backend,
        text_encoder=text_backend,
        runtime=runtime.version,
        renderer=f"int8, limits {values_hash(ranges)}" if ranges else "float32",
    )
