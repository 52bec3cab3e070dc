# SPDX-License-Identifier: Apache-2.0
"""From what a caller has (an image, or a reference already encoded) to a named reference."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from flowact_ros.engine.interfaces import Pipeline, Reference, ReferenceError_


def load_reference(
    pipeline: Pipeline, reference: Reference | np.ndarray, reference_id: str = ""
) -> Reference:
    """rgb uint8 [H, W, 3] or Reference -> Reference with an id (given, its own, or a hash of its pixels).

    Raises ReferenceError_ if the image cannot become a character.
    """
    if not isinstance(reference, Reference):
        if not isinstance(reference, np.ndarray) or reference.ndim != 3 or reference.shape[2] != 3:
            shape = list(getattr(reference, "shape", ()))
            raise ReferenceError_(
                f"the reference is {type(reference).__name__} {shape}: uint8 [H, W, 3] is needed"
            )
        if reference.dtype != np.uint8:
            raise ReferenceError_(f"the reference has type {reference.dtype}: uint8 is needed")
        if min(reference.shape) < 1:
            raise ReferenceError_(f"the reference has shape {list(reference.shape)}: it holds no pixel")
        reference = pipeline.load_reference(reference)
    name = reference_id or reference.id
    if not name:
        name = hashlib.sha256(np.ascontiguousarray(reference.rgb).tobytes()).hexdigest()[:12]
    return reference if name == reference.id else replace(reference, id=name)
