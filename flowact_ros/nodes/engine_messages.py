# SPDX-License-Identifier: Apache-2.0
"""The engine's figures and records as messages, and records back from messages."""

from __future__ import annotations

import math
from array import array
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import numpy as np

from flowact_msgs.msg import ChunkRecord, DrawnLatent, Provenance, SpeechSpan, StreamMetrics
from flowact_ros.engine import interfaces, provenance
from flowact_ros.engine.session_config import MAX_STEP_LATENTS
from flowact_ros.nodes.convert import (
    MAX_CHUNK_S,
    ConversionError,
    behaviour_name,
    behaviour_number,
    to_bytes_field,
)
from flowact_ros.timebase import (
    FRAME_RATE,
    FRAMES_PER_LATENT,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_LATENT,
)

if TYPE_CHECKING:
    from flowact_ros.engine import metrics

_NUMBERS = ("step", "first_frame", "latents", "first_sample", "seed", "rewinds", "resets")
_TEXTS = ("instruction", "utterance_id", "reference_id")


def metrics_message(figures: metrics.StreamMetrics, published_fps: float) -> StreamMetrics:
    """The stamp is left to the caller. A value that was not measured yet is NaN, never a zero that looks good."""
    stepped = figures.steps > 0
    stages = dict(figures.step_ms)
    message = StreamMetrics()
    message.fps = float(published_fps)
    message.real_time_factor = figures.real_time_factor_median if stepped else math.nan
    message.real_time_factor_p95 = figures.real_time_factor_p95 if stepped else math.nan
    message.load = figures.load_median if stepped else math.nan
    message.ttff = figures.ttff_s[-1] if figures.ttff_s else math.nan
    message.step_ms = float(sum(stages.values())) if stages else math.nan
    message.stage_names = list(stages)
    message.stage_ms = [float(value) for value in stages.values()]
    message.wait_names = list(figures.waits_ms)
    message.wait_ms = [float(value) for value in figures.waits_ms.values()]
    message.ring_fill = figures.ring_fill / FRAME_RATE
    message.frames = figures.frames
    message.repeated_frames = figures.repeated
    message.dropped_frames = figures.dropped
    message.underruns = figures.underruns
    message.rewinds = figures.rewinds
    message.av_skew = float(figures.av_skew_s) if figures.frames else math.nan
    message.barge_in_stop = figures.barge_in_s[-1] if figures.barge_in_s else math.nan
    message.received_samples, message.heard_samples = figures.received_samples, figures.heard_samples
    message.filled_samples = figures.filled_samples
    message.dropped_reasons = list(figures.dropped_samples)
    message.dropped_samples = list(figures.dropped_samples.values())
    message.lost_chunks, message.lost_samples = figures.lost_chunks, figures.lost_samples
    message.repeated_chunks, message.reordered_chunks = figures.repeats, figures.reordered
    message.unended_utterances = figures.unterminated
    motion = figures.motion
    message.motion_drift, message.motion_jitter = motion.drift, motion.jitter
    message.without_blink = motion.without_blink_s
    message.lip_movement, message.lip_sound = motion.lip_movement, motion.lip_sound
    message.motion_alarms, message.motion_alarms_raised = list(motion.alarms), figures.alarms_raised
    message.memory_refinements, message.memory_resets = figures.refinements, figures.recoveries
    return message


def record_message(record: interfaces.ChunkRecord) -> ChunkRecord:
    """What one step used, without loss. The header is left to the caller, who knows the clock."""
    message = ChunkRecord()
    for name in _NUMBERS:
        setattr(message, name, int(getattr(record, name)))
    for name in _TEXTS:
        setattr(message, name, str(getattr(record, name)))
    message.behaviour = behaviour_number(record.behaviour) if record.behaviour else ChunkRecord.AS_SPEECH
    if record.look is not None:
        message.looks, message.look_x, message.look_y = True, *record.look
    message.refines = record.refines
    message.samples = len(record.pcm)
    pcm = np.ascontiguousarray(record.pcm, np.float32)
    sounding = np.flatnonzero(pcm.view(np.uint32))  # bits: a negative zero is kept
    field = array("f")  # what the field takes without looking at every item
    field.frombytes(pcm[: sounding[-1] + 1 if len(sounding) else 0].tobytes())
    message.pcm = field
    message.spans = [SpeechSpan(start=s.start, end=s.end, utterance_id=s.utterance_id) for s in record.spans]
    message.drawn = [_drawn_message(latent) for latent in record.drawn]
    message.keyframe = to_bytes_field(record.keyframe)
    if record.provenance is not None:
        message.provenance = Provenance(**asdict(record.provenance))
    return message


