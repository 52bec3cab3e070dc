# SPDX-License-Identifier: Apache-2.0
"""Has the service `synthesize` speak the sentences of `say` goals, a little before they are needed.

One request at a time, in the order of the goals: a long text starts as soon as its first sentence is there, and what
is interrupted was not made for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowact_msgs.action import Say
from flowact_msgs.srv import Synthesize
from flowact_ros.dialogue.speech import Word
from flowact_ros.media.resample import resample
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import one_line
from flowact_ros.nodes.convert import NANOSECONDS, ConversionError, audio_array
from flowact_ros.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from builtin_interfaces.msg import Duration

    from flowact_ros.nodes.base import FlowactNode
    from flowact_ros.nodes.say_goal import SayGoal

PREFETCH_S = 6.0  # sound that waits to be said while more is made: the next sentence, nearly always
SERVICE_WAIT_S = 3.0  # for a synthesizer that is just being found
ANSWER_WAIT_S = 20.0  # for one sentence
# A synthesizer that was killed in mid-sentence has been started again by then, and a middleware may lose an answer. One
# that is only slow makes the sentence twice; what comes first is said.
ASK_AGAIN_S = 6.0


@dataclass
class _Asked:
    """A sentence that is made, since when, and the requests for it."""

    goal: SayGoal
    sentence: str
    since: float
    requests: list[Any] = field(default_factory=list)


class SentenceMaker:
    """Used in the executor alone. on_sound: called when a goal got more sound, or will get none."""

    def __init__(self, node: FlowactNode, on_sound: Callable[[], None]) -> None:
        self._node, self._on_sound = node, on_sound
        self._name = node.resolve_service_name(topics.SYNTHESIZE)
        self._client = node.create_client(Synthesize, topics.SYNTHESIZE)
        node.add_entity(lambda: node.destroy_client(self._client))
        self._pending: _Asked | None = None
        self._missing_since: float | None = None

    def tend(self, goals: Sequence[SayGoal], queued_s: float, now: float) -> None:
        """Asks for the next sentence when it is time. queued_s: speech that waits in the engine."""
        self._drop_if_useless(now)
        self._ask_again(now)
        goal = next((g for g in goals if g.sentences), None)
        if goal is None:
            self._missing_since = None
        if goal is None or self._pending is not None or queued_s + sum(g.ready_s for g in goals) > PREFETCH_S:
            return
        if not self._client.service_is_ready():
            self._missing_since = now if self._missing_since is None else self._missing_since
            if now - self._missing_since > SERVICE_WAIT_S:
                goal.fail(
                    Say.Result.NO_SYNTHESIZER,
                    f"no speech synthesizer serves {self._name}: start one (`ros2 run flowact_ros "
                    f"speech_synthesizer`, `flowact up` and `flowact demo` have one), or send audio",
                )
            return
        self._missing_since = None
        goal.asked = True  # first, since the pacing thread asks whether the goal is complete
        self._pending = _Asked(goal, goal.sentences.popleft(), now)
        self._ask(self._pending)

    def _ask(self, asked: _Asked) -> None:
        future = self._client.call_async(Synthesize.Request(text=asked.sentence))
        asked.requests.append(future)
        future.add_done_callback(self._node.guard(lambda done: self._answered(asked, done), topics.SYNTHESIZE))

    def _ask_again(self, now: float) -> None:
        """Once, when no answer came and somebody is there to ask."""
        asked = self._pending
        if asked is None or len(asked.requests) > 1 or now - asked.since < ASK_AGAIN_S:
            return
        if self._client.service_is_ready():
            self._ask(asked)

    def _forget(self, asked: _Asked) -> None:
        for request in asked.requests:
            if not request.done():
                self._client.remove_pending_request(request)
                request.cancel()
        self._pending = None

    def _drop_if_useless(self, now: float) -> None:
        """Stops waiting: for a goal that was cut meanwhile, or for ever."""
        if self._pending is None:
            return
        goal = self._pending.goal
        late = now - self._pending.since > ANSWER_WAIT_S
        if late and goal.cut is None:
            goal.fail(Say.Result.SYNTHESIZER_ERROR, f"no answer of {self._name} within {ANSWER_WAIT_S:g} s")
            goal.asked = False
        if late or goal.cut is not None:
            self._forget(self._pending)

    def _answered(self, asked: _Asked, future: Any) -> None:
        if self._pending is not asked or future.cancelled():
            return
        self._forget(asked)
        goal = asked.goal
        try:
            if goal.cut is None:
                self._take(goal, asked.sentence, future.result())
        except Exception as error:  # the goal must get its result, whatever it was
            if not isinstance(error, ConversionError):
                self._node.report(error, topics.SYNTHESIZE)
            goal.fail(Say.Result.SYNTHESIZER_ERROR, f"{self._name}: {one_line(error)}")
        finally:
            goal.asked = False  # at last: the pacing thread asks whether the goal is complete
        self._on_sound()

    def _take(self, goal: SayGoal, sentence: str, answer: Synthesize.Response) -> None:
        """Raises ConversionError for sound that cannot be."""
        if answer.error_code == Synthesize.Response.NONE:
            pcm, rate = audio_array(answer.audio)
            sound = resample(pcm, rate, SAMPLE_RATE)
            goal.take(sentence, sound, SAMPLE_RATE, _words(answer.words, len(sound) / SAMPLE_RATE))
        elif answer.error_code == Synthesize.Response.NOT_ACTIVE:
            goal.fail(Say.Result.NO_SYNTHESIZER, answer.error_msg or "the speech synthesizer is not active")
        elif answer.error_code != Synthesize.Response.NOTHING_TO_SAY:  # such a sentence is passed over
            goal.fail(Say.Result.SYNTHESIZER_ERROR, answer.error_msg or f"error {answer.error_code}")


def _words(words: Sequence[Any], seconds: float) -> list[Word]:
    """Those of the answer whose times are in order and within its sound."""
    found: list[Word] = []
    for word in words:
        start, end = _seconds(word.start), min(_seconds(word.end), seconds)
        if word.text and 0.0 <= start < end and (not found or start >= found[-1].start_s):
            found.append(Word(word.text, start, end))
    return found


def _seconds(duration: Duration) -> float:
    return duration.sec + duration.nanosec / NANOSECONDS
