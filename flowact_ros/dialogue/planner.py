# SPDX-License-Identifier: Apache-2.0
"""What the character does next, from what is heard and said: the behaviour states of the paper's planner.

A planner is a pure state machine: events with times go in, instructions come out; no clock, no thread inside.
`RulePlanner` needs no model; one that asks a language model for the behaviour fits the same protocol.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, Protocol

from flowact_ros.dialogue.phrases import MANNERS, NODS, REACTIONS, WORDINGS, greets, manner_of, reaction_to
from flowact_ros.vocabulary import (
    IDLE,
    LISTENING,
    PRIORITY_NORMAL,
    PRIORITY_URGENT,
    REACTING,
    SPEAKING,
    THINKING,
)

_NODDING = "nodding"  # beside the manners of speaking
_TEXTS = 64  # of utterances that are remembered
_MORE_PATIENCE = 1.5  # times as long a pause, after one that was taken for the end and was not


class PlannerError(ValueError):
    """A setting of the planner, or an event given to it, makes no sense."""


@dataclass(frozen=True)
class Tick:
    """Time passes."""

    time_s: float


@dataclass(frozen=True)
class UserVoice:
    """The user began (`voiced`) or stopped speaking."""

    time_s: float
    voiced: bool


@dataclass(frozen=True)
class UserPause:
    """Within what the user says he has been silent for `silent_s` [s] so far; 0: his voice goes on.

    A breath, a comma or the end: that is known when `UserVoice` tells of it.
    """

    time_s: float
    silent_s: float


@dataclass(frozen=True)
class SpeechData:
    """Sound for the avatar's mouth arrived."""

    time_s: float
    utterance_id: str = ""


@dataclass(frozen=True)
class SpeechText:
    """What the avatar says or is about to say, where that is known: with its sound or shortly before."""

    time_s: float
    utterance_id: str
    text: str


@dataclass(frozen=True)
class AvatarSpeaking:
    """Speech began or stopped leaving with the frames. `began_s`: since when it does so, where that is known.

    News of it may come late (a planner that has just found its avatar): a voice that began later broke into it.
    """

    time_s: float
    speaking: bool
    utterance_id: str = ""
    began_s: float | None = None


@dataclass(frozen=True)
class UserText:
    """What the user said, recognised."""

    time_s: float
    text: str
    final: bool = True


@dataclass(frozen=True)
class AnswerPending:
    """An answer began to be made (`pending`), or is complete and said: until then a silent face thinks."""

    time_s: float
    pending: bool


@dataclass(frozen=True)
class SpeechPlan:
    """How an utterance is to be said, by who wrote it: instead of what its words would call for."""

    time_s: float
    utterance_id: str
    behaviour: str
    text: str


Event = (
    Tick
    | UserVoice
    | UserPause
    | SpeechData
    | SpeechText
    | AvatarSpeaking
    | UserText
    | AnswerPending
    | SpeechPlan
)


@dataclass(frozen=True)
class Instruction:
    """What the engine is told: a behaviour state and the words that condition the model."""

    behaviour: str
    text: str
    priority: int = PRIORITY_NORMAL
    utterance_id: str = ""
    interrupts: bool = False  # a barge-in: what is being said is to stop


class Planner(Protocol):
    """Events in, in the order of their times; an instruction out when the character is to change."""

    def observe(self, event: Event) -> Instruction | None: ...


@dataclass(frozen=True)
class RulePlannerConfig:
    """Times in seconds."""

    barge_in: bool = False  # the user's voice counts while the avatar speaks: needs a mic without echo
    speech_timeout_s: float = 0.6  # this long without speech data and without speaking: the speech is over
    speech_hold_s: float = (
        0.4  # silence of the avatar shorter than this is a pause, not the end; echo dies meanwhile
    )
    thinking_timeout_s: float = 4.0  # after the user stopped, if no answer comes
    reaction_s: float = 1.8
    announced_s: float = 2.0  # from a text until its sound must have come
    greeting_s: float = 2.0  # of a sentence that greets: then it is said as the rest of it asks for
    think_after_s: float = 0.12  # of a pause that may be the end: then the face thinks; 0: only at the end
    brief_s: float = 0.6  # of speech: what is shorter is hardly all that is to come
    nod_after_s: float = 2.5  # of the user's speech: then a pause in it is nodded at; 0: none is
    nod_pause_s: float = 0.25  # of such a pause: longer than a plosive's
    nod_s: float = 1.6
    dwell_s: float = 0.6  # a state is shown at least so long, urgent changes excepted
    seed: int = 0  # of the choice among wordings
    thinking: tuple[str, ...] = ()  # wordings of THINKING instead of our own

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_s")):
            value = getattr(self, name)
            if not 0.0 <= value <= 60.0:
                raise PlannerError(f"{name} must be 0 … 60 s, not {value:g}")


