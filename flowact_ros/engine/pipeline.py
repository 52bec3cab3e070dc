# SPDX-License-Identifier: Apache-2.0
"""The networks behind one seam: sound and text to motion (`denoise`), memory (`advance`), pictures (`render`).

No threads, no clock, no hidden state: everything a step depends on is in its arguments, so that a session may keep a
snapshot a latent and rewind to any of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.engine.graphs import RUNTIMES, compiler
from flowact_ros.engine.interfaces import Reference, StreamState
from flowact_ros.engine.orders import ORDERS, Chunk, Order
from flowact_ros.engine.portrait import check_drawn, fit_picture
from flowact_ros.models.audio_encoder import EmbeddedAudioEncoder, load_audio_encoder
from flowact_ros.models.checkpoint import CheckpointError, load_weights, weights_dir
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.codec.live import LiveCodec, eager
from flowact_ros.models.codec.motion_statistics import MotionStatistics
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import ModelConfig, preset
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.precision import best_dtype, check_device, has_int8, use_int8
from flowact_ros.models.text_encoder import EmbeddedTextEncoder, load_text_encoder
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_LATENT

TRAINING_MOTION = "training_motion.json"  # beside the weights; without it the live watch knows nothing
TEXT_CACHE = 256  # instructions whose embedding is kept


class AvatarPipeline:
    """`engine.interfaces.Pipeline` on real networks, batch 1. See `build_pipeline`."""

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
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.codec = codec
        self.denoiser = denoiser.to(self.device).eval().requires_grad_(False)
        # Rounded activations make the motion tremble a little: only a processor that needs the time takes them.
        if device == "cpu" and has_int8() and best_dtype(device) == torch.float32:
            use_int8(self.denoiser.double_blocks)
            use_int8(self.denoiser.single_blocks)
        self.text_encoder = text_encoder
        self.order: Order = ORDERS[config.schedule.order](config, self.denoiser)
        self._hear_by(audio_encoder)
        self.height = self.width = config.renderer.size
        self.check_references = check_references
        self.training_motion = training_motion
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    def _hear_by(self, encoder: nn.Module) -> None:
        self.window = AudioWindow(encoder.eval().requires_grad_(False))
        self.context_samples = self.window.context_samples
        self.lookahead_samples = self.window.lookahead_samples + self.order.ahead * SAMPLES_PER_LATENT

    def with_audio_encoder(self, encoder: nn.Module) -> AvatarPipeline:
        """The same networks behind another audio encoder."""
        other = copy(self)
        other._hear_by(encoder)
        return other

    @torch.inference_mode()
    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 `[H, W, 3]` of any size (centre-cropped to a square) -> Reference.

        Raises ReferenceError_ for a wrong type, shape or size, and for a picture that cannot be drawn and moved.
        """
        picture = fit_picture(rgb, self.height)
        who, landmarks = self.codec.encode(picture)
        if self.check_references:
            check_drawn(self.codec, who, landmarks)
        return Reference(rgb=rgb, appearance=who)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Convert and keep what the renderer's runtime needs, so that the first start has not to wait for it."""
        who, _ = self.codec.encode(torch.zeros(1, 3, self.height, self.width))
        self.codec.render(who, rig.normalise(rig.neutral(FRAMES_PER_LATENT)))

    @torch.inference_mode()
    def start(self, reference: Reference, seed: int) -> StreamState:
        own = rig.normalise(rig.clamp(rig.denormalise(reference.appearance.own.float())))
        still = own[:, None].expand(-1, FRAMES_PER_LATENT, -1)
        bank = MemoryBank.start(self.denoiser, still.to(self.device))
        return StreamState(latent_index=0, seed=seed, memory=self.order.start(bank), reference=reference)

    @torch.inference_mode()
    def denoise(
        self, state: StreamState, pcm: np.ndarray, n_latents: int, text: str, stop: Callable[[], bool] | None = None
    ) -> Chunk | None:
        """pcm float32 `[context + n * 3840 + lookahead]` at 24 kHz -> n latents under `state` and `text`.

        stop: asked before each evaluation; None is returned once it says yes.
        """
        features = self.window(pcm).unflatten(0, (-1, FRAMES_PER_LATENT))
        if len(features) != n_latents + self.order.ahead:
            found = len(features) - self.order.ahead
            raise ValueError(f"window holds {found} latents of sound; {n_latents} were asked for")
        words = self._text(text)[:, None].expand(-1, len(features), -1, -1)
        condition = Condition(features[None].to(self.device), words)
        return self.order.denoise(state, condition, n_latents, stop)

    @torch.inference_mode()
    def advance(self, state: StreamState, latents: Chunk) -> StreamState:
        """State after `latents` (a whole chunk or the front of one) were committed to memory."""
        memory = self.order.commit(state.memory, latents)
        return replace(state, latent_index=state.latent_index + len(latents), memory=memory)

    @torch.inference_mode()
    def refine(self, state: StreamState) -> StreamState:
        """The same state with memory's newest entry renewed (`MemoryBank.refine`). Costs one evaluation."""
        return replace(state, memory=self.order.refine(state.memory))

    def render(self, reference: Reference, latents: Chunk) -> np.ndarray:
        """n latents -> frames uint8 `[4 * n, height, width, 3]`. A function of these two alone."""
        return self.codec.render(reference.appearance, latents.latents[0].flatten(0, 1).cpu())

    def motion(self, latents: Chunk) -> np.ndarray:
        """n latents -> float32 `[4 * n, K]` in the rig's own units, exactly what is rendered."""
        return rig.denormalise(latents.latents[0].flatten(0, 1)).cpu().numpy()

    def with_motion(self, latents: Chunk, motion: np.ndarray) -> Chunk:
        """Latents of the same place that render as `motion` float32 `[4 * n, K]`. They are not to be committed."""
        given = rig.normalise(rig.clamp(torch.from_numpy(motion))).unflatten(0, (-1, FRAMES_PER_LATENT))
        return Chunk(given[None], latents.condition)

    def _text(self, text: str) -> Tensor:
        """Embedding `[1, tokens, 384]` of an instruction, cached by string."""
        if text in self._texts:
            self._texts.move_to_end(text)
        else:
            self._texts[text] = self.text_encoder.encode([text]).to(self.device)
            if len(self._texts) > TEXT_CACHE:
                self._texts.popitem(last=False)
        return self._texts[text]


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
) -> AvatarPipeline:
    """Build the pipeline of a preset with its shipped weights (random ones for `debug`).

    weights: folder with renderer.safetensors and denoiser.safetensors, and training_motion.json for the live watch;
    default is the package's folder of the preset.
    runtime: what computes the renderer: "openvino", "eager" (torch), or "auto", the first of them that is there.
    Raises ConfigError, CheckpointError or ValueError with one line that names what is wrong.
    """
    config = preset(preset_name, overrides)
    check_device(device)
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime {runtime!r} does not exist; use {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the debug preset's random weights are the same everywhere
        renderer, denoiser = Renderer(config.renderer), DiT(config)
        if config.name == "debug":
            parts = EmbeddedAudioEncoder(), EmbeddedTextEncoder()
            codec = LiveCodec(renderer, compiler("eager" if runtime == "auto" else runtime))  # converting takes longer
            return AvatarPipeline(config, codec, denoiser, *parts, device=device, check_references=False)
    folder = Path(weights) if weights else weights_dir() / config.name
    if (folder / "mmdit.safetensors").exists() and not (folder / "denoiser.safetensors").exists():
        raise CheckpointError(f"{folder} holds weights of version 1, which denoised pictures; restore or train new")
    card = load_weights(folder / "renderer.safetensors", renderer, kind="renderer", config=config.renderer)
    load_weights(folder / "denoiser.safetensors", denoiser, kind="denoiser", config=config.denoiser_contract())
    statistics = folder / TRAINING_MOTION
    compile = compiler(runtime)
    ranges = card["activations"] if compile is not eager and has_int8() else None
    return AvatarPipeline(
        config,
        LiveCodec(renderer, compile, ranges),
        denoiser,
        load_audio_encoder(audio_backend, audio_path),
        load_text_encoder(text_backend, text_path),
        device=device,
        training_motion=MotionStatistics.load(statistics) if statistics.exists() else None,
    )