def _drawn_message(latent: interfaces.DrawnLatent) -> DrawnLatent:
    message = DrawnLatent(latent=latent.latent, digest=latent.digest, rows=len(latent.pixels))
    message.motion = array("f", np.ascontiguousarray(latent.motion, np.float32).tobytes())
    message.pixels = to_bytes_field(np.ascontiguousarray(latent.pixels))
    return message


def record_of(message: ChunkRecord) -> interfaces.ChunkRecord:
    """The record that `record_message` was given, bit for bit. message: of ROS, or with the same fields, from a bag.

    Raises ConversionError for one that no step can have used.
    """
    what = f"chunk record of step {message.step}"
    if not 1 <= message.latents <= MAX_STEP_LATENTS or message.first_frame % FRAMES_PER_LATENT:
        raise ConversionError(
            f"{what} has {message.latents} latents from frame {message.first_frame} on: 1 … {MAX_STEP_LATENTS} latents "
            f"from a multiple of {FRAMES_PER_LATENT} on are needed"
        )
    end = message.first_frame * SAMPLES_PER_FRAME + message.latents * SAMPLES_PER_LATENT
    least = end - message.first_sample
    if not 0 < least <= MAX_CHUNK_S * SAMPLE_RATE or not least <= message.samples <= least + interfaces.MAX_LOOKAHEAD:
        raise ConversionError(
            f"{what} has {message.samples} samples from {message.first_sample} on: its frames end at {end}, up to "
            f"{interfaces.MAX_LOOKAHEAD} more may follow"
        )
    sound = np.asarray(message.pcm, np.float32)
    if len(sound) > message.samples or not np.isfinite(sound).all():
        raise ConversionError(
            f"{what} holds {len(sound)} samples of sound: at most {message.samples}, all finite, are needed"
        )
    look = (float(message.look_x), float(message.look_y))
    if message.looks and not np.isfinite(look).all():
        raise ConversionError(f"{what} looks at {look}: finite numbers are needed")
    pcm = np.zeros(message.samples, np.float32)
    pcm[: len(sound)] = sound
    return interfaces.ChunkRecord(
        **{name: int(getattr(message, name)) for name in _NUMBERS},
        **{name: str(getattr(message, name)) for name in _TEXTS},
        behaviour="" if message.behaviour == ChunkRecord.AS_SPEECH else behaviour_name(message.behaviour),
        pcm=pcm,
        spans=tuple(interfaces.SpeechSpan(int(s.start), int(s.end), s.utterance_id) for s in message.spans),
        look=look if message.looks else None,
        refines=bool(message.refines),
        drawn=tuple(_drawn_of(latent, what) for latent in message.drawn),
        keyframe=bytes(message.keyframe),
        provenance=_provenance_of(message.provenance),
    )


def _drawn_of(message: DrawnLatent, what: str) -> interfaces.DrawnLatent:
    motion, pixels = np.array(message.motion, np.float32), np.array(message.pixels, np.uint8)
    if len(motion) % FRAMES_PER_LATENT or not np.isfinite(motion).all():
        raise ConversionError(
            f"{what} has {len(motion)} values of motion for latent {message.latent}: a finite one of each control in "
            f"each of {FRAMES_PER_LATENT} frames is needed"
        )
    rows = int(message.rows)
    if (rows == 0) != (len(pixels) == 0) or (rows and len(pixels) % (3 * rows)):
        raise ConversionError(
            f"{what} has {len(pixels)} bytes of pixels in {rows} rows for latent {message.latent}: rows of RGB are "
            f"needed"
        )
    pixels = pixels.reshape(rows, len(pixels) // (3 * rows) if rows else 0, 3)
    return interfaces.DrawnLatent(
        int(message.latent), motion.reshape(FRAMES_PER_LATENT, -1), int(message.digest), pixels
    )


def _provenance_of(message: Provenance) -> provenance.Provenance | None:
    """None for a message that nobody filled."""
    names = [field.name for field in fields(provenance.Provenance)]
    found = provenance.Provenance(**{name: getattr(message, name) for name in names})
    return found if found.preset else None
