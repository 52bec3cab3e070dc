# SPDX-License-Identifier: Apache-2.0
"""The networks of a preset cut into ONNX files: the very modules that a runtime compiles, with real inputs for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.portrait import fit_picture
from flowact_ros.engine.runtime.denoiser import FlatDenoiser, Level, example, levels, past_shapes
from flowact_ros.models.checkpoint import (
    RANDOM,
    CheckpointError,
    fill_random,
    load_onto,
    load_weights,
    weights_dir,
)
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.codec.live import Graph, LiveCodec, eager
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.codec.video_vae import REACH, NextFrames, VideoVAE
from flowact_ros.models.config import ConfigError, ModelConfig
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT

#: What the live codec's graphs take and give, by the class of the module.
_RENDERER_NAMES = {
    "Mouth": (("crop", "weight", "fine", "coarse", "own", "motion"), ("added",)),
    "Eyes": (("crops", "weights", "fine", "coarse", "own", "motion"), ("added_left", "added_right")),
    "Body": (("masks", "finest", "fine", "coarse", "own", "identity", "motion"), ("flow", "plan", "cover")),
    "HandSprites": (("inputs",), ("hands", "arms")),
}


@dataclass(frozen=True, eq=False)
class Part:
    """One file: its name, the module, inputs to measure with, and what inputs and outputs are called."""

    name: str
    module: nn.Module
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def codec_parts(config: ModelConfig, weights: str | None) -> list[Part]:
    """What draws: of a motion preset `mouth`, `eyes` and `body`, of a spatial one `decoder`. In float32.

    weights: a folder, None for the package's, or "random". Raises CheckpointError.
    """
    if config.video is None:
        renderer = Renderer(config.renderer)
        path = _weights(config, weights, "renderer.safetensors")
        if path is None:
            fill_random(renderer, device="cpu", dtype=torch.float32)
        else:
            load_weights(path, renderer, kind="renderer", config=config.renderer)
        return _renderer(renderer)
    with torch.device("meta"):
        vae = VideoVAE(config.video.vae)
    path = _weights(config, weights, "vae.safetensors")
    if path is None:
        fill_random(vae, device="cpu", dtype=torch.float32)
    else:
        load_onto(path, vae, kind="vae", config=config.video, device="cpu", dtype=torch.float32)
    before, latent = (torch.randn(1, n, *config.dit.latent_shape, generator=_generator()) for n in (REACH, 1))
    module = NextFrames(vae.eval().requires_grad_(False), config.video.grid)
    return [Part("decoder", module, (before, latent), ("before", "latent"), ("frames",))]


def denoiser_parts(config: ModelConfig, weights: str | None, fills: Sequence[int]) -> list[Part]:
    """One evaluation of a chunk under each of `fills` entries of memory, and the passes of one latent that make the
    keys and values of a memory entry and of the reference. In float32. weights: as of `codec_parts`.

    Raises CheckpointError, and ConfigError for a fill that this preset's memory cannot have.
    """
    full = config.memory.long_term + 1
    for fill in fills:
        if not 0 <= fill <= full:
            raise ConfigError(f"a memory of {fill} entries was asked for; preset {config.name} holds 0 to {full}")
    path = _weights(config, weights, "denoiser.safetensors")
    with torch.device("meta"):
        model = DiT(config)
    if path is None:
        fill_random(model, device="cpu", dtype=torch.float32, seed=1)
    else:
        load_onto(path, model, kind=KIND, config=config.denoiser_contract(), device="cpu", dtype=torch.float32)
    module = FlatDenoiser(model.eval().requires_grad_(False))
    slots = levels(config)[0].slots
    passes = {f"denoiser_fill{fill}": Level(1, slots, 1 + fill) for fill in fills}
    passes |= {"denoiser_entry": Level(1, 1, 1), "denoiser_reference": Level(1, 1, 0)}
    return [denoiser_part(name, module, level) for name, level in passes.items()]


def denoiser_part(name: str, module: FlatDenoiser, level: Level) -> Part:
    """One pass at `level`, with noise for latents, sound, text and memory, and the rotations of a stream."""
    model, generator = module.model, _generator()
    noisy, sigma, audio, text, *rest = example(model, level, torch.device("cpu"))
    noisy, audio, text = (torch.randn(x.shape, generator=generator) for x in (noisy, audio, text))
    sigma = torch.rand(sigma.shape, generator=generator)
    past = [torch.randn(shape, generator=generator) for shape in past_shapes(model, level)]
    layers = len(model.double_blocks) + len(model.single_blocks)
    kept = [f"{i}_{kind}" for i in range(layers) for kind in ("key", "value")]
    inputs = ["noisy", "sigma", "audio", "text", *(["guidance"] if model.guidance_in is not None else [])]
    for window in ("motion", *(["joint"] if len(model.double_blocks) else [])):
        inputs += [f"{window}_{which}" for which in ("query_cos", "query_sin", "key_cos", "key_sin")]
    inputs += [f"past_{name}" for name in kept] if past else []
    outputs = ["clean", *([f"own_{name}" for name in kept] if level.slots == 1 else [])]
    return Part(name, module, (noisy, sigma, audio, text, *rest, *past), tuple(inputs), tuple(outputs))


def _renderer(renderer: Renderer) -> list[Part]:
    """What `LiveCodec` has compiled when it draws, for a character of ours."""
    parts: list[Part] = []

    def noted(module: nn.Module, tensors: tuple[Tensor, ...]) -> Graph:
        kind = type(module).__name__
        parts.append(Part(kind.lower(), module.eval(), tuple(x.clone() for x in tensors), *_RENDERER_NAMES[kind]))
        return eager(module, tensors)

    codec = LiveCodec(renderer, noted)
    size = renderer.config.size
    who, _ = codec.encode(fit_picture(load_character(list_characters()[0]), size, size))
    codec.render(who, torch.randn(FRAMES_PER_LATENT, rig.CONTROLS, generator=_generator()))
    return sorted(parts, key=lambda part: part.name)  # they are compiled beside each other


def _weights(config: ModelConfig, weights: str | None, file: str) -> Path | None:
    """The file, or None for random ones. Raises CheckpointError with what to do where it is not there."""
    if weights == RANDOM:
        return None
    folder = Path(weights).expanduser() if weights else weights_dir() / config.name
    if not (folder / file).is_file():
        where = f"{folder} holds no {file}" if weights else f"preset {config.name} comes without weights"
        raise CheckpointError(f"{where}; --weights names their folder, and `--weights {RANDOM}` makes untrained ones")
    return folder / file


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
