# SPDX-License-Identifier: Apache-2.0
"""Keyframes: where a replay may begin without the records of earlier steps.

A step that carries one holds all that was remembered when it began: the denoiser's memory, where the look was, and the
sound before its first frame. It is a safetensors file of about 80 kB with the embedded model.
"""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flowact_ros.engine.gaze import Gaze
from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Pipeline, Reference
from flowact_ros.engine.ring import Snapshot
from flowact_ros.engine.step import Step


def has_place_for_one(step: Step) -> bool:
    """Does the step begin where another one ended? Inside of one its memory is not committed yet."""
    return step.before.done == 0


def keyframe(pipeline: Pipeline, step: Step) -> bytes:
    """Of a step that `has_place_for_one`. One that begins with a cut remembers nothing but the sound."""
    arrays = {"context": np.array(step.pcm[: pipeline.context_samples], np.float32)}
    if step.before.resets == step.record.resets:
        gaze = step.before.gaze
        arrays["gaze"] = np.array([*gaze.aim, *gaze.head, *gaze.speed, gaze.hold], np.float64)
        arrays["memory"] = np.frombuffer(pipeline.save(step.before.state), np.uint8)
    return save(arrays)


def begin_from(pipeline: Pipeline, record: ChunkRecord, reference: Reference) -> tuple[Snapshot, np.ndarray]:
    """The stream right before a record with a keyframe, and float32 [context_samples] of sound before its first frame.

    Raises EngineError for a keyframe that this pipeline cannot have made.
    """
    try:
        arrays = load(record.keyframe)
        context = arrays["context"]
        if "memory" not in arrays:
            return Snapshot(pipeline.start(reference, record.seed), None, 0, record.resets), context
        aim_x, aim_y, head_x, head_y, speed_x, speed_y, hold = arrays["gaze"].tolist()
        gaze = Gaze((aim_x, aim_y), (head_x, head_y), (speed_x, speed_y), hold)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise EngineError(f"the keyframe of step {record.step} cannot be read: {error}") from None
    if context.shape != (pipeline.context_samples,):
        raise EngineError(
            f"the keyframe of step {record.step} holds {len(context)} samples of sound: "
            f"{pipeline.context_samples} are heard by this model"
        )
    state = pipeline.restore(arrays["memory"].tobytes(), reference, record.seed)
    return Snapshot(state, None, 0, record.resets, gaze), context