class RulePlanner:
    """Behaviour by rules, the strongest first:

    1. the user's voice: LISTENING, urgent (while the avatar speaks only with `barge_in`, and then it interrupts);
       a pause that may be the end: THINKING, urgent, until the voice goes on; shorter ones are nodded at, now and then.
       Whoever went on after such a pause is given more time at the next, and so is who has said hardly anything;
    2. speech arrives or is being spoken: SPEAKING, in the manner of its text where that is known; what greets, with
       a wave for `greeting_s`;
    3. the user said something that calls for it: REACTING for `reaction_s`;
    4. the user has stopped and no answer has come yet: THINKING, at most `thinking_timeout_s`, or for as long as an
       answer is known to be made;
    5. otherwise IDLE.
    """

    def __init__(self, config: RulePlannerConfig | None = None) -> None:
        self.config = config or RulePlannerConfig()
        self._random = random.Random(self.config.seed)
        self._behaviour = ""  # nothing said yet: the first event brings the first instruction
        self._since = 0.0
        self._now = float("-inf")
        self._user_voiced = False
        self._voiced_since = float("-inf")
        self._nods_until = float("-inf")
        self._patience_s = self.config.think_after_s  # with pauses in what the user says now
        self._seems_over = False  # what he says: a pause is long enough
        self._avatar_speaking = False
        self._speech_until = float("-inf")
        self._announced_until = float("-inf")  # a text has come, its sound is still to come
        self._utterance_id = ""
        self._cut_id = ""  # the utterance that the user broke into: its late sound is not heard of any more
        self._thinking_until = float("-inf")
        self._reaction = ""
        self._reaction_until = float("-inf")
        self._last_wording: dict[str, str] = {}
        self._texts: OrderedDict[str, tuple[bool, str]] = OrderedDict()  # (greets, manner) by utterance
        self._plans: OrderedDict[str, SpeechPlan] = OrderedDict()
        self._answer_pending = False
        self._sounding_id, self._sounds_since = "", 0.0  # the utterance that left last, and since when
        self._manner = ""  # last instructed

    @property
    def behaviour(self) -> str:
        """The behaviour last instructed; empty before the first event."""
        return self._behaviour

    @property
    def listens(self) -> bool:
        """The user speaks, or pauses in what he says, and it counts: it is not the avatar's turn."""
        return self._user_voiced and (self.config.barge_in or not self._speech(self._now))

    def observe(self, event: Event) -> Instruction | None:
        # Sources have slightly different delays: time never runs backwards in here.
        if not isinstance(event, Event):
            raise PlannerError(f"unknown event {type(event).__name__}")
        now = self._now = max(self._now, event.time_s)
        fresh_reaction = broken_into = False
        if isinstance(event, UserVoice):
            if self._user_voiced and not event.voiced:
                self._thinking_until = now + self.config.thinking_timeout_s
            if event.voiced != self._user_voiced:
                self._seems_over, self._patience_s = False, self.config.think_after_s
            if event.voiced and not self._user_voiced:
                self._voiced_since, self._nods_until = now, float("-inf")
            self._user_voiced = event.voiced
        elif isinstance(event, UserPause):
            self._pause(event.silent_s, now)
        elif isinstance(event, SpeechText):
            self._announce(event, now)
        elif isinstance(event, SpeechData):
            if event.utterance_id and event.utterance_id == self._cut_id:
                return self._decide(now, False)
            self._speech_until = now + self.config.speech_timeout_s
            self._utterance_id = event.utterance_id
            self._thinking_until = float("-inf")  # the answer has come
        elif isinstance(event, AvatarSpeaking):
            if event.speaking and event.utterance_id and event.utterance_id == self._cut_id:
                return self._decide(now, False)
            if self._avatar_speaking and not event.speaking:
                self._speech_until = max(self._speech_until, now + self.config.speech_hold_s)
            began = now if event.began_s is None else event.began_s
            broken_into = event.speaking and not self._speech(now) and began < self._voiced_since
            self._avatar_speaking = event.speaking
            if event.speaking:
                if event.utterance_id != self._sounding_id:
                    self._sounding_id, self._sounds_since = event.utterance_id, now
                self._utterance_id = event.utterance_id
                self._thinking_until = self._announced_until = float("-inf")
        elif isinstance(event, AnswerPending):
            self._answer_pending = event.pending
        elif isinstance(event, SpeechPlan):
            _remember(self._plans, event.utterance_id, event)
        elif isinstance(event, UserText):
            kind = reaction_to(event.text) if event.final else None
            if kind is not None:
                self._reaction, self._reaction_until = kind, now + self.config.reaction_s
                fresh_reaction = True
        return self._decide(now, fresh_reaction, broken_into)

    def _pause(self, silent_s: float, now: float) -> None:
        """A pause in what the user says goes on, or is over."""
        if not self._user_voiced:
            return
        brief = now - silent_s - self._voiced_since < self.config.brief_s
        went_on = self._seems_over and not silent_s
        if went_on:
            self._patience_s *= _MORE_PATIENCE
        self._seems_over = 0 < self._patience_s * (1 + brief) <= silent_s
        attended = now - max(self._voiced_since, self._nods_until)
        if (went_on or silent_s >= self.config.nod_pause_s) and 0 < self.config.nod_after_s <= attended:
            self._nods_until = now + self.config.nod_s

    def _announce(self, event: SpeechText, now: float) -> None:
        if event.utterance_id in ("", self._cut_id):
            return  # whose text it is nobody can tell, or it is not heard of any more
        if not self._speech(now):
            self._sounding_id = ""  # should it have the name of the one before: it begins anew
        _remember(self._texts, event.utterance_id, (greets(event.text), manner_of(event.text)))
        if not self._avatar_speaking:
            self._announced_until = now + self.config.announced_s
            self._utterance_id = event.utterance_id
            self._thinking_until = float("-inf")  # the answer has come

    def _spoken(self) -> str:
        """The utterance that sounds, or if none does the one that comes; what waits behind it has its turn later."""
        return self._sounding_id if self._avatar_speaking else self._utterance_id

    def _manner_now(self, now: float) -> str:
        spoken = self._spoken()
        greeting, manner = self._texts.get(spoken, (False, ""))
        begun = self._sounds_since if spoken == self._sounding_id else now
        return "greeting" if greeting and now < begun + self.config.greeting_s else manner

    def _speech(self, now: float) -> bool:
        return self._avatar_speaking or now < self._speech_until or now < self._announced_until

    def _wanted(self, now: float) -> str:
        speech = self._speech(now)
        if self.listens:
            return THINKING if self._seems_over else LISTENING
        if speech:
            return SPEAKING
        if now < self._reaction_until:
            return REACTING
        if now < self._thinking_until or self._answer_pending:
            return THINKING
        return IDLE

    def _decide(self, now: float, fresh_reaction: bool, broken_into: bool = False) -> Instruction | None:
        wanted = self._wanted(now)
        plan = self._plans.get(self._spoken()) if wanted == SPEAKING else None
        manner = plan.text if plan else self._manner_now(now) if wanted == SPEAKING else ""
        if wanted == LISTENING and now < self._nods_until:
            manner = _NODDING
        again = (wanted == REACTING and fresh_reaction) or (wanted == LISTENING and broken_into)
        again = again or manner != self._manner
        if wanted == self._behaviour and not again:
            return None
        attends = wanted == LISTENING and (broken_into or self._behaviour != LISTENING)
        if self._behaviour and not attends and wanted != SPEAKING and now - self._since < self.config.dwell_s:
            return None  # asked again at the next event: a Tick at the latest
        interrupts = attends and self._speech(now)
        if interrupts:
            self._cut_id = self._utterance_id
            self._avatar_speaking = False
            self._speech_until = self._announced_until = float("-inf")
        # What answers the user's voice and its pauses is to be seen while he can still tell why.
        urgent = attends or manner == _NODDING or (wanted == THINKING and self._behaviour == LISTENING)
        if wanted != self._behaviour:
            self._since = now  # a nod is no reason to listen for longer
        self._behaviour, self._manner = wanted, manner
        return Instruction(
            behaviour=plan.behaviour if plan else wanted,
            text=plan.text if plan else self._wording(wanted),
            priority=PRIORITY_URGENT if urgent else PRIORITY_NORMAL,
            utterance_id=self._spoken() if wanted == SPEAKING else "",
            interrupts=interrupts,
        )

    def _wording(self, behaviour: str) -> str:
        """Any wording of the behaviour but the one used last time."""
        texts = REACTIONS[self._reaction] if behaviour == REACTING else WORDINGS[behaviour]
        if behaviour == THINKING and self.config.thinking:
            texts = self.config.thinking
        texts = NODS if self._manner == _NODDING else MANNERS.get(self._manner, texts)
        others = [text for text in texts if text != self._last_wording.get(behaviour)]
        choice = self._random.choice(others or texts)
        self._last_wording[behaviour] = choice
        return choice


def _remember(table: OrderedDict[str, Any], utterance_id: str, value: Any) -> None:
    """As the newest of at most `_TEXTS`."""
    table[utterance_id] = value
    table.move_to_end(utterance_id)
    if len(table) > _TEXTS:
        table.popitem(last=False)
