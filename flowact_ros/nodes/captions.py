# SPDX-License-Identifier: Apache-2.0
"""What is said and heard, onto `captions`: for screens, word by word, with the times at which words are to be seen.

`header.frame_id` tells who speaks. The text of the avatar's captions is that of the sentence being spoken, as far as
it is spoken; the last one of a sentence is final. Where times of words are not known a sentence comes as a whole.
Where hri_actions_msgs is installed, whole sentences are on `closed_captions` as well.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time

from flowact_msgs.msg import Transcript
from flowact_ros.dialogue.speech_text import SpokenText
from flowact_ros.nodes import topics
from flowact_ros.nodes.closed_caption import ClosedCaptions, closed_caption_type
from flowact_ros.nodes.convert import to_time

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Frame
    from flowact_ros.nodes.base import FlowactNode

AVATAR, USER = "avatar", "user"  # frame_id of what is said and of what is heard
SILENT_FRAMES = 5  # without speech, after which an utterance is over that was not: it was interrupted
KEPT = 64  # texts of utterances that others speak


class CaptionPublisher:
    """`frame_left` is called in the pacing thread, the rest in the executor."""

    def __init__(self, node: FlowactNode) -> None:
        self._publisher = node.add_publisher(Transcript, topics.CAPTIONS)
        kind = closed_caption_type()
        self._closed = ClosedCaptions(node, kind) if kind else None
        node.add_subscription(Transcript, topics.TRANSCRIPT, self._heard)
        node.add_subscription(Transcript, topics.SPEECH_TEXT, self._told)
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, str] = OrderedDict()  # what a TTS says on `speech`, by utterance
        self._name = ""  # of the utterance that is captioned
        self._by_words = False  # its words have times
        self._shown = ("", False)  # the last caption of it, and whether that was final
        self._start = Time()  # when its sentence began
        self._silent = 0

    def _heard(self, message: Transcript) -> None:
        message.header.frame_id = USER
        self._publisher.publish(message)
        if self._closed is not None and message.final and message.text:
            self._closed.heard(message.text, message.locale)

    def _told(self, message: Transcript) -> None:
        with self._lock:
            self._texts[message.utterance_id] = " ".join(message.text.split())
            if len(self._texts) > KEPT:
                self._texts.popitem(last=False)

    def frame_left(self, frame: Frame, stamp_ns: int, said: tuple[SpokenText, float] | None) -> None:
        """said: the text of the frame's utterance, and how much of it has left with this frame [s], if known."""
        self._silent = 0 if frame.speaking else self._silent + 1
        if not frame.speaking:
            if self._silent == SILENT_FRAMES:
                self._close(stamp_ns)
            return
        if frame.utterance_id != self._name:
            self._close(stamp_ns)
            self._name, self._by_words = frame.utterance_id, False
        sentence = None
        if said is not None and said[0].sentences:
            caption, sentence = said[0].caption(said[1]), said[0].sentence(said[1])
            self._by_words = True
        elif self._by_words:
            return  # its goal was interrupted, and its last frames leave: no more of it was said
        else:
            with self._lock:
                caption = self._texts.get(self._name, ""), False
        if caption[0] and caption != self._shown:
            if self._closed is not None and self._begins:
                self._closed.said(sentence.text if sentence is not None else caption[0])
            self._show(caption, stamp_ns)

    @property
    def _begins(self) -> bool:
        """The next caption is the first one of its sentence."""
        return not self._shown[0] or self._shown[1]

    def _close(self, stamp_ns: int) -> None:
        """The utterance is over; its last caption is final, whatever happened to it."""
        text, final = self._shown
        if text and not final:
            self._show((text, True), stamp_ns)
        self._name, self._shown = "", ("", False)

    def _show(self, caption: tuple[str, bool], stamp_ns: int) -> None:
        stamp = to_time(stamp_ns)
        if self._begins:
            self._start = stamp
        self._shown = caption
        text, final = caption
        message = Transcript(utterance_id=self._name, text=text, final=final, confidence=1.0)
        message.header.stamp, message.header.frame_id = stamp, AVATAR
        message.start, message.end = self._start, stamp
        self._publisher.publish(message)
