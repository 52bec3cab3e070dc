# SPDX-License-Identifier: Apache-2.0
"""What the character does next, from what is heard and said: the behaviour states of the paper's planner.

A planner is a pure state machine: events with times go in, instructions come out; no clock, no thread inside.
`RulePlanner` needs no model; one that asks a language model for the behaviour fits the same protocol.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Protocol

IDLE, LISTENING, THINKING, SPEAKING, REACTING = "idle", "listening", "thinking", "speaking", "reacting"
BEHAVIOURS = (IDLE, LISTENING, THINKING, SPEAKING, REACTING)

PRIORITY_NORMAL = 0
PRIORITY_URGENT = 200  # as in Instruction.msg: frames made ahead are dropped and made again


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
class SpeechData:
    """Sound for the avatar's mouth arrived."""

    time_s: float
    utterance_id: str = ""


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


Event = Tick | UserVoice | SpeechData | AvatarSpeaking | UserText


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


WORDINGS: dict[str, tuple[str, ...]] = {
    IDLE: (
        "idle, relaxed, breathing calmly",
        "waiting calmly with a friendly face",
        "at rest, looking around now and then",
    ),
    LISTENING: (
        "listening closely, nodding now and then",
        "listening with interest, leaning forward a little",
        "paying attention to the speaker",
    ),
    THINKING: (
        "thinking, looking away for a moment",
        "considering the answer, hand to the chin",
        "pondering with a slight frown",
    ),
    SPEAKING: (
        "speaking in a friendly way, with natural gestures",
        "explaining something, gesturing on stressed words",
        "talking to the viewer",
    ),
}
REACTIONS: dict[str, tuple[str, ...]] = {
    "smile": ("smiling warmly", "reacting with a warm smile"),
    "laugh": ("laughing", "laughing heartily"),
    "surprise": ("surprised, eyebrows raised", "reacting with surprise"),
}
# Words of the user that call for a reaction; whole words, any case.
_KEYWORDS = (
    ("laugh", r"laugh|haha+|funny|joke|hilarious|lol"),
    ("surprise", r"surprise[ds]?|wow|really\?|unbelievable|amazing|incredible"),
    ("smile", r"smile|thanks?|thank you|lovely|nice|great|hello|hi|good morning"),
)
_KEYWORD_PATTERNS = tuple(
    (kind, re.compile(rf"\b(?:{words})(?!\w)", re.IGNORECASE)) for kind, words in _KEYWORDS
)


def reaction_to(text: str) -> str | None:
    """The reaction a text calls for ("laugh", "surprise", "smile"), or None. The strongest wins."""
    for kind, pattern in _KEYWORD_PATTERNS:
        if pattern.search(text):
            return kind
    return None


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
    dwell_s: float = 0.6  # a state is shown at least so long, urgent changes excepted
    seed: int = 0  # of the choice among wordings

    def __post_init__(self) -> None:
        for name in ("speech_timeout_s", "speech_hold_s", "thinking_timeout_s", "reaction_s", "dwell_s"):
            value = getattr(self, name)
            if not 0.0 <= value <= 60.0:
                raise PlannerError(f"{name} must be 0 … 60 s, not {value:g}")


class RulePlanner:
    """Behaviour by rules, the strongest first:

    1. the user's voice: LISTENING, urgent (while the avatar speaks only with `barge_in`, and then it interrupts);
    2. speech arrives or is being spoken: SPEAKING;
    3. the user said something that calls for it: REACTING for `reaction_s`;
    4. the user has stopped and no answer has come yet: THINKING, at most `thinking_timeout_s`;
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
        self._avatar_speaking = False
        self._speech_until = float("-inf")
        self._utterance_id = ""
        self._cut_id = ""  # the utterance that the user broke into: its late sound is not heard of any more
        self._thinking_until = float("-inf")
        self._reaction = ""
        self._reaction_until = float("-inf")
        self._last_wording: dict[str, str] = {}

    @property
    def behaviour(self) -> str:
        """The behaviour last instructed; empty before the first event."""
        return self._behaviour

    def observe(self, event: Event) -> Instruction | None:
        # Sources have slightly different delays: time never runs backwards in here.
        if not isinstance(event, (Tick, UserVoice, SpeechData, AvatarSpeaking, UserText)):
            raise PlannerError(f"unknown event {type(event).__name__}")
        now = self._now = max(self._now, event.time_s)
        fresh_reaction = broken_into = False
        if isinstance(event, UserVoice):
            if self._user_voiced and not event.voiced:
                self._thinking_until = now + self.config.thinking_timeout_s
            if event.voiced and not self._user_voiced:
                self._voiced_since = now
            self._user_voiced = event.voiced
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
                self._utterance_id = event.utterance_id
                self._thinking_until = float("-inf")
        elif isinstance(event, UserText):
            kind = reaction_to(event.text) if event.final else None
            if kind is not None:
                self._reaction, self._reaction_until = kind, now + self.config.reaction_s
                fresh_reaction = True
        return self._decide(now, fresh_reaction, broken_into)

    def _speech(self, now: float) -> bool:
        return self._avatar_speaking or now < self._speech_until

    def _wanted(self, now: float) -> str:
        speech = self._speech(now)
        if self._user_voiced and (self.config.barge_in or not speech):
            return LISTENING
        if speech:
            return SPEAKING
        if now < self._reaction_until:
            return REACTING
        if now < self._thinking_until:
            return THINKING
        return IDLE

    def _decide(self, now: float, fresh_reaction: bool, broken_into: bool = False) -> Instruction | None:
        wanted = self._wanted(now)
        again = (wanted == REACTING and fresh_reaction) or (wanted == LISTENING and broken_into)
        if wanted == self._behaviour and not again:
            return None
        urgent = wanted == LISTENING
        if self._behaviour and not urgent and wanted != SPEAKING and now - self._since < self.config.dwell_s:
            return None  # asked again at the next event: a Tick at the latest
        interrupts = urgent and self._speech(now)
        if interrupts:
            self._cut_id = self._utterance_id
            self._avatar_speaking, self._speech_until = False, float("-inf")
        self._behaviour, self._since = wanted, now
        return Instruction(
            behaviour=wanted,
            text=self._wording(wanted),
            priority=PRIORITY_URGENT if urgent else PRIORITY_NORMAL,
            utterance_id=self._utterance_id if wanted == SPEAKING else "",
            interrupts=interrupts,
        )

    def _wording(self, behaviour: str) -> str:
        """Any wording of the behaviour but the one used last time."""
        texts = REACTIONS[self._reaction] if behaviour == REACTING else WORDINGS[behaviour]
        choice = self._random.choice([text for text in texts if text != self._last_wording.get(behaviour)])
        self._last_wording[behaviour] = choice
        return choice
