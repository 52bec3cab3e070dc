# SPDX-License-Identifier: Apache-2.0
"""What was said so far, as the user heard it: an answer that was broken off stands there up to where it was."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowact_ros.dialogue.language_model import ASSISTANT, SYSTEM, USER, Message

CUT = " …"  # after what was broken off: the model sees that the user did not hear the rest


@dataclass
class _Sentence:
    text: str
    heard: str | None = None  # not known yet


@dataclass
class _Turn:
    user: str  # empty if the character spoke by itself
    sentences: dict[str, _Sentence] = field(default_factory=dict)  # by utterance

    def heard(self) -> str:
        parts = []
        for sentence in self.sentences.values():
            heard = sentence.heard or ""
            if heard:
                parts.append(heard)
            if heard != sentence.text:
                # What comes after a sentence that was not heard to its end was not heard either.
                return " ".join(parts) + (CUT if parts else "")
        return " ".join(parts)


class History:
    """At most the last `turns` of a conversation."""

    def __init__(self, turns: int) -> None:
        self._most = turns
        self._turns: list[_Turn] = []

    def asked(self, text: str) -> None:
        """The user said something (or nothing: the character speaks by itself); what is said next answers it."""
        if len(self._turns) >= self._most:
            # Half at once, not one each time: a model in this process reads anew all that follows what went.
            del self._turns[: (self._most + 1) // 2]
        self._turns.append(_Turn(text))

    def answering(self, utterance_id: str, text: str) -> None:
        """A sentence is on its way to the user."""
        if self._turns:
            self._turns[-1].sentences[utterance_id] = _Sentence(text)

    def spoken(self, utterance_id: str, heard: str) -> None:
        """It was said, up to here."""
        for turn in self._turns:
            sentence = turn.sentences.get(utterance_id)
            if sentence is not None:
                # White space is the synthesizer's business.
                whole = " ".join(heard.split()) == " ".join(sentence.text.split())
                sentence.heard = sentence.text if whole else heard.strip()

    def messages(self, system: str) -> list[Message]:
        """For a model, oldest first: user and assistant in turn, since many models know no other order."""
        messages = [Message(SYSTEM, system)]
        for turn in self._turns:
            for role, text in ((USER, turn.user), (ASSISTANT, turn.heard())):
                if not text:
                    continue
                last = messages[-1]
                if last.role == role:
                    messages[-1] = Message(role, f"{last.text}\n{text}")
                elif last.role == SYSTEM and role == ASSISTANT:
                    messages += [
                        Message(USER, "Hello."),
                        Message(role, text),
                    ]  # it greeted somebody who said nothing
                else:
                    messages.append(Message(role, text))
        return messages
