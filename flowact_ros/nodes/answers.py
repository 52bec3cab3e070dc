# SPDX-License-Identifier: Apache-2.0
"""The planner's answers: what was heard goes to the conversation, what it writes to the avatar and to the rules.

The rules stay the conductor: they decide when the face listens, thinks and speaks. An answer tells them that it is
being made, and how a sentence of it is to be said once it sounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from flowact_msgs.msg import Transcript
from flowact_ros.dialogue.conversation import Conversation, ReplyEnded
from flowact_ros.dialogue.planner import AnswerPending, Event, Instruction, SpeechPlan
from flowact_ros.dialogue.proactive import GREETING, INVITATION, Proactive
from flowact_ros.dialogue.turn import RULES
from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.planner_settings import ConversationFactory
from flowact_ros.nodes.reply_speaker import ReplySpeaker

FLOOR_S = 1.0  # a user who spoke again: what he said may still have to be recognised
OVERLAP_S = (
    0.5  # of a user's words with the avatar's: more of it is an echo, where the microphone hears the avatar
)


class Answers:
    """From activation to deactivation; all in the executor.

    observe, listens: the rules' ear, and whether they listen to the user; now_s: their clock, for any thread.
    """

    def __init__(
        self,
        node: FlowactNode,
        factory: ConversationFactory,
        observe: Callable[[Event], None],
        listens: Callable[[], bool],
        now_s: Callable[[], float],
        proactive: bool,
    ) -> None:
        self._node, self._factory = node, factory
        self._observe, self._listens, self._now_s = observe, listens, now_s
        self._woken = node.create_guard_condition(node.guard(self._on_news, "an answer"))
        node.add_entity(lambda: node.destroy_guard_condition(self._woken))
        self._speaker = ReplySpeaker(node, self._user_is_silent, self._on_heard)
        self.conversation: Conversation = factory.make(self._woken.trigger, now_s)
        self._proactive = Proactive() if proactive else None
        self._pending = False
        self._floor_until_s = float("-inf")
        self._last_heard = ""  # utterance_id of the transcript answered last
        self._last: ReplyEnded | None = None
        self._voice: deque[np.ndarray] = deque()
        self._voice_rate = 16_000

    def close(self) -> None:
        """Deactivation."""
        self._speaker.cancel()
        self.conversation.close()

    # ------------------------------------------------------------ what comes in

    def heard_sound(self, pcm: np.ndarray, rate: int) -> None:
        """float32 mono [T] of the microphone: the last seconds are kept for a model that hears."""
        if not self._factory.hear_voice_s:
            return
        if rate != self._voice_rate:
            self._voice.clear()
            self._voice_rate = rate
        self._voice.append(pcm)
        surplus = sum(map(len, self._voice)) - int(self._factory.hear_voice_s * rate)
        while surplus >= len(self._voice[0]) > 0:
            surplus -= len(self._voice.popleft())

    def voice(self, now_s: float, voiced: bool) -> None:
        """The user began or stopped speaking."""
        if self._proactive is not None:
            self._proactive.voice(now_s, voiced)
        if voiced and self._pending:
            self._floor_until_s = float("inf")
        elif not voiced and self._floor_until_s == float("inf"):
            self._floor_until_s = now_s + FLOOR_S

    def transcript(self, message: Transcript, now_s: float) -> None:
        """The final text of what was heard."""
        if message.utterance_id and message.utterance_id == self._last_heard:
            return  # the same again
        self._last_heard = message.utterance_id
        sound = np.concatenate(self._voice) if self._voice else None
        if not message.text.strip():
            self._floor_until_s = min(
                self._floor_until_s, now_s
            )  # nothing was understood: nothing more will come
            return
        answered = self.conversation.hear(
            message.text, now_s, picture=self._factory.picture, sound=sound, sound_rate=self._voice_rate
        )
        if answered:
            self._speaker.cancel()  # of the answer before
            self._floor_until_s = float("-inf")
            if self._proactive is not None:
                self._proactive.answered(now_s)
        self._settle(now_s)

    def interrupted(self, now_s: float) -> None:
        """The user broke into it."""
        if self._pending:
            self.conversation.interrupt()
            self._speaker.cancel()
            self._settle(now_s)

    def tick(self, now_s: float) -> None:
        """Time passes."""
        self.conversation.tick(now_s)
        self._speaker.tend()
        if self._proactive is not None:
            if self._speaker.busy or self.conversation.answering:
                self._proactive.speaking(now_s)
            persona = self.conversation.persona
            texts = {GREETING: persona.greeting, INVITATION: persona.invitation}
            self.conversation.volunteer(texts.get(self._proactive.due(now_s), ""), now_s)
        self._settle(now_s)

    # ------------------------------------------------------------ what goes out

    def _user_is_silent(self) -> bool:
        """An answer may begin; once it has, what breaks into it is a barge-in."""
        return not self._listens() and self._now_s() >= self._floor_until_s

    def _on_news(self) -> None:
        now_s = self._now_s()
        for event in self.conversation.take():
            if isinstance(event, ReplyEnded):
                self._last = event
                self._node.get_logger().debug(f"answer {event.turn}: {event}")
                if event.reason and event.source == RULES:
                    self._node.report(f"answered by the persona's rules: {event.reason}")
                elif event.reason:
                    self._node.report(f"the model's answer broke off: {event.reason}")
            elif isinstance(event, Instruction):
                self._observe(SpeechPlan(now_s, event.utterance_id, event.behaviour, event.text))
            elif not self.conversation.stale(event.utterance_id):
                self._speaker.say(event.utterance_id, event.text)
        self._settle(now_s)

    def _on_heard(self, utterance_id: str, spoken: str, broken: bool) -> None:
        self.conversation.spoken(utterance_id, spoken)
        if broken and not self.conversation.stale(utterance_id):
            # By `interrupt` or by another goal: what was to follow is not wanted either.
            self.conversation.interrupt()
            self._speaker.cancel()

    def _settle(self, now_s: float) -> None:
        """The rules hear when an answer begins to be made, and when all of it was said."""
        pending = self.conversation.answering or self._speaker.busy
        if pending != self._pending:
            self._pending = pending
            self._observe(AnswerPending(now_s, pending))

    def values(self) -> dict[str, Any]:
        """For diagnostics."""
        counts, last = self.conversation.counts, self._last
        values: dict[str, Any] = {
            "planner_backend": self._factory.backend,
            "persona": self.conversation.persona.name,
            "model_ready": self.conversation.ready,
            **vars(counts),
        }
        if self.conversation.last_error:
            values["last_model_error"] = self.conversation.last_error
        if last is not None:
            values["last_source"] = last.source
            for name in ("first_token_s", "first_sentence_s", "whole_s"):
                if (value := getattr(last, name)) is not None:
                    values[name] = round(value, 3)
        return values
