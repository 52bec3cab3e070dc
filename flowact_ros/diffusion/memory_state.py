# SPDX-License-Identifier: Apache-2.0
"""A stream's memory as named tensors and back, without its caches: they are functions of what is kept, and much
larger."""

from __future__ import annotations

import torch
from torch import Tensor

from flowact_ros.diffusion.kv_cache import Cache, entry_cache
from flowact_ros.diffusion.memory import Entry, MemoryBank
from flowact_ros.diffusion.sampler import ChunkInFlight, DiagonalWindow, Slope
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT


def bank_tensors(bank: MemoryBank) -> dict[str, Tensor]:
    """latent.i, audio.i and text.i of each entry, its index in the stream, and the counts of latents and commits."""
    tensors = {
        "indices": torch.tensor([entry.index for entry in bank.entries], dtype=torch.int64),
        "counts": torch.tensor([bank.latents, bank.commits], dtype=torch.int64),
    }
    for i, entry in enumerate(bank.entries):
        tensors |= {
            f"latent.{i}": entry.latent,
            f"audio.{i}": entry.condition.audio,
            f"text.{i}": entry.condition.text,
        }
    # Copies: entries of one step share memory, which safetensors refuses.
    return {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}


def bank_from(model: DiT, reference: Cache, tensors: dict[str, Tensor]) -> MemoryBank:
    """The bank that `bank_tensors` was given, its caches computed again under the reference's cache.

    Raises KeyError or RuntimeError where the tensors are not those of a bank of this model.
    """
    latents, commits = tensors["counts"].tolist()
    entries, device = [], reference[0][0].device
    for i, index in enumerate(tensors["indices"].tolist()):
        latent, audio, text = (tensors[f"{name}.{i}"].to(device) for name in ("latent", "audio", "text"))
        condition = Condition(audio, text)
        entries.append(Entry(latent, condition, entry_cache(model, reference, latent, condition), index))
    return MemoryBank(reference, tuple(entries), latents, commits)


def flight_tensors(window: DiagonalWindow) -> dict[str, Tensor]:
    """noisy.i and velocity.i of each chunk in flight, and their levels and spans. Their conditions are told anew."""
    chunks = window.flight
    spans = [float("nan") if chunk.slope is None else chunk.slope.span for chunk in chunks]
    tensors = {
        "levels": torch.tensor([chunk.level for chunk in chunks], dtype=torch.int64),
        "spans": torch.tensor(spans, dtype=torch.float64),
    }
    for i, chunk in enumerate(chunks):
        tensors[f"noisy.{i}"] = chunk.noisy.detach().cpu().clone(memory_format=torch.contiguous_format)
        if chunk.slope is not None:
            tensors[f"velocity.{i}"] = chunk.slope.velocity.detach().cpu().clone(
                memory_format=torch.contiguous_format
            )
    return tensors


def flight_from(model: DiT, tensors: dict[str, Tensor]) -> tuple[ChunkInFlight, ...]:
    """The chunks in flight that `flight_tensors` was given, with empty conditions (`DiagonalWindow.told`)."""
    c, chunks, device = model.config.dit, [], next(model.parameters()).device
    for i, (level, span) in enumerate(zip(tensors["levels"].tolist(), tensors["spans"].tolist())):
        noisy = tensors[f"noisy.{i}"].to(device)
        b, s = noisy.shape[:2]
        nothing = Condition(
            noisy.new_zeros(b, s, FRAMES_PER_LATENT, c.audio_dim), noisy.new_zeros(b, s, c.text_tokens, c.text_dim)
        )
        slope = Slope(tensors[f"velocity.{i}"].to(device), span) if f"velocity.{i}" in tensors else None
        chunks.append(ChunkInFlight(noisy, nothing, level, slope))
    return tuple(chunks)
