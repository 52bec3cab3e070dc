# SPDX-License-Identifier: Apache-2.0
"""The networks behind one seam: sound and text to latents (`denoise`), memory (`advance`), pictures (`decode`).

No threads, no clock, no hidden state: everything a step depends on is in its arguments, so that a session may keep a
snapshot a latent and rewind to any of them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.engine.interfaces import Reference, ReferenceError_, StreamState
from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.references import picture_id
from flowact_ros.engine.sampler import Stopped, chunk_noise, denoise_chunk, stoppable
from flowact_ros.engine.schedule import step_sigmas
from flowact_ros.engine.shelf import load_shelf
from flowact_ros.models import decoding
from flowact_ros.models.audio_encoder import EmbeddedAudioEncoder, load_audio_encoder
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import ConfigError, ModelConfig, preset
from flowact_ros.models.encoding import encode_image
from flowact_ros.models.int8 import has_int8, use_int8
from flowact_ros.models.mmdit import MMDiT
from flowact_ros.models.pair import pair_for
from flowact_ros.models.text_encoder import EmbeddedTextEncoder, load_text_encoder
from flowact_ros.models.vae import VAE
from flowact_ros.models.window import HALF_CELL
from flowact_ros.models.winograd import use_winograd
from flowact_ros.timebase import FRAMES_PER_LATENT

MINIMUM_SIDE = 32  # [px] a smaller reference image holds no face
LEAST_PSNR = 20.0  # [dB] of the VAE round trip below which a reference image is refused
DTYPES = ("auto", "float32", "bfloat16", "int8")
TEXT_CACHE = 256  # instructions whose embedding is kept


@dataclass(frozen=True, eq=False)
class Memory:
    """What a stream remembers: for its next latents, and for their pictures."""

    bank: MemoryBank
    trail: decoding.Trail


@dataclass(frozen=True, eq=False)
class Start:
    """Where the streams of a character start."""

    memory: Memory
    scene: decoding.Scene
    shown: decoding.Shown


@dataclass(frozen=True, eq=False)
class Chunk:
    """Clean reference-relative latents `[1, n, C, h, w]` of a chunk, with the condition they were made from.

    sketches: what is to be drawn of each. `chunk[:i]` is the chunk cut after i latents, `chunk[i]` one to decode.
    """

    latents: Tensor
    condition: Condition
    sketches: tuple[decoding.Sketch, ...]
    scene: decoding.Scene

    def __len__(self) -> int:
        return len(self.sketches)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"a chunk is cut into consecutive latents; step {step} was asked for")
            condition = self.condition.slots(start, stop)
            return Chunk(self.latents[:, start:stop], condition, self.sketches[start:stop], self.scene)
        if not -len(self) <= index < len(self):
            raise IndexError(f"latent {index} of a chunk of {len(self)}")
        return self.sketches[index], self.scene


class AvatarPipeline:
    """`engine.interfaces.Pipeline` on real networks. All tensors are batch 1 on `device`.

    kind: "float32", "bfloat16" or "int8", see `build_pipeline`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vae: VAE,
        denoiser: MMDiT,
        audio_encoder: nn.Module,
        text_encoder: Any,
        *,
        device: str = "cpu",
        kind: str = "float32",
        check_references: bool = True,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.dtype = dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        self.pair = pair_for(self.device)
        self.vae = vae.to(self.device, dtype).eval().requires_grad_(False)
        if self.device.type == "cpu" and dtype == torch.float32:  # bfloat16 has faster kernels of its own
            use_winograd(self.vae.decoder, self.pair)
        self.vae.decoder.freeze()
        self.denoiser = denoiser.to(self.device, dtype).eval().requires_grad_(False)
        if kind == "int8":
            use_int8(self.denoiser)
        self.text_encoder = text_encoder
        self.window = AudioWindow(audio_encoder.eval().requires_grad_(False))
        self.context_samples = self.window.context_samples
        self.lookahead_samples = self.window.lookahead_samples
        self.height, self.width = config.published_size
        self.sigmas = step_sigmas(config.schedule)
        self.check_references = check_references
        self.timings: dict[str, float] = {}
        self.shelf: dict[str, Tensor] = {}  # latents of known pictures, by `picture_id`
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._ground: tuple[decoding.Scene, Tensor] | None = None  # the last scene, and its picture as published
        self._silence: dict[int, Tensor] = {}  # features by samples

    @torch.inference_mode()
    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 `[H, W, 3]` of any size (centre-cropped to the canvas) -> Reference.

        Raises ReferenceError_ for a wrong type, shape or size, and for a picture the VAE cannot represent.
        """
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ReferenceError_(f"reference image is {rgb.dtype} {list(rgb.shape)}; uint8 [H, W, 3] RGB is needed")
        if min(rgb.shape[:2]) < MINIMUM_SIDE:
            raise ReferenceError_(
                f"reference image is {rgb.shape[1]} x {rgb.shape[0]} pixels; at least {MINIMUM_SIDE} a side are needed"
            )
        latent = self.shelf.get(picture_id(rgb))
        if latent is not None:  # a shipped character
            return self._reference(rgb, latent[None].to(self.device, self.dtype))
        picture = self._fit(rgb)
        latent = encode_image(self.vae, picture.to(self.dtype), self.config.encoding_steps)
        if self.check_references:
            back = self.vae.decode(latent.unsqueeze(1))[0][0, -1].float().clamp(-1, 1)
            psnr = float(10 * torch.log10(4.0 / (back - picture[0]).square().mean().clamp_min(1e-10)))
            if psnr < LEAST_PSNR:
                raise ReferenceError_(
                    f"the model cannot draw this image (round trip {psnr:.1f} dB, {LEAST_PSNR:.0f} dB are needed): "
                    "use a picture in the style of the shipped characters"
                )
        return self._reference(rgb, latent)

    def _reference(self, rgb: np.ndarray, latent: Tensor) -> Reference:
        scene, trail, shown = decoding.settle(self.vae, latent)
        memory = Memory(MemoryBank.start(self.denoiser, latent), trail)
        return Reference(rgb=rgb, latent=latent, extra=Start(memory, scene, shown))

    def _fit(self, rgb: np.ndarray) -> Tensor:
        """Centre crop to the canvas' aspect ratio and resize -> `[1, 3, H, W]` in [-1, 1]."""
        height, width = self.config.height, self.config.width
        side_h, side_w = rgb.shape[:2]
        scale = min(side_h / height, side_w / width)
        crop_h, crop_w = round(height * scale), round(width * scale)
        top, left = (side_h - crop_h) // 2, (side_w - crop_w) // 2
        crop = torch.from_numpy(np.ascontiguousarray(rgb[top : top + crop_h, left : left + crop_w]))
        picture = crop.permute(2, 0, 1).unsqueeze(0).to(self.device, torch.float32)
        if picture.shape[-2:] != (height, width):
            picture = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)
        return picture / 127.5 - 1.0

    def start(self, reference: Reference, seed: int) -> StreamState:
        return StreamState(latent_index=0, seed=seed, memory=reference.extra.memory, reference=reference)

    def start_decoder(self, reference: Reference) -> decoding.Shown:
        """Decoder state as if the reference picture had been on screen for ever."""
        return reference.extra.shown

    @torch.inference_mode()
    def denoise(
        self, state: StreamState, pcm: np.ndarray, n_latents: int, text: str, stop: Callable[[], bool] | None = None
    ) -> Chunk | None:
        """pcm float32 `[context + n * 3840 + lookahead]` at 24 kHz -> n latents under `state` and `text`.

        stop: asked before each evaluation; None is returned once it says yes.
        """
        began = time.perf_counter()
        features = self._features(pcm).unflatten(0, (-1, FRAMES_PER_LATENT))
        if len(features) != n_latents:
            raise ValueError(f"window holds {len(features)} latents of sound; {n_latents} were asked for")
        heard = time.perf_counter()
        words = self._text(text)
        read = time.perf_counter()
        condition = Condition(
            features[None].to(self.device, self.dtype), words[:, None].expand(-1, n_latents, -1, -1)
        )
        memory: Memory = state.memory
        shape = tuple(memory.bank.reference.shape[1:])
        noise = chunk_noise(self.config.schedule, state.seed, state.latent_index, n_latents, shape)
        settled, survey = self.config.schedule.settled, self.config.schedule.survey
        predict = memory.bank.predictor(self.denoiser, condition, settled, self.pair, self.sigmas[:-1], survey)
        self.timings.update(audio=1e3 * (heard - began), text=1e3 * (read - heard), deepen=0.0)
        predict = predict if stop is None else stoppable(predict, stop)
        try:
            latents = denoise_chunk(predict, noise.to(self.device, self.dtype), self.sigmas)
        except Stopped:
            return None
        return Chunk(latents, condition, *self._sketch(latents, memory, state.reference.extra.scene))

    def _sketch(
        self, latents: Tensor, memory: Memory, scene: decoding.Scene
    ) -> tuple[tuple[decoding.Sketch, ...], decoding.Scene]:
        # here rather than in `decode`: of all latents of a step at once, in the thread that has more time
        began, config = time.perf_counter(), self.config
        absolute = memory.bank.reference.unsqueeze(1) + config.motion_scale * latents
        options = {"still": config.still, "calm": config.calm}
        sketches = tuple(decoding.sketch(self.vae, absolute, memory.trail, scene, **options))
        self.timings["deepen"] = 1e3 * (time.perf_counter() - began)
        return sketches, scene

    @torch.inference_mode()
    def advance(self, state: StreamState, latents: Chunk) -> StreamState:
        """State after `latents` (a whole chunk or the front of one) were committed to memory."""
        bank = state.memory.bank.commit(self.denoiser, latents.latents, latents.condition)
        memory = Memory(bank, latents.sketches[-1].after)
        return replace(state, latent_index=state.latent_index + len(latents), memory=memory)

    @torch.inference_mode()
    def paint(self, latent: tuple[decoding.Sketch, decoding.Scene]) -> decoding.Painting:
        """The greater part of `decode` of `chunk[i]`: whatever was decoded before it, this is the same."""
        return decoding.paint(self.vae, *latent, self.pair)

    @torch.inference_mode()
    def decode(
        self,
        latent: tuple[decoding.Sketch, decoding.Scene],
        decoder_state: decoding.Shown,
        painting: decoding.Painting | None = None,
    ) -> tuple[np.ndarray, decoding.Shown]:
        """`chunk[i]` -> four frames uint8 `[4, height, width, 3]` of the published size, decoder state after them.

        painting: what `paint` made of it, if that was called before
        """
        part, after = decoding.show(painting or self.paint(latent), decoder_state, latent[1])
        began = time.perf_counter()
        frames = self._published(part, latent[1]).cpu().numpy()
        self.timings["output"] = 1e3 * (time.perf_counter() - began)
        return frames, after

    def _published(self, part: decoding.Part, scene: decoding.Scene) -> Tensor:
        """Whole pictures uint8 `[4, height, width, 3]`. Where the grid allows it, only what may have changed is
        resized, which gives the same: no value of a bilinear one comes from beyond a border on that grid.
        """
        size, canvas = (self.height, self.width), (self.config.height, self.config.width)
        if any(HALF_CELL * n % of for n, of in zip(size, canvas)):
            return resize(part.upon(scene.picture), size)
        if self._ground is None or self._ground[0] is not scene:
            self._ground = scene, resize(scene.picture.unsqueeze(0), size)[0]
        window = part.window
        high, wide = (HALF_CELL * n // of for n, of in zip(size, canvas))
        pictures = resize(part.pictures, (high * window.rows, wide * window.columns))
        return replace(part, pictures=pictures).upon(self._ground[1])

    def identity(self, state: StreamState) -> float:
        """Cosine of the pooled newest latent to the pooled reference latent (1 = the same character)."""
        bank: MemoryBank = state.memory.bank
        if bank.short_term is None:
            return 1.0
        drawn = bank.reference + self.config.motion_scale * bank.short_term.latents[:, -1]
        pooled = [F.avg_pool2d(z.float(), 4).flatten(1) for z in (drawn, bank.reference)]
        return float(F.cosine_similarity(*pooled))

    def _features(self, pcm: np.ndarray) -> Tensor:
        """Of a window, `[frames, 384]`; those of silence, all that an idle stream hears, are kept."""
        if np.any(pcm):
            return self.window(pcm)
        if len(pcm) not in self._silence:  # as many lengths as sizes of steps
            self._silence[len(pcm)] = self.window(pcm)
        return self._silence[len(pcm)]

    def _text(self, text: str) -> Tensor:
        """Embedding `[1, tokens, 384]` of an instruction, cached by string."""
        if text in self._texts:
            self._texts.move_to_end(text)
        else:
            self._texts[text] = self.text_encoder.encode([text]).to(self.device, self.dtype)
            if len(self._texts) > TEXT_CACHE:
                self._texts.popitem(last=False)
        return self._texts[text]


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 `[N, H, W, 3]` -> uint8 `[N, *size, 3]`, bilinear."""
    if pictures.shape[1:3] == size:
        return pictures.contiguous()
    planes = pictures.permute(0, 3, 1, 2)  # channels-last: the CPU then has a kernel for bytes
    if planes.device.type != "cpu":  # other devices have none
        planes = planes.float()
    planes = F.interpolate(planes, size, mode="bilinear")
    if planes.is_floating_point():
        planes = planes.round_().to(torch.uint8)
    return planes.permute(0, 2, 3, 1).contiguous()


def best_kind(device: str) -> str:
    """What the networks compute in: on a CPU with kernels for it "int8" for the denoiser's large products and float32
    for all that is left; else "bfloat16" or "float32" as `best_dtype` has it.

    Also where a CPU multiplies bfloat16: int8 is no slower there, and oneDNN, which computes bfloat16, keeps 0.06 to
    0.6 MB for each new number of tokens and size of a picture's part, until gigabytes are gone (docs/decisions.md).
    """
    if device == "cpu" and has_int8():
        return "int8"
    return "bfloat16" if best_dtype(device) == torch.bfloat16 else "float32"


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX-512 BF16, AMX, any CUDA GPU), else float32."""
    if device != "cpu":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return torch.bfloat16 if native else torch.float32


def check_device(device: str) -> None:
    """Raises ValueError, one line, where torch cannot compute on `device`."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such name; a build without CUDA; no such card
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); cpu always can") from None


def build_pipeline(
    preset_name: str = "avatar_cpu",
    device: str = "cpu",
    *,
    overrides: dict[str, Any] | None = None,
    weights: Path | str | None = None,
    dtype: str = "auto",
    audio_backend: str = "embedded",
    audio_path: Path | str | None = None,
    text_backend: str = "embedded",
    text_path: Path | str | None = None,
) -> AvatarPipeline:
    """Build the pipeline of a preset with its shipped weights (random ones for `debug`).

    weights: folder with vae.safetensors and mmdit.safetensors; default is the package's folder of the preset.
    dtype:   "auto" (`best_kind`), "float32", "bfloat16", or "int8" (of the denoiser's large layers, on a CPU).
    Raises ConfigError, CheckpointError or ValueError with one line that names what is wrong.
    """
    config = preset(preset_name, overrides)
    check_device(device)
    if config.schedule.order != "sequential":
        raise ConfigError(
            "the live stream runs the sequential schedule, for which the weights were trained; "
            "the diagonal one is there for rollouts (engine.sampler.DiagonalWindow)"
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} does not exist; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    kind = best_kind(device) if dtype == "auto" else dtype
    if kind == "int8" and (device != "cpu" or not has_int8()):
        raise ValueError("dtype 'int8' needs a CPU with AVX2 and a torch with kernels for it; auto takes what there is")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the debug preset's random weights are the same everywhere
        vae, denoiser = VAE(config.vae), MMDiT(config)
        if config.name == "debug":
            parts = EmbeddedAudioEncoder(), EmbeddedTextEncoder()
            return AvatarPipeline(config, vae, denoiser, *parts, device=device, check_references=False)
    folder = Path(weights) if weights else weights_dir() / config.name
    load_weights(folder / "vae.safetensors", vae, kind="vae", config=config.vae)
    load_weights(folder / "mmdit.safetensors", denoiser, kind="mmdit", config=config.denoiser_contract())
    pipeline = AvatarPipeline(
        config,
        vae,
        denoiser,
        load_audio_encoder(audio_backend, audio_path),
        load_text_encoder(text_backend, text_path),
        device=device,
        kind=kind,
    )
    pipeline.shelf = load_shelf(folder)
    return pipeline
