# SPDX-License-Identifier: Apache-2.0
"""What the model is told when nobody instructs it: words it was trained with, by whether the avatar speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowact_ros.dialogue.phrases import REACTIONS, WORDINGS
from flowact_ros.vocabulary import IDLE, SPEAKING

if TYPE_CHECKING:
    from flowact_ros.engine.session import Session


def wording_of(behaviour: str) -> str:
    """A behaviour's own wording, for an instruction without a text."""
    return WORDINGS[behaviour][0] if behaviour in WORDINGS else REACTIONS["smile"][0]


class UninstructedBehaviour:
    """Idle and speaking by the sound alone, until the first instruction of somebody else.

    The behaviour itself is left open: the engine takes it from the speech that sounds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._utterance: str | None = None
        self._sounded = False
        session.set_instruction(wording_of(IDLE))

    def speech(self, utterance_id: str) -> None:
        """Sound for the mouth came."""
        if self._utterance != utterance_id:
            self._utterance, self._sounded = utterance_id, False
            self._session.set_instruction(wording_of(SPEAKING), utterance_id=utterance_id)

    def tick(self, speaking: bool) -> None:
        """From time to time: does speech leave now?"""
        if self._utterance is None:
            return
        self._sounded = self._sounded or speaking
        if self._sounded and not speaking and self._session.queued_s == 0.0:
            self._utterance = None
            self._session.set_instruction(wording_of(IDLE))
