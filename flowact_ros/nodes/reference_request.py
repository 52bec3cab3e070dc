# SPDX-License-Identifier: Apache-2.0
"""Which picture a `set_reference` request means, and what is answered when it cannot become the character."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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
DRAWN_SIDE = 512  # [px] of a picture made from a seed: that of the shipped ones


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
    """The picture and its name; an empty name for one that is not shipped. Raises Refused."""
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
        return Chosen(drawn(int(request.seed)), "")
    raise Refused(CODES.INVALID_IMAGE, f"source is {request.source}: must be 0 (image), 1 (name) or 2 (seed)")


def drawn(seed: int) -> np.ndarray:
    """The character of a seed at rest, uint8 [H, W, 3], always the same one. Raises Refused for any other seed.

    The renderer of the training data draws this one picture, as if somebody had sent it; the face is the model's. It
    is imported here and nowhere else in this room, when somebody asks for it.
    """
    from flowact_ros.data.characters import identity_from_seed, neutral_picture
    from flowact_ros.data.splits import TRAIN_CHARACTER_SEEDS as SEEDS

    if seed not in SEEDS:
        # Those above are kept for the evaluation.
        text = f"the seed is {seed}: characters have seeds {SEEDS.start} … {SEEDS.stop - 1}"
        raise Refused(CODES.UNKNOWN_CHARACTER, text)
    # 0.15 s in a thread of its own, which ends with its OpenMP team: the executor's thread never gets one.
    with ThreadPoolExecutor(1, thread_name_prefix="flowact-drawing") as thread:
        return thread.submit(neutral_picture, identity_from_seed(seed), DRAWN_SIDE).result()


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
