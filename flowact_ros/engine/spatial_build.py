# SPDX-License-Identifier: Apache-2.0
"""From a spatial preset's name to its pipeline: weights straight onto the device, if it has room for them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowact_ros.engine.memory_need import (
    NotEnoughMemory,
    advice,
    check_fits,
    denoiser_dtype,
    free_memory,
    gigabytes,
    need_of,
    parameters,
    picture_dtype,
    wants,
)
from flowact_ros.engine.provenance import Provenance, weights_hash
from flowact_ros.engine.runtime.base import Runtime
from flowact_ros.engine.spatial import SpatialPipeline
from flowact_ros.models.audio_encoder import load_audio_encoder
from flowact_ros.models.checkpoint import (
    RANDOM,
    CheckpointError,
    fill_random,
    load_onto,
    read_card,
    weights_dir,
)
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import ModelConfig, sampled_as, video_of
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.models.ports import (
    RandomText,
    check_ports,
    embedded_hears,
    embedded_reads,
    random_audio_encoder,
)
from flowact_ros.models.precision import check_precision
from flowact_ros.models.text_encoder import load_text_encoder
from flowact_ros.vocabulary import EMBEDDED

_LOG = logging.getLogger(__name__)
VAE_FILE, DENOISER_FILE = "vae.safetensors", "denoiser.safetensors"
ENCODER_BYTES = {(1280, 4096): 12_000_000_000, (1280, 1024): 3_400_000_000}  # Whisper large in float32, T5 in bfloat16


def build_spatial(
    config: ModelConfig,
    device: str,
    *,
    weights: Path | str | None,
    settings: str,
    runtime: Runtime,
    audio_backend: str,
    audio_path: Path | str | None,
    text_backend: str,
    text_path: Path | str | None,
    precision: str,
) -> SpatialPipeline:
    """See `engine.pipeline.build_pipeline`; settings: what was overridden, as JSON.

    Raises NotEnoughMemory, one line, where the device has no room, with the preset that would fit.
    """
    check_precision(precision, device)
    random = weights == RANDOM
    folder = Path(weights).expanduser() if weights and not random else weights_dir() / config.name
    if not random:
        _check_there(config, folder, given=weights is not None)
        config = sampled_as(config, read_card(folder / DENOISER_FILE), json.loads(settings))
    encoders = ENCODER_BYTES.get((config.dit.audio_dim, config.dit.text_dim), 0)
    need = need_of(config, precision, device, encoders=encoders).total(device)
    check_fits(config, need, device)
    began = time.monotonic()
    with _out_of_memory(config, need, device):
        vae, denoiser = _networks(config, None if random else folder, precision, device)
        audio, audio_backend = _hears(config, audio_backend, audio_path, device, random)
        text, text_backend = _reads(config, text_backend, text_path, device, random)
        check_ports(config, audio, text, audio_backend, text_backend)
        networks = [vae, denoiser, *(part for part in (audio, text) if isinstance(part, nn.Module))]
        made = SpatialPipeline(
            config, vae, denoiser, audio, text, device=device, precision=precision, runtime=runtime,
            provenance=Provenance(
                preset=config.name,
                settings=settings,
                weights=RANDOM if random else weights_hash(networks),
                audio_encoder=audio_backend,
                text_encoder=text_backend,
                runtime=runtime.version,
                renderer=str(picture_dtype(device)).removeprefix("torch."),
            ),
        )  # fmt: skip
    total = sum(parameters(network) for network in networks)
    _LOG.info(
        "%s: %.2f G parameters on %s in %.1f s; a stream needs about %s",
        config.name, total / 1e9, device, time.monotonic() - began, gigabytes(need),
    )  # fmt: skip
    return made


def _check_there(config: ModelConfig, folder: Path, *, given: bool) -> None:
    """Raises CheckpointError with how to get what lacks."""
    for name in (VAE_FILE, DENOISER_FILE):
        if not (folder / name).is_file():
            where = f"{folder} holds no {name}" if given else f"preset {config.name} comes without weights"
            raise CheckpointError(
                f"{where}: train them with `flowact train --help` and give their folder as weights_dir; weights_dir "
                f"{RANDOM} makes untrained ones, for speed runs: the picture is noise"
            )


def _networks(config: ModelConfig, folder: Path | None, precision: str, device: str) -> tuple[VideoVAE, DiT]:
    """VAE and denoiser on the device, each in the type that it is computed in; folder: None for random weights."""
    video = video_of(config)
    with torch.device("meta"):
        vae, denoiser = VideoVAE(video.vae), DiT(config)
    dtype = denoiser_dtype(precision, device)
    if folder is None:
        fill_random(vae, device=device, dtype=picture_dtype(device))
        fill_random(denoiser, device=device, dtype=dtype, seed=1)
    else:
        load_onto(folder / VAE_FILE, vae, kind="vae", config=video, device=device, dtype=picture_dtype(device))
        load_onto(
            folder / DENOISER_FILE, denoiser, kind=KIND, config=config.denoiser_contract(), device=device, dtype=dtype
        )
    return vae.requires_grad_(False), denoiser.requires_grad_(False)


def _hears(
    config: ModelConfig, backend: str, path: Path | str | None, device: str, random: bool
) -> tuple[Any, str]:
    """The sound's encoder and the name of its backend: of random networks a random one where the embedded does not
    fit."""
    if random and (backend == RANDOM or (backend == EMBEDDED and path is None and not embedded_hears(config))):
        return random_audio_encoder(config, device), RANDOM
    return load_audio_encoder(backend, path, device), backend


def _reads(config: ModelConfig, backend: str, path: Path | str | None, device: str, random: bool) -> tuple[Any, str]:
    """The same for the text."""
    port = config.dit.text_tokens, config.dit.text_dim
    if random and (backend == RANDOM or (backend == EMBEDDED and path is None and not embedded_reads(config))):
        return RandomText(port), RANDOM
    return load_text_encoder(backend, path, tokens=port[0], device=device), backend


@contextmanager
def _out_of_memory(config: ModelConfig, need: int, device: str) -> Iterator[None]:
    """What the device says when it is full, as one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise NotEnoughMemory(_full(config, need, device)) from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # the allocator of the CPU has no class of its own
            raise
        raise NotEnoughMemory(_full(config, need, device)) from None


def _full(config: ModelConfig, need: int, device: str) -> str:
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    told = f"{device} ran out of memory while the weights were loaded: {wants(config, need, device)}"
    return f"{told}; {advice(config, free_memory(device) or 0, device)}"
