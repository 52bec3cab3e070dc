# SPDX-License-Identifier: Apache-2.0
"""Follows a conversation on the topics: for each turn of a user when he was heard, thought about and answered.

Times are those of arrival at a subscriber, seconds of `time.monotonic`: 80 ms before what arrives is to be seen.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray

from flowact_msgs.msg import AudioChunk, AvatarState, Instruction, StreamMetrics, Transcript
from flowact_ros.nodes import topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

REACTIONS = (AvatarState.THINKING, AvatarState.REACTING, AvatarState.SPEAKING)
QUIET_S = 0.8  # an avatar that did nothing for so long has answered
ANSWER_S = 20.0  # an answer that has not begun after so long does not come
LONGEST_S = 60.0  # of an answer


@dataclass
class TurnTimes:
    """What followed a user's turn; None for what did not happen.

    began_s, ended_s: his voice; instructed_s: the planner had the face think; reacted_s: the face first showed that it
    was over; heard_s: its final text; planned_s: the first sentence of the answer; spoken_s: the first frame with sound
    of an answer, answered_s: of a sentence that is no filler; rested_s: the first frame without the speech that he
    broke into. false_reactions: how often the face showed that it was over, and it was not.
    """

    said: str
    broke_in: bool = False
    began_s: float | None = None
    ended_s: float | None = None
    instructed_s: float | None = None
    reacted_s: float | None = None
    heard_s: float | None = None
    planned_s: float | None = None
    spoken_s: float | None = None
    answered_s: float | None = None
    rested_s: float | None = None
    heard: str = ""
    answer: str = ""
    false_reactions: int = 0


class DialogueWatch:
    """Callbacks run in the executor of `node`; everything else is called by one other thread."""

    def __init__(self, node: Node, fillers: frozenset[str] = frozenset()) -> None:
        """fillers: sentences that are spoken and answer nothing."""
        self._fillers = fillers
        self._changed = threading.Condition()
        self._turn: TurnTimes | None = None
        self._state: AvatarState | None = None
        self._state_s = 0.0
        self._sounding = ""  # utterance of the newest frame
        self._broken = ""  # the one that is broken into
        self._let_in = False  # the planner knows that it is
        self._known: set[str] = set()  # utterances that sounded, or were announced, before the turn's end
        self._texts: dict[str, str] = {}
        self._stopped = False
        self.planner: dict[str, str] = {}  # its diagnostics
        self.metrics: StreamMetrics | None = None
        self.arrivals = 0  # frames
        self._entities = [
            node.create_subscription(kind, name, callback, qos)
            for kind, name, callback, qos in (
                (AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS),
                (AvatarState, topics.STATE, self._on_state, topics.LATCHED_QOS),
                (Transcript, topics.TRANSCRIPT, self._on_transcript, topics.EVENT_QOS),
                (Transcript, topics.SPEECH_TEXT, self._on_text, topics.EVENT_QOS),
                (Instruction, topics.INSTRUCTION, self._on_instruction, topics.EVENT_QOS),
                (StreamMetrics, topics.METRICS, self._on_metrics, topics.EVENT_QOS),
                (DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, topics.EVENT_QOS),
            )
        ]
        self._node = node
        self._name = f"{node.get_namespace().strip('/')}/instruction_planner"

    def close(self) -> None:
        """Whoever waits goes on; nothing is heard any more."""
        self.stop()
        for subscription in self._entities:
            self._node.destroy_subscription(subscription)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # ------------------------------------------------------------ for the thread that plays the turns

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def ready(self) -> bool:
        """An avatar that is seen, and a planner whose model is loaded."""
        return self._state is not None and self.planner.get("model_ready") == "True"

    def begin(self, said: str, broke_in: bool = False) -> TurnTimes:
        """The user is about to speak."""
        with self._changed:
            self._turn = TurnTimes(said, broke_in)
            self._known.update(self._texts)
            self._broken, self._let_in = self._sounding if broke_in else "", False
            self._turn.broke_in = bool(self._broken)
            return self._turn

    def ended(self, began_s: float, ended_s: float) -> None:
        """The user has spoken, then and then."""
        with self._changed:
            if self._turn is not None:
                self._turn.began_s, self._turn.ended_s = began_s, ended_s
                if self._turn.false_reactions and self._shows(AvatarState.THINKING):
                    self._turn.false_reactions -= 1  # it was the end: his last sounds were hardly to be heard
                    self._turn.reacted_s = max(self._state_s, ended_s)

    def wait_spoken(self, turn: TurnTimes) -> bool:
        """Until the answer begins to sound; False if none came."""
        return self._wait(lambda: turn.spoken_s is not None, ANSWER_S)

    def wait_quiet(self) -> None:
        """Until nothing is said or thought about any more."""
        deadline = time.monotonic() + LONGEST_S
        while not self._stopped and time.monotonic() < deadline:
            with self._changed:
                quiet_s = time.monotonic() - self._state_s if self._at_rest() else 0.0
                if quiet_s >= QUIET_S:
                    return
                self._changed.wait(QUIET_S - quiet_s)

    def sleep(self, seconds: float) -> None:
        self._wait(lambda: False, seconds)

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: done() or self._stopped, seconds)
            return done()

    def _shows(self, behaviour: int) -> bool:
        return self._state is not None and self._state.behaviour == behaviour

    def _at_rest(self) -> bool:
        state = self._state
        return (
            state is not None
            and state.behaviour == AvatarState.IDLE
            and not state.speech_waits
            and not self._sounding
        )

    # ------------------------------------------------------------ callbacks

    def _on_audio(self, message: AudioChunk) -> None:
        now, name = time.monotonic(), message.utterance_id
        self.arrivals += 1
        if name == self._sounding:
            return
        with self._changed:
            turn, self._sounding = self._turn, name
            # Not what ended by itself, nor the next sentence of the same answer.
            rests = self._broken and self._let_in and name not in self._texts
            if turn is not None and rests and turn.rested_s is None:
                turn.rested_s = now
            if name and turn is not None and self._is_new(name):
                if turn.spoken_s is None:
                    turn.spoken_s = now
                    turn.reacted_s = turn.reacted_s or now  # the behaviour follows with the next step
                if turn.answered_s is None and self._texts.get(name) not in self._fillers:
                    turn.answered_s = now
            self._known.add(name)
            self._changed.notify_all()

    def _is_new(self, name: str) -> bool:
        """It came after the turn ended: no sentence of an answer before."""
        return self._turn is not None and self._turn.ended_s is not None and name not in self._known

    def _on_state(self, message: AvatarState) -> None:
        now = time.monotonic()
        with self._changed:
            listened = self._shows(AvatarState.LISTENING)
            self._state, self._state_s, turn = message, now, self._turn
            if turn is not None and turn.ended_s is None and listened and self._shows(AvatarState.THINKING):
                turn.false_reactions += 1
            over = turn is not None and turn.ended_s is not None and turn.reacted_s is None
            if turn is not None and over and message.behaviour in REACTIONS:
                turn.reacted_s = now
            self._changed.notify_all()

    def _on_transcript(self, message: Transcript) -> None:
        turn = self._turn
        if turn is not None and message.final and message.text:
            turn.heard_s = time.monotonic()
            turn.heard = f"{turn.heard} {message.text}".strip()

    def _on_text(self, message: Transcript) -> None:
        self._texts[message.utterance_id] = message.text
        turn = self._turn
        if turn is None or turn.ended_s is None:
            self._known.add(message.utterance_id)
        elif message.utterance_id not in self._known:
            turn.planned_s = turn.planned_s or time.monotonic()
            turn.answer = f"{turn.answer} {message.text}".strip()

    def _on_instruction(self, message: Instruction) -> None:
        self._let_in = self._let_in or message.behaviour == Instruction.LISTENING
        turn = self._turn
        over = turn is not None and turn.ended_s is not None
        if turn is not None and over and message.behaviour == Instruction.THINKING:
            turn.instructed_s = turn.instructed_s or time.monotonic()

    def _on_metrics(self, message: StreamMetrics) -> None:
        self.metrics = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                self.planner = {value.key: value.value for value in status.values}
