# SPDX-License-Identifier: Apache-2.0
"""How much memory a spatial preset needs, known before a weight is made: sizes of the networks on the meta device, and
of what a stream keeps and a step computes with.

Only the weights and the keys and values of memory are exact. Activations are counted for the largest block, with
attention that never holds its scores; `LIBRARIES` and `SLACK` are estimates.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import PRESETS, ModelConfig, preset, video_of
from flowact_ros.models.dit import DiT
from flowact_ros.models.precision import automatic
from flowact_ros.timebase import FRAMES_PER_LATENT

LIBRARIES = 1 << 30  # [bytes] of a CUDA context and of matrix kernels' workspaces
SLACK = 1.1  # the allocator's fragments
HELD_ENTRIES = 6  # memory entries that snapshots of the ring hold besides those of the newest bank: one a latent
WIDTHS = 20  # activations of a block's token: queries, keys, values, two of the MLP's four, modulations, residuals
MAPS = 6  # pictures or feature maps of the VAE's finest stage that live at once
EMBEDDED_PRESET = "avatar_cpu"  # runs anywhere


class NotEnoughMemory(RuntimeError):
    """A device has no room for a preset; the message names one that would fit."""


@dataclass(frozen=True)
class Need:
    """[bytes] weights: of all networks; memory: keys and values of a full memory bank and of those that snapshots hold;
    work: the most that a step has at once besides."""

    weights: int
    memory: int
    work: int

    def total(self, device: str | torch.device) -> int:
        """[bytes] with what libraries take on such a device."""
        tensors = self.weights + self.memory + self.work
        return int(SLACK * tensors) + (LIBRARIES if torch.device(device).type == "cuda" else 0)


def need_of(config: ModelConfig, precision: str = "auto", device: str = "cpu", *, encoders: int = 0) -> Need:
    """Of a spatial preset; encoders: [bytes] of the sound's and the text's.

    With precision fp8 the weights count as bfloat16, which they are while they are loaded.
    Raises ConfigError for a preset of motion.
    """
    video, dit = video_of(config), config.dit
    size, picture = denoiser_dtype(precision, device).itemsize, picture_dtype(device).itemsize
    with torch.device("meta"):
        weights = size * parameters(DiT(config)) + picture * parameters(VideoVAE(video.vae))
    tokens, _ = dit.latent_shape
    joint = tokens + FRAMES_PER_LATENT + dit.text_tokens
    slot = 2 * dit.width * size * (dit.single_blocks * tokens + dit.double_blocks * joint)  # its keys and values
    bank, chunk = 1 + config.memory.long_term + 1, config.schedule.chunk_latents
    if config.schedule.order == "diagonal":
        chunk *= config.schedule.in_flight
    # A step joins memory's keys and values, makes its own, and rotates those of a block.
    step = (bank + chunk) * slot + (WIDTHS * chunk + 3 * bank) * joint * dit.width * size
    pixels = FRAMES_PER_LATENT * video.height * video.width
    drawing = MAPS * pixels * max(3 * 4, max(video.vae.decoder_widths[0], video.vae.encoder_widths[0]) * picture // 16)
    return Need(weights + encoders, (bank + HELD_ENTRIES) * slot, step + drawing)


def denoiser_dtype(precision: str, device: str) -> torch.dtype:
    """What a denoiser's weights are loaded in to be computed in one of `models.precision.PRECISIONS`."""
    chosen = automatic(device) if precision == "auto" else precision
    return torch.float32 if chosen in ("float32", "int8") else torch.bfloat16


def picture_dtype(device: str | torch.device) -> torch.dtype:
    """What the VAE is computed in."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def free_memory(device: str | torch.device) -> int | None:
    """[bytes] that can be had on `device` now; None where it is not known."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        with contextlib.suppress(OSError, ValueError):  # no Linux
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return int(value.split()[0]) * 1024
    return None


def held_memory(device: str | torch.device) -> int | None:
    """[bytes] that this process holds: of a GPU what torch has of it, else resident memory; None where not known."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def check_fits(config: ModelConfig, need: int, device: str | torch.device) -> None:
    """Raises NotEnoughMemory, one line, where `need` bytes are not free; it names the preset that would fit."""
    free = free_memory(device)
    if free is not None and need > free:
        told = f"{wants(config, need, device)}, and {gigabytes(free)} are free"
        raise NotEnoughMemory(f"{told}; {advice(config, free, device)}")


def wants(config: ModelConfig, need: int, device: str | torch.device) -> str:
    return f"preset {config.name} needs about {gigabytes(need)} on {device}"


def advice(config: ModelConfig, free: int, device: str | torch.device) -> str:
    """The largest smaller preset that fits, for the end of an error line."""
    others = [preset(name) for name in PRESETS if name != config.name]
    sizes = [(need_of(other, device=str(device)).total(device), other.name) for other in others if _is_real(other)]
    fitting = [(size, name) for size, name in sizes if size <= free]
    if not fitting:
        return f"{EMBEDDED_PRESET} would fit, which needs no GPU"
    size, name = max(fitting)
    return f"{name} would fit ({gigabytes(size)} and its encoders)"


def _is_real(config: ModelConfig) -> bool:
    """A spatial preset that is not for tests."""
    return config.video is not None and not config.name.endswith("_debug")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
