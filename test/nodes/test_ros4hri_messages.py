# SPDX-License-Identifier: Apache-2.0
"""Messages of ROS4HRI, where its packages are installed; here plain classes with their fields stand in for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ros4hri_stand_ins import install
from std_msgs.msg import Header

from flowact_msgs.msg import Instruction, Transcript
from flowact_ros.dialogue.speech import Word
from flowact_ros.dialogue.speech_text import SpokenText
from flowact_ros.nodes import topics
from flowact_ros.nodes.captions import SILENT_FRAMES, CaptionPublisher
from flowact_ros.nodes.live_speech import live_speech, live_speech_type
from flowact_ros.nodes.skill_expression import SKILL_EXPRESSION
from flowact_ros.nodes.skills import Skills


@dataclass
class Heard:
    header: Header = field(default_factory=Header)
    incremental: str = ""
    final: str = ""
    confidence: float = 0.0


@dataclass
class LiveSpeech(Heard):
    locale: str = ""


@dataclass
class OlderLiveSpeech(Heard):
    language: str = ""


@dataclass
class ClosedCaption:
    SPEAKER_ID_SYSTEM = "__system__"
    SPEAKER_ID_UNKNOWN = "__unknown__"
    speaker_id: str = ""
    text: str = ""
    locale: str = ""


class Board:
    """Stands in for a node: keeps what is published, and callbacks, by their topic."""

    def __init__(self) -> None:
        self.shown: dict[str, list[Any]] = {}
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def add_publisher(self, kind: type, name: str) -> Any:
        self.shown[name] = []
        return SimpleNamespace(publish=self.shown[name].append)

    def add_subscription(
        self, kind: type, name: str, callback: Callable[[Any], None], qos: Any = None
    ) -> None:
        self.callbacks[name] = callback


def test_live_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hri_msgs", None)
    assert live_speech_type() is None
    monkeypatch.delitem(sys.modules, "hri_msgs")
    install(monkeypatch, "hri_msgs", "msg", LiveSpeech=LiveSpeech)
    assert live_speech_type() is LiveSpeech
    partial = Transcript(text="good mor", locale="en-GB", confidence=-1.0)
    partial.header.stamp.sec = 7
    heard = live_speech(LiveSpeech, partial)
    assert (heard.incremental, heard.final, heard.confidence) == ("good mor", "", 0.0)
    assert heard.header.stamp.sec == 7 and heard.locale == "en_GB"
    heard = live_speech(
        OlderLiveSpeech, Transcript(text="good day", locale="en-GB", final=True, confidence=0.5)
    )
    assert (heard.incremental, heard.final, heard.confidence) == ("", "good day", 0.5)
    assert heard.language == "en-GB"


def test_captions_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hri_actions_msgs", None)
    board = Board()
    CaptionPublisher(board)
    assert topics.CLOSED_CAPTIONS not in board.shown


def test_a_closed_caption_is_a_whole_sentence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "hri_actions_msgs", "msg", ClosedCaption=ClosedCaption)
    board = Board()
    captions = CaptionPublisher(board)
    closed = board.shown[topics.CLOSED_CAPTIONS]

    def leave(name: str, frames: int, said: SpokenText | None = None) -> None:
        for k in range(frames):
            frame = SimpleNamespace(speaking=bool(name), utterance_id=name)
            captions.frame_left(frame, k * 40_000_000, None if said is None else (said, (k + 1) / 25))

    text = SpokenText()
    text.add("Good morning.", 0.0, 1.0, [Word("Good", 0.1, 0.4), Word("morning", 0.4, 0.8)])
    text.add("Bye!", 1.12, 2.0, [Word("Bye", 0.1, 0.5)])
    leave("hello", 5, text)
    assert closed == [ClosedCaption("__system__", "Good morning.")]  # while its first word sounds
    leave("hello", 60, text)
    leave("", SILENT_FRAMES)
    assert [caption.text for caption in closed] == ["Good morning.", "Bye!"]
    board.callbacks[topics.SPEECH_TEXT](Transcript(utterance_id="tts", text="By another."))
    leave("tts", 20)
    leave("", SILENT_FRAMES)
    assert [caption.text for caption in closed[2:]] == ["By another."]
    for message in (
        Transcript(text="where is", locale="pt-BR"),
        Transcript(text="where is it", locale="pt-BR", final=True),
        Transcript(text="", final=True),
    ):
        board.callbacks[topics.TRANSCRIPT](message)
    assert closed[3:] == [ClosedCaption("__unknown__", "where is it", "pt_BR")]


def expression(name: str, valence: float = 0.0, arousal: float = 0.0) -> Any:
    """A SetExpression: a goal's `meta`, and an hri_msgs/Expression."""
    return SimpleNamespace(expression=SimpleNamespace(expression=name, valence=valence, arousal=arousal))


def test_expressions_are_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    board, taken, speaking = Board(), [], [False]

    def attach() -> None:
        Skills(board).attach(lambda point: None, lambda: None, lambda: speaking[0], taken.append)

    attach()
    assert not board.callbacks  # nothing of ROS4HRI is here
    install(monkeypatch, "interaction_skills", "msg", SetExpression=object)
    attach()
    board.callbacks[SKILL_EXPRESSION](expression("happy"))
    assert (taken[-1].behaviour, taken[-1].text) == (Instruction.REACTING, "smiling warmly")
    assert taken[-1].priority == Instruction.PRIORITY_URGENT
    board.callbacks[SKILL_EXPRESSION](expression("", valence=-0.8, arousal=-0.4))
    assert taken[-1].text == "speaking with a concerned look"
    speaking[0] = True
    board.callbacks[SKILL_EXPRESSION](expression("happy"))
    assert (taken[-1].behaviour, taken[-1].text) == (Instruction.SPEAKING, "speaking cheerfully with a smile")
    with pytest.raises(ValueError, match="'asleep' cannot be shown: must be one of neutral, happy"):
        board.callbacks[SKILL_EXPRESSION](expression("asleep"))
    assert len(taken) == 3
