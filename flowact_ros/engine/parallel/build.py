# SPDX-License-Identifier: Apache-2.0
"""From a preset's name and devices to a pipeline on several of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any
from weakref import finalize

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.orders import ORDERS
from flowact_ros.engine.parallel.decoder import DistantDecoder
from flowact_ros.engine.parallel.ranks import TIMEOUT_S, Channel, Layout, Ranks, end_this_process
from flowact_ros.engine.parallel.split import SplitDenoiser
from flowact_ros.engine.pipeline import build_pipeline

SPLIT_PRECISIONS = ("float32", "bfloat16", "fp8")  # int8 rounds all tokens of an evaluation by one scale


class Across:
    """A pipeline on several devices, and the ranks that it needs: `with build_across(…) as pipeline`."""

    def __init__(self, pipeline: LatentPipeline, ranks: Ranks, channels: tuple[Channel | None, Channel | None]) -> None:
        self.pipeline, self.ranks, self._channels = pipeline, ranks, channels

    def __enter__(self) -> LatentPipeline:
        return self.pipeline

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the other ranks."""
        self.ranks.close(self._channels)


def build_across(
    layout: Layout,
    preset: str,
    *,
    timeout_s: float = TIMEOUT_S,
    on_death: Callable[[str], None] = end_this_process,
    **arguments: Any,
) -> Across:
    """`build_pipeline` on all devices of a layout; arguments: its other ones, of what JSON can hold.

    The other ranks end with `Across.close`, and when the pipeline is forgotten.

    on_death: see `Ranks`. The denoiser is computed by torch as it is, in the automatic precision of a GPU, or float32.
    Raises what `build_pipeline` does, ValueError for a precision that cannot be split, and RankLost.
    """
    kind = layout.devices[0].partition(":")[0]
    precision = arguments.pop("precision", "auto")
    if precision == "auto":
        precision = "float32" if kind == "cpu" else "bfloat16"
    if precision not in SPLIT_PRECISIONS and len(layout.devices) > 1:
        raise ValueError(f"precision {precision} cannot be split over ranks; use {', '.join(SPLIT_PRECISIONS)}")
    # Graphs of a denoiser that is computed by one process alone would not fit the shares.
    runtime = arguments.pop("runtime", "auto")
    runtime = "eager" if kind == "cuda" else runtime
    arguments |= {"preset_name": preset, "precision": precision, "runtime": runtime}
    ranks = Ranks(layout, arguments, timeout_s=timeout_s, on_death=on_death)
    try:
        pipeline = build_pipeline(device=layout.device(0), **arguments)
        if layout.size > 1:
            channels = ranks.join()
        else:
            channels = None, None
        spread = _spread(pipeline, layout, *channels)
        finalize(spread, ranks.close, channels)  # whoever forgets the pipeline has no more use for its ranks
        return Across(spread, ranks, channels)
    except BaseException:
        ranks.close()
        raise


def _spread(
    pipeline: LatentPipeline, layout: Layout, denoiser: Channel | None, decoder: Channel | None
) -> LatentPipeline:
    other = copy(pipeline)
    if denoiser is not None:
        other.denoiser = split = SplitDenoiser(pipeline.denoiser, denoiser)  # type: ignore[assignment]
        other.order = ORDERS[pipeline.config.schedule.order](pipeline.config, split, pipeline.order.finish)  # type: ignore
        told = f"{pipeline.provenance.precision}, {len(layout.devices)} ranks"
        other._provenance = replace(pipeline._provenance, denoiser=told)
    if decoder is not None:
        distant = DistantDecoder(pipeline, decoder, len(layout.devices))
        other.render = distant.render
        if not pipeline.control_names:  # named motion may be turned before it is drawn: it is drawn when asked for
            other.begin, other.overlaps = distant.begin, True
    return other
