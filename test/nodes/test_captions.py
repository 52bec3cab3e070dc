# SPDX-License-Identifier: Apache-2.0
"""Captions of both sides: word by word, and with the voice of a real synthesizer through a running generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ros_harness import LONG_S, Watcher, from_time, generator_spec, loud, over, speech_messages, supervise

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, Transcript
from flowact_ros.dialogue.speech import Word
from flowact_ros.dialogue.speech_text import SpokenText
from flowact_ros.launcher.supervisor import NodeSpec
from flowact_ros.nodes import topics
from flowact_ros.nodes.captions import AVATAR, SILENT_FRAMES, USER, CaptionPublisher


class Board:
    """Stands in for a node: keeps what is published and gives callbacks by their topic."""

    def __init__(self) -> None:
        self.shown: list[Transcript] = []
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def add_publisher(self, kind: type, name: str) -> Any:
        return SimpleNamespace(publish=self.shown.append)

    def add_subscription(self, kind: type, name: str, callback: Callable[[Any], None]) -> None:
        self.callbacks[name] = callback

    def texts(self) -> list[tuple[str, bool]]:
        return [(message.text, message.final) for message in self.shown]


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def captions(board: Board) -> CaptionPublisher:
    return CaptionPublisher(board)


def leave(
    captions: CaptionPublisher, name: str, frames: int, said: SpokenText | None = None, first: int = 0
) -> None:
    for k in range(first, first + frames):
        frame = SimpleNamespace(speaking=bool(name), utterance_id=name)
        captions.frame_left(frame, (1000 + k) * 40_000_000, None if said is None else (said, (k + 1) / 25))


def text() -> SpokenText:
    said = SpokenText()
    said.add("Good morning.", 0.0, 1.0, [Word("Good", 0.1, 0.4), Word("morning", 0.4, 0.8)])
    said.add("Bye!", 1.12, 2.0, [Word("Bye", 0.1, 0.5)])
    return said


def test_word_by_word(board: Board, captions: CaptionPublisher) -> None:
    leave(captions, "hello", 50, text())
    assert board.texts() == [("Good", False), ("Good morning.", False), ("Good morning.", True)] + [
        ("Bye!", False), ("Bye!", True)
    ]  # fmt: skip
    stamps = [from_time(m.header.stamp) // 40_000_000 - 1000 for m in board.shown]
    assert stamps == [2, 9, 19, 30, 40]  # the frames in which the words begin
    starts = [from_time(m.start) // 40_000_000 - 1000 for m in board.shown]
    assert starts == [2, 2, 2, 30, 30]
    assert {(m.utterance_id, m.header.frame_id) for m in board.shown} == {("hello", AVATAR)}


def test_an_interrupted_sentence_is_final_as_far_as_it_came(board: Board, captions: CaptionPublisher) -> None:
    leave(captions, "hello", 6, text())
    leave(captions, "", SILENT_FRAMES - 1)
    assert board.texts() == [("Good", False)]  # a gap: it may go on
    leave(captions, "", 40)
    assert board.texts() == [("Good", False), ("Good", True)]
    leave(captions, "other", 6, text())
    leave(captions, "third", 6, text())
    assert board.texts()[2:] == [("Good", False), ("Good", True), ("Good", False)]
    assert [m.utterance_id for m in board.shown[2:]] == ["other", "other", "third"]


def test_the_last_frames_of_an_interrupted_goal_say_no_more_of_it(
    board: Board, captions: CaptionPublisher
) -> None:
    told = Transcript(utterance_id="hello", text="Good morning. Bye!", final=True)
    board.callbacks[topics.SPEECH_TEXT](told)  # also of a goal whose words have times
    leave(captions, "hello", 6, text())
    leave(captions, "hello", 4, None, first=6)  # the goal is over, its sound fades
    leave(captions, "", SILENT_FRAMES)
    assert board.texts() == [("Good", False), ("Good", True)]


def test_of_others_as_far_as_they_tell(board: Board, captions: CaptionPublisher) -> None:
    leave(captions, "mute", 10)
    leave(captions, "", 10)
    assert board.texts() == []
    board.callbacks[topics.SPEECH_TEXT](Transcript(utterance_id="tts", text="spoken \n by another"))
    leave(captions, "tts", 10)
    leave(captions, "", 10)
    assert board.texts() == [("spoken by another", False), ("spoken by another", True)]
    for number in range(200):
        board.callbacks[topics.SPEECH_TEXT](Transcript(utterance_id=str(number), text="never spoken"))
    assert len(captions._texts) < 100


def test_what_is_heard_is_passed_on(board: Board) -> None:
    CaptionPublisher(board)
    board.callbacks[topics.TRANSCRIPT](
        Transcript(utterance_id="u", text="hello", locale="en-GB", confidence=0.5)
    )
    (message,) = board.shown
    assert (message.text, message.locale, message.confidence, message.final) == ("hello", "en-GB", 0.5, False)
    assert message.header.frame_id == USER


# ---------------------------------------------------------------- real processes


@pytest.fixture(scope="module")
def talker(domain: None, reference: Path, python_path: str) -> Iterator[Watcher]:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    specs = [
        generator_spec(reference),
        NodeSpec("speech_synthesizer", "flowact_ros.nodes.speech_synthesizer"),
    ]
    with supervise(specs, python_path, []) as supervisor:
        supervisor.wait_active(180)
        watcher = Watcher("/avatar", (topics.CAPTIONS, topics.AUDIO, topics.STATE))
        watcher.until(lambda: watcher.seen[topics.AUDIO] and watcher.seen[topics.STATE], "a running avatar")
        yield watcher
        watcher.close()


@pytest.mark.ros
def test_a_text_is_spoken_with_captions(talker: Watcher) -> None:
    said = talker.say(Say.Goal(text="Good morning, my friend. This is real speech.", utterance_id="t"))
    status, result = said.result()
    assert (result.error_code, result.error_msg) == (Say.Result.NONE, "") and status == 4
    assert result.spoken_text == "Good morning, my friend. This is real speech."
    talker.until(lambda: [m.final for m in talker.seen[topics.CAPTIONS]].count(True) == 2, "two sentences")
    shown = [(m.text, m.final) for m in talker.seen[topics.CAPTIONS]]
    assert shown[:2] == [("Good", False), ("Good morning,", False)]
    assert [text for text, final in shown if final] == ["Good morning, my friend.", "This is real speech."]
    talker.until(lambda: over(talker, "t"), "silence after it")
    words = [f.word for f in said.feedback]
    assert [w for before, w in zip(["", *words], words) if w and w != before] == [
        *("Good", "morning", "my", "friend", "This", "is", "real", "speech")
    ]
    sound = [m for m in talker.seen[topics.AUDIO] if m.utterance_id == "t"]
    first, last = from_time(sound[0].header.stamp), from_time(sound[-1].header.stamp)
    assert all(first <= from_time(m.header.stamp) <= last for m in talker.seen[topics.CAPTIONS])


@pytest.mark.ros
def test_cut_short_it_tells_what_was_heard(talker: Watcher) -> None:
    talker.seen[topics.CAPTIONS].clear()
    said = talker.say(
        Say.Goal(text="One, two, three, four, five, six, seven, eight. " * 10, utterance_id="long")
    )
    talker.until(lambda: "three" in [f.word for f in said.feedback], "the third word")
    assert said.cancel()
    _, result = said.result()
    assert result.error_code == Say.Result.INTERRUPTED
    assert result.spoken_text.startswith("One, two,") and "One, two, three, four".startswith(
        result.spoken_text[:12]
    )
    talker.until(
        lambda: talker.seen[topics.CAPTIONS] and talker.seen[topics.CAPTIONS][-1].final, "its last caption"
    )
    assert talker.seen[topics.CAPTIONS][-1].text.startswith("One, two, three")


@pytest.mark.ros
def test_a_text_interrupts_speech_of_the_topic(talker: Watcher) -> None:
    publisher = talker.publisher(AudioChunk, topics.SPEECH)
    for message in speech_messages(loud(LONG_S), "of the topic", each_s=1.0):
        publisher.publish(message)
    talker.until(lambda: talker.seen[topics.STATE][-1].robot_speaking, "speech")
    said = talker.say(Say.Goal(text="Stop.", policy=Say.Goal.INTERRUPT, utterance_id="stop"))
    assert said.result()[1].error_code == Say.Result.NONE
    talker.until(lambda: over(talker, "stop"), "silence after it")
    heard = [m.utterance_id for m in talker.seen[topics.AUDIO] if m.utterance_id in ("of the topic", "stop")]
    assert heard[-1] == "stop" and heard.count("of the topic") < 25 * LONG_S * 4 / 5
