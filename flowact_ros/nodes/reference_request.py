# SPDX-License-Identifier: Apache-2.0
"""Which picture a `set_reference` request means, and what is answered when it cannot become the character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowact_msgs.srv import SetReference
from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.interfaces import ReferenceError_
from flowact_ros.nodes.convert import ConversionError, image_array

if TYPE_CHECKING:
    from flowact_ros.engine.session import Session

CODES = SetReference.Response


class Refused(ValueError):
    """The request is answered with `code` and this one line."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, eq=False)
class Chosen:
    """rgb: uint8 [H, W, 3]; name: its id in records."""

    rgb: np.ndarray
    name: str


def picture_of(request: SetReference.Request) -> Chosen:
    """The picture and its name; an empty name for one that was sent. Raises Refused."""
    if request.source == SetReference.Request.SOURCE_IMAGE:
        try:
            return Chosen(image_array(request.image), "")
        except ConversionError as error:
            raise Refused(CODES.INVALID_IMAGE, str(error)) from None
    if request.source == SetReference.Request.SOURCE_NAME:
        names = list_characters()
        if request.name not in names:
            text = f"no shipped character is called {request.name!r}; there are {', '.join(names)}"
            raise Refused(CODES.UNKNOWN_CHARACTER, text)
        return Chosen(load_character(request.name), request.name)
    if request.source == SetReference.Request.SOURCE_SEED:
        # Pictures are made from seeds by the renderer of the training data, which is not part of a running robot.
        text = f"no shipped character has the seed {request.seed}: ask for one by name, or send its picture"
        raise Refused(CODES.UNKNOWN_CHARACTER, text)
    raise Refused(CODES.INVALID_IMAGE, f"source is {request.source}: must be 0 (image), 1 (name) or 2 (seed)")


def change_character(session: Session | None, request: SetReference.Request) -> Chosen:
    """Has the session show the character of the request; returns it under its name in records. Raises Refused."""
    if session is None:
        raise Refused(CODES.NOT_ACTIVE, "the avatar is not active")
    chosen = picture_of(request)
    try:
        # A thread of the session encodes it; the stream goes on meanwhile.
        return Chosen(chosen.rgb, session.set_reference(chosen.rgb, chosen.name))
    except ReferenceError_ as error:
        raise Refused(CODES.NOT_REPRESENTABLE, str(error)) from None
