# SPDX-License-Identifier: Apache-2.0
"""What the avatar is told to do, besides speech: a pure table of instructions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from flowact_ros.vocabulary import BEHAVIOURS

MAX_TEXT = 4000  # characters of an instruction
_KEPT = 64  # instructions that wait for their utterance


@dataclass(frozen=True)
class Instruction:
    """text: free description for the text encoder; behaviour: one of BEHAVIOURS or "" (from the speech itself);
    priority: see SessionConfig.urgent_from; utterance_id: the speech that it goes with.

    Raises ValueError on an unknown behaviour or a text that is too long.
    """

    text: str = ""
    behaviour: str = ""
    priority: int = 0
    utterance_id: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"instruction text is {type(self.text).__name__}: a string is needed")
        if len(self.text) > MAX_TEXT:
            raise ValueError(
                f"instruction text has {len(self.text)} characters: at most {MAX_TEXT} are taken"
            )
        if self.behaviour and self.behaviour not in BEHAVIOURS:
            raise ValueError(f"behaviour is {self.behaviour!r}: one of {', '.join(BEHAVIOURS)} is needed")

    @property
    def prompt(self) -> str:
        """What the text encoder reads."""
        return self.text or self.behaviour


class Instructions:
    """The standing instruction, and those that wait until their utterance sounds.

    Looking one up changes nothing, so a rewind needs no copy of this table.
    """

    def __init__(self) -> None:
        self._standing = Instruction()
        self._count = 0
        self._standing_order = 0
        self._waiting: OrderedDict[str, tuple[int, Instruction]] = OrderedDict()

    def set(self, instruction: Instruction, *, wait: bool) -> bool:
        """Takes an instruction: for now, or (`wait`) from the moment that its utterance sounds.

        False, and nothing changes, if one of higher priority is in force for the same utterance.
        """
        name, present = instruction.utterance_id, self.at(instruction.utterance_id)
        if name and present.utterance_id == name and present.priority > instruction.priority:
            return False
        self._count += 1
        if not wait:
            self._standing, self._standing_order = instruction, self._count
            return True
        self._waiting[instruction.utterance_id] = (self._count, instruction)
        self._waiting.move_to_end(instruction.utterance_id)
        while len(self._waiting) > _KEPT:
            self._waiting.popitem(last=False)
        return True

    def at(self, utterance_id: str) -> Instruction:
        """The instruction in force while `utterance_id` sounds ("" for silence): the newest that applies."""
        order, instruction = self._waiting.get(utterance_id, (0, None))
        return instruction if instruction is not None and order > self._standing_order else self._standing
