# SPDX-License-Identifier: Apache-2.0
"""What frames were computed by: model, weights, runtime, precision, processor. It goes into every record of a step."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

DIGITS = 16  # of the hash of weights


@dataclass(frozen=True)
class Provenance:
    """Two equal ones give the same frames of the same inputs, bit for bit.

    preset, settings: of the model, settings as JSON of what was overridden; weights: see `weights_hash`; audio_encoder,
    text_encoder: names of the backends; device: as torch names it; processor: its model and the instructions that
    torch uses; runtime: what computes the renderer, with its version; denoiser, renderer: their precision, that of the
    denoiser with the size of its batches where steps of several streams are computed together ("float32, batch 4"),
    that of the renderer with a hash of the limits between which it is rounded ("int8, limits 0123456789abcdef"); torch:
    its version; threads: torch's.
    """

    preset: str = ""
    settings: str = "{}"
    weights: str = ""
    audio_encoder: str = ""
    text_encoder: str = ""
    device: str = "cpu"
    processor: str = ""
    runtime: str = ""
    denoiser: str = ""
    renderer: str = ""
    torch: str = ""
    threads: int = 0

    @property
    def precision(self) -> str:
        """Of the denoiser."""
        return self.denoiser.partition(", batch ")[0]

    @property
    def batch(self) -> int:
        """Streams whose steps the denoiser computes together; 1: each by itself."""
        size = self.denoiser.partition(", batch ")[2]
        return int(size) if size.isdigit() else 1

    def differences(self, other: Provenance) -> list[str]:
        """Names of the fields in which the two differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


#: Another motion is made where one of these differs; where only others do, the same motion is drawn otherwise.
MOTION_FIELDS = (
    *("preset", "settings", "weights", "audio_encoder", "text_encoder"),
    *("device", "processor", "denoiser", "torch", "threads"),
)
#: Where one of these differs, it is another model, and nothing can be compared.
MODEL_FIELDS = ("preset", "settings", "weights", "audio_encoder", "text_encoder")


def weights_hash(modules: Iterable[nn.Module]) -> str:
    """First 16 hex digits of the BLAKE2b hash of all names and values, as they were loaded."""
    digest = hashlib.blake2b(digest_size=DIGITS // 2)
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def values_hash(values: Any) -> str:
    """The same of what JSON holds."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=DIGITS // 2).hexdigest()


@lru_cache
def processor_name(device: str) -> str:
    """Model of the processor or card that `device` is, with the instructions that torch uses of a processor."""
    if device != "cpu":
        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else device
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
