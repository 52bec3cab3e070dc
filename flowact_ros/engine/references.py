# SPDX-License-Identifier: Apache-2.0
"""From what a caller has (an image, or a reference already encoded) to a named reference, and from the name back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.interfaces import ChunkRecord, Pipeline, Reference, ReferenceError_

_DIGITS = 16  # of the hash in a picture's id


class ReferenceNotFound(ValueError):
    """A reference of which only the id is known, and no picture at hand has it."""


def picture_id(rgb: np.ndarray) -> str:
    """Id of a picture without a name: "picture-" and the SHA-256 of its RGB bytes, row by row, cut to 16 digits."""
    return "picture-" + hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()[:_DIGITS]


def load_reference(
    pipeline: Pipeline, reference: Reference | np.ndarray, reference_id: str = ""
) -> Reference:
    """rgb uint8 [H, W, 3] or Reference -> Reference with an id (given, its own, or `picture_id`).

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
    name = reference_id or reference.id or picture_id(reference.rgb)
    return reference if name == reference.id else replace(reference, id=name)


def recorded_references(
    pipeline: Pipeline, records: Iterable[ChunkRecord], pictures: Iterable[np.ndarray] = ()
) -> dict[str, Reference]:
    """The references that records name, encoded again: shipped characters, and uint8 [H, W, 3] `pictures` by hash.

    Raises ReferenceNotFound for an id that neither is.
    """
    given = {picture_id(rgb): rgb for rgb in pictures}
    shipped = list_characters()
    found: dict[str, Reference] = {}
    for name in dict.fromkeys(record.reference_id for record in records):
        if name not in shipped and name not in given:
            raise ReferenceNotFound(
                f"the records show {name!r}: it is no shipped character and none of the {len(given)} pictures "
                f"at hand; give the picture that was sent"
            )
        found[name] = load_reference(pipeline, given[name] if name in given else load_character(name), name)
    return found
