# SPDX-License-Identifier: Apache-2.0
"""Plays the user of a conversation: says the turns of a script into `mic`, and waits for the answer of each.

python -m flowact_ros.nodes.scripted_user --ros-args -r __ns:=/avatar -p script:=config/dialogue.yaml

The process ends when the last turn was answered.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from flowact_ros.dialogue.script import ScriptTurn, load_script, sound_of
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, run, tell_supervisor
from flowact_ros.nodes.dialogue_watch import DialogueWatch, TurnTimes
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.nodes.user_voice import UserVoice

READY_S = 120.0  # for a recogniser and a language model to be loaded
TAIL_S = 1.0  # of a face at rest after the last answer


def play(
    turns: Sequence[tuple[ScriptTurn, np.ndarray]],
    voice: UserVoice,
    watch: DialogueWatch,
    tell: Callable[[int, TurnTimes], None] = lambda number, times: None,
) -> list[TurnTimes]:
    """Says (turn, its sound) one after the other; `tell` hears of each when it was answered, or was not."""
    played: list[TurnTimes] = []
    for number, (turn, pcm) in enumerate(turns):
        before = played[-1] if played else None
        breaks = turn.break_in_s is not None and before is not None and before.spoken_s is not None
        if breaks:
            watch.sleep(max(0.0, before.spoken_s + turn.break_in_s - time.monotonic()))
        else:
            watch.wait_quiet()
        if watch.stopped:
            break
        times = watch.begin(turn.say, breaks)
        began_s, ended_s = voice.say(pcm)
        watch.ended(began_s, ended_s)
        voice.transcribe(turn.say, began_s, ended_s)
        if not watch.wait_spoken(times) and watch.stopped:
            break
        played.append(times)
        tell(number, times)
    watch.wait_quiet()
    return played


class ScriptedUser(FlowactNode):
    """Thin: the script is read by `dialogue/script`, turns are played in a thread."""

    PARAMETERS = (
        Param("script", "", "YAML file with the user's turns"),
        Param("transcribe", False, "Publish the script's words as transcript, in place of a recogniser"),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("scripted_user", **options)
        self.finished = threading.Event()
        self._watch: DialogueWatch | None = None
        self._thread: threading.Thread | None = None
        self._played = 0

    def load(self) -> None:
        if not self.params["script"]:
            raise ParameterError("parameter script: must name the YAML file with the turns")
        script = load_script(self.params["script"])
        self._turns = [(turn, sound_of(turn, script)) for turn in script.turns]

    def begin(self) -> None:
        self._watch = DialogueWatch(self)
        self._voice = UserVoice(self, transcribes=self.params["transcribe"])
        self._thread = threading.Thread(target=self.guard(self._play, "script"), name="script", daemon=True)
        self._thread.start()

    def end(self) -> None:
        if self._watch is not None and self._thread is not None:
            self._watch.stop()
            self._thread.join(timeout=30.0)  # a turn that is being said is said to its end
            self._voice.close()
            self._watch.close()
        self._watch = self._thread = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        return 0, f"{self._played} turns played", {"turns": self._played}

    def _play(self) -> None:
        watch, voice = self._watch, self._voice
        assert watch is not None
        try:
            if not self._wait_ready(watch, voice):
                return
            times = play(self._turns, voice, watch, self._on_turn)
            watch.sleep(TAIL_S)
            answered = sum(turn.spoken_s is not None for turn in times)
            tell_supervisor(event="played", turns=len(times), answered=answered)
        finally:
            self.finished.set()

    def _wait_ready(self, watch: DialogueWatch, voice: UserVoice) -> bool:
        """False if the node stops meanwhile. Raises RuntimeError."""
        deadline = time.monotonic() + READY_S
        while not (watch.ready and voice.heard and self.count_publishers(topics.TRANSCRIPT)):
            if watch.stopped:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"nobody to talk to within {READY_S:.0f} s: an avatar, a recogniser and a planner with a persona "
                    "whose model is loaded are needed"
                )
            watch.sleep(0.2)
        watch.sleep(TAIL_S)  # the face is seen before it is spoken to
        return not watch.stopped

    def _on_turn(self, number: int, times: TurnTimes) -> None:
        self._played = number + 1
        if times.spoken_s is None:
            self.report(f"turn {number + 1} ({times.said!r}) was not answered")


def main(args: list[str] | None = None) -> int:
    return run(ScriptedUser, args)


if __name__ == "__main__":
    sys.exit(main())
