# SPDX-License-Identifier: Apache-2.0
"""The engine's figures and records as messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowact_msgs.msg import ChunkRecord, StreamMetrics
from flowact_ros.timebase import FRAME_RATE

if TYPE_CHECKING:
    from flowact_ros.engine import interfaces, metrics


def metrics_message(figures: metrics.StreamMetrics, published_fps: float) -> StreamMetrics:
    """The stamp is left to the caller. A value that was not measured yet is NaN, never a zero that looks good."""
    stepped = figures.steps > 0
    stages = dict(figures.step_ms)
    message = StreamMetrics()
    message.fps = float(published_fps)
    message.real_time_factor = figures.real_time_factor_median if stepped else math.nan
    message.real_time_factor_p95 = figures.real_time_factor_p95 if stepped else math.nan
    message.ttff = figures.ttff_s[-1] if figures.ttff_s else math.nan
    message.step_ms = float(sum(stages.values())) if stages else math.nan
    message.stage_names = list(stages)
    message.stage_ms = [float(value) for value in stages.values()]
    message.ring_fill = figures.ring_fill / FRAME_RATE
    message.frames = figures.frames
    message.repeated_frames = figures.repeated
    message.dropped_frames = figures.dropped
    message.underruns = figures.underruns
    message.rewinds = figures.rewinds
    message.av_skew = float(figures.av_skew_s) if figures.frames else math.nan
    message.barge_in_stop = figures.barge_in_s[-1] if figures.barge_in_s else math.nan
    message.identity_drift = math.nan if figures.identity is None else float(figures.identity)
    return message


def record_message(record: interfaces.ChunkRecord) -> ChunkRecord:
    """What one step used. The header is left to the caller, who knows the clock."""
    message = ChunkRecord()
    for name in ("step", "first_frame", "latents", "first_sample", "rewinds", "seed"):
        setattr(message, name, int(getattr(record, name)))
    for name in ("instruction", "utterance_id", "reference_id"):
        setattr(message, name, str(getattr(record, name)))
    return message
