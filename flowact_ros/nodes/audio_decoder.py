# SPDX-License-Identifier: Apache-2.0
"""Chunks of a topic to samples, where it matters what came before: samples cut in two, and channels without sound."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flowact_msgs.msg import AudioChunk
from flowact_ros.media.downmix import Downmix
from flowact_ros.nodes.convert import audio_frames

_REMEMBERED = 16  # utterances that are going on
_PAUSE_S = 1.0  # half a sample is not continued after it


@dataclass
class _Sender:
    """What is known of one utterance's chunks."""

    form: tuple[int, int, str]  # rate, channels, encoding
    downmix: Downmix = field(default_factory=Downmix)
    rest: bytes = b""  # of a sample whose other bytes are still to come
    rest_before: bytes = b""  # the same, before the chunk that came last
    numbers: tuple[int, int] = (0, 0)
    data: bytes = b""  # of the chunk that came last
    heard_at: float = 0.0
    told: set[str] = field(default_factory=set)


class AudioDecoder:
    """Decodes the chunks of one topic. warn: gets a line, once an utterance, about what had to be put right."""

    def __init__(self, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._warn, self._clock = warn, clock
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def __call__(self, message: AudioChunk) -> tuple[np.ndarray, int]:
        """AudioChunk -> (float32 [T] mono, sample rate [Hz]). T may be 0. Raises ConversionError."""
        sender = self._sender(message)
        frames, rate, rest = audio_frames(message, sender.rest)
        sender.rest_before, sender.rest = sender.rest, rest
        if rest:
            size = len(message.data)
            self._tell(sender, message, "cut", f"a chunk of {size} bytes ends inside a sample: it goes on in the next")
        pcm = sender.downmix(frames)
        self._tell(sender, message, "channels", sender.downmix.remark)
        if message.last:
            if rest:
                self._tell(sender, message, "over", f"its last {len(rest)} bytes are no whole sample, and are dropped")
            sender.rest = b""
        return pcm, rate

    def _sender(self, message: AudioChunk) -> _Sender:
        form = (int(message.sample_rate), int(message.channels), message.encoding)
        numbers, data, now = (message.first_sample, message.sequence), bytes(message.data), self._clock()
        sender = self._senders.pop(message.utterance_id, None)
        if sender is None or sender.form != form:
            sender = _Sender(form)
        elif (numbers, data) == (sender.numbers, sender.data) and any(numbers):
            sender.rest = sender.rest_before  # the same chunk once more: its bytes are cut as before
        elif now - sender.heard_at >= _PAUSE_S or numbers[0] < sender.numbers[0] or numbers[1] < sender.numbers[1]:
            sender.rest = b""  # something new begins
        sender.numbers, sender.data, sender.heard_at = numbers, data, now
        self._senders[message.utterance_id] = sender
        while len(self._senders) > _REMEMBERED:
            self._senders.popitem(last=False)
        return sender

    def _tell(self, sender: _Sender, message: AudioChunk, kind: str, text: str) -> None:
        if text and kind not in sender.told:
            sender.told.add(kind)
            self._warn(f"speech {message.utterance_id!r}: {text}" if message.utterance_id else f"speech: {text}")
