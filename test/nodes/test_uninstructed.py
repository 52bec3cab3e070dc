# SPDX-License-Identifier: Apache-2.0
"""What the engine is told while no planner runs."""

from __future__ import annotations

from flowact_ros.dialogue.phrases import REACTIONS, WORDINGS
from flowact_ros.nodes.uninstructed import UninstructedBehaviour, wording_of
from flowact_ros.vocabulary import BEHAVIOURS


class FakeSession:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.queued_s = 0.0

    def set_instruction(self, text: str, *, utterance_id: str = "") -> None:
        self.told.append((text, utterance_id))


IDLE, SPEAKING = wording_of("idle"), wording_of("speaking")


def test_every_behaviour_has_a_wording_the_model_knows() -> None:
    known = {text for texts in [*WORDINGS.values(), *REACTIONS.values()] for text in texts}
    assert all(wording_of(behaviour) in known for behaviour in BEHAVIOURS)
    assert len({wording_of(behaviour) for behaviour in BEHAVIOURS}) == len(BEHAVIOURS)


def test_speech_begins_and_ends() -> None:
    session = FakeSession()
    alone = UninstructedBehaviour(session)
    alone.tick(False)
    for _ in range(3):
        alone.speech("a")
    assert session.told == [(IDLE, ""), (SPEAKING, "a")]
    alone.tick(False)  # it waits for its first frame: not over
    alone.tick(True)
    session.queued_s = 0.5
    alone.tick(False)  # an underrun: more is queued
    session.queued_s = 0.0
    alone.tick(True)
    assert session.told[2:] == []
    alone.tick(False)
    alone.tick(False)
    assert session.told[2:] == [(IDLE, "")]
    alone.speech("b")
    assert session.told[3:] == [(SPEAKING, "b")]


def test_the_next_utterance_while_the_first_sounds() -> None:
    session = FakeSession()
    alone = UninstructedBehaviour(session)
    alone.speech("a")
    alone.tick(True)
    alone.speech("b")
    session.queued_s = 1.0
    alone.tick(False)
    alone.tick(True)
    session.queued_s = 0.0
    alone.tick(False)
    assert session.told == [(IDLE, ""), (SPEAKING, "a"), (SPEAKING, "b"), (IDLE, "")]
