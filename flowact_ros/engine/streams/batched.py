# SPDX-License-Identifier: Apache-2.0
"""A pipeline whose networks compute the steps of several streams at once.

Denoiser and audio encoder, on a GPU the renderer of motion too, are exchanged for kernels that join the calls of a
`Lockstep`'s tasks along the batch. (The VAE of spatial latents decodes each stream by itself.) A batch always has its
full size: lanes that nobody needs repeat the first one. So the shape of every computation, and with it what a stream
gets, bit for bit, is the same however many streams there are and whoever they are: a replay in batches of the same size
gives the same frames (`test_batched.py`). In batches of another size the last bits differ, which the provenance says.

Streams whose memories hold the same number of entries are computed together, whatever the entries' ages: each lane has
rotations of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flowact_ros.diffusion.kv_cache import Cache
from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.runtime.base import Progress, silent
from flowact_ros.engine.runtime.denoiser import StaticDenoiser
from flowact_ros.engine.streams.lockstep import Call, call, filled
from flowact_ros.engine.streams.rendering import BatchedCodec
from flowact_ros.engine.streams.windows import stacked
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.dit import Condition, DiT, Evaluation

LARGEST = 64  # lanes of a batch
ROUNDED_TOGETHER = ("int8",)  # precisions that round all rows of a batch by one scale


def check_batch(batch: int, precision: str) -> None:
    """Raises ValueError, one line, for a batch that cannot be."""
    if not 1 <= batch <= LARGEST:
        raise ValueError(f"batch is {batch}: it must lie in 1 .. {LARGEST}")
    if batch > 1 and precision in ROUNDED_TOGETHER:
        raise ValueError(
            f"batch {batch} does not go with precision {precision}, which rounds all streams of a batch by one scale; "
            f"use precision float32 or bfloat16, or batch 1"
        )


def batched(pipeline: LatentPipeline, size: int, tell: Progress = silent) -> LatentPipeline:
    """The same networks, of which up to `size` streams are computed together; itself for a size of 1.

    What its runtime prepares for batches of this size is done here; tell: after each part of it.
    Raises ValueError for a size that cannot be, and for a denoiser of which a batch would mix its streams.
    """
    check_batch(size, pipeline.provenance.precision)
    if size == 1:
        return pipeline
    other = copy(pipeline)
    network = pipeline.denoiser.model if isinstance(pipeline.denoiser, StaticDenoiser) else pipeline.denoiser
    computed = pipeline.runtime.denoiser(network, (size,))
    pipeline.runtime.prepare(computed, tell)
    other.denoiser = BatchedDenoiser(computed, size)
    other.order = type(pipeline.order)(pipeline.config, other.denoiser, pipeline.order.finish)
    other.window = copy(pipeline.window)
    other.window.encoder = BatchedEncoder(pipeline.window.encoder, size)
    made_by = replace(pipeline._provenance, denoiser=f"{pipeline.provenance.precision}, batch {size}")
    if pipeline.device.type != "cpu" and isinstance(getattr(pipeline, "codec", None), LiveCodec):
        other.codec = BatchedCodec(pipeline.codec, pipeline.device, size)
        drawn = f"{pipeline.runtime.version}, drawn in batches of {size}"
        made_by = replace(made_by, runtime=drawn, renderer="float32")
    other._provenance = made_by
    return other


class BatchedDenoiser:
    """Called as the `DiT` that it is made of, with a batch of one stream."""

    def __init__(self, model: DiT, size: int) -> None:
        self.model, self.size = model, size
        self.config, self.windows, self.parameters = model.config, model.windows, model.parameters

    def __call__(self, *given: Any, **named: Any) -> tuple[Tensor, Cache]:
        """Called with the fields of an `Evaluation`."""
        one = Evaluation(*given, **named)
        masked = one.windows.joint.mask is not None or one.windows.motion.mask is not None
        if len(one.noisy) != 1 or masked:
            raise ValueError(f"a batch is made of single streams without a mask; a batch of {len(one.noisy)} was given")
        return call(self, *one)

    def key(self, given: Call) -> Hashable:
        noisy, _, condition, _, past, guidance = given
        remembered = 0 if past is None else past[0][0].shape[2]
        return noisy.shape, noisy.dtype, condition.text.shape, remembered, guidance is None

    @torch.inference_mode()
    def compute(self, calls: Sequence[Call]) -> list[tuple[Tensor, Cache]]:
        lanes = filled(calls, self.size)
        noisy, sigma, condition, windows, past, guidance = zip(*lanes)
        clean, own = self.model(
            torch.cat(noisy),
            torch.cat(sigma),
            Condition(torch.cat([c.audio for c in condition]), torch.cat([c.text for c in condition])),
            stacked(windows),
            None if past[0] is None else [tuple(map(torch.cat, zip(*layer))) for layer in zip(*past)],
            None if guidance[0] is None else torch.cat(guidance),
        )
        # What a single slot gives is kept as memory: a view would keep the whole batch.
        kept = torch.clone if noisy[0].shape[1] == 1 else lambda lane: lane
        return [
            (clean[i : i + 1], [(kept(key[i : i + 1]), kept(value[i : i + 1])) for key, value in own])
            for i in range(len(calls))
        ]


class BatchedEncoder:
    """Called as the audio encoder that it is made of, with the sound of one stream `[1, samples]`."""

    def __init__(self, encoder: nn.Module, size: int) -> None:
        self.encoder, self.size = encoder, size
        self.context_samples, self.lookahead_samples = encoder.context_samples, encoder.lookahead_samples

    def __call__(self, pcm: Tensor) -> Tensor:
        if len(pcm) != 1:
            raise ValueError(f"a batch is made of single streams; the sound of {len(pcm)} was given")
        return call(self, pcm)

    def key(self, given: Call) -> Hashable:
        return given[0].shape, given[0].dtype

    @torch.inference_mode()
    def compute(self, calls: Sequence[Call]) -> list[Tensor]:
        features = self.encoder(torch.cat([pcm for (pcm,) in filled(calls, self.size)]))
        return [features[i : i + 1] for i in range(len(calls))]
