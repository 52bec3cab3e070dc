# SPDX-License-Identifier: Apache-2.0
"""From sound and voice activity to what a recogniser is asked: utterances, cut so that no word is lost.

A state machine without a clock: times are seconds of the sound pushed so far. While somebody speaks, what was said so
far is recognised now and then. A pause is recognised as soon as it may be the end, long before the detector is sure:
when it is, the text is there already, unless the person went on (see `recognition`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.dialogue.vad import VoiceEvent

_CUT_SEARCH_S = (
    3.0  # an utterance that is too long is cut where it is quietest within its last so many seconds
)
_CUT_FRAME_S = 0.1


class HearingError(ValueError):
    """A setting is out of range: one line."""


@dataclass(frozen=True)
class HearingConfig:
    """Times in seconds."""

    preroll_s: float = 0.4  # heard before the detector's onset: soft first sounds
    tail_s: float = 0.2  # heard after the last voiced frame: soft last ones
    partial_interval_s: float = 1.5  # of new sound between two partial recognitions; 0: none
    pause_s: float = 0.2  # a pause this long may be the end: it is recognised ahead; 0: not ahead
    shortest_s: float = 0.15  # a voice shorter than this is a click or a cough: its text is empty
    longest_s: float = 25.0  # an utterance is cut there; Whisper hears 30 s at once

    def __post_init__(self) -> None:
        ranges = {
            "preroll_s": (0.0, 2.0),
            "tail_s": (0.0, 1.0),
            "partial_interval_s": (0.0, 30.0),
            "pause_s": (0.0, 2.0),
            "shortest_s": (0.0, 2.0),
            "longest_s": (5.0, 28.0),
        }
        for name, (least, greatest) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= greatest:
                raise HearingError(f"{name} must be {least:g} … {greatest:g} s, not {value:g}")
        if 0 < self.partial_interval_s < 0.2:
            raise HearingError(
                f"partial_interval_s must be 0 (none) or at least 0.2 s, not {self.partial_interval_s:g}"
            )


@dataclass(frozen=True, eq=False)
class Request:
    """A piece of an utterance that is to be recognised."""

    utterance_id: str
    pcm: np.ndarray  # float32 [T]
    start_s: float  # where the voice began
    end_s: float  # where it ended; of a partial one, how far it was heard
    final: bool
    whole: bool  # a pause follows: if the person does not go on, this is the text of the final one
    origin_ns: int = 0  # `Hearing.origin_ns` when it was made


class Hearing:
    """Utterances out of one stream of sound. `utterance_id`s are `<prefix>-1`, `<prefix>-2`, …"""

    def __init__(self, sample_rate: int, config: HearingConfig | None = None, prefix: str = "heard") -> None:
        self.config = config or HearingConfig()
        self._rate, self._prefix = sample_rate, prefix
        self.origin_ns = 0  # the caller's time of second 0 of the sound; for those who stamp what comes out
        self._utterances = 0
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._kept = np.zeros(0, np.float32)  # the newest sound, as far back as it may be needed
        self._end = 0  # samples pushed so far
        self._open = False
        self._start = self._voice = 0  # [samples] where the utterance's sound and where its voice begin
        self._heard_to = 0  # [samples] where the sound of the utterance before ended
        self._asked_to = 0  # [samples] how far the utterance was already asked about
        self._asked_pause = False

    @property
    def speaking(self) -> bool:
        """An utterance is going on."""
        return self._open

    @property
    def utterance_id(self) -> str:
        """Of the utterance that goes on, or the last one; empty before the first."""
        return f"{self._prefix}-{self._utterances}" if self._utterances else ""

    def push(
        self, pcm: np.ndarray, events: Sequence[VoiceEvent], quiet_since_s: float | None = None
    ) -> list[Request]:
        """Hear float32 mono samples [T] and what the detector said about them; returns what is to be recognised.

        events: the detector's, whose times count from the same first sample; quiet_since_s: its own after them.
        """
        self._kept = np.concatenate([self._kept, pcm])
        self._end += len(pcm)
        requests: list[Request] = []
        for event in events:
            at = min(round(event.time_s * self._rate), self._end)
            if event.voiced and not self._open:
                self._onset(at)
            elif not event.voiced and self._open:
                requests += self._finish(at)
        if self._open:
            requests += self._while_open(None if quiet_since_s is None else self._samples(quiet_since_s))
        self._forget()
        return requests

    def finish(self) -> list[Request]:
        """The stream ends, or is not listened to any more: an utterance that is going on ends here.

        The next sound pushed is second 0 of a new stream; the detector has to be reset, too.
        """
        requests = self._finish(self._end) if self._open else []
        self._begin_stream()
        return requests

    # ------------------------------------------------------------ one utterance

    def _samples(self, seconds: float) -> int:
        return round(seconds * self._rate)

    def _onset(self, at: int) -> None:
        self._utterances += 1
        self._open = True
        self._voice = at
        earliest = max(self._heard_to, self._end - len(self._kept))
        self._start = max(at - self._samples(self.config.preroll_s), earliest)
        self._asked_to, self._asked_pause = at, False

    def _finish(self, voice_end: int) -> list[Request]:
        """Every utterance has one final request, so that whoever waits for its text gets one."""
        self._open = False
        self._heard_to = voice_end + self._samples(self.config.tail_s)
        return [self._request(voice_end, final=True, whole=True)]

    def _while_open(self, quiet_since: int | None) -> list[Request]:
        config = self.config
        if self._end - self._start >= self._samples(config.longest_s):
            return self._cut()
        if quiet_since is None:
            self._asked_pause = False
            interval = self._samples(config.partial_interval_s)
            if interval and self._end - self._asked_to >= interval:
                return [self._request(self._end, final=False, whole=False)]
        elif config.pause_s and not self._asked_pause:
            if self._end - quiet_since >= self._samples(config.pause_s):
                self._asked_pause = True
                return [self._request(quiet_since, final=False, whole=True)]
        return []

    def _cut(self) -> list[Request]:
        """Ends an utterance that is too long where it is quietest, and goes on with a new one there."""
        frame = self._samples(_CUT_FRAME_S)
        sound = self._kept[-self._samples(_CUT_SEARCH_S) :]
        frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
        quietest = int(np.argmin(np.square(frames).sum(axis=1)))
        at = self._end - len(sound) + quietest * frame + frame // 2
        request = self._request(at, final=True, whole=False)
        self._utterances += 1
        self._start = self._voice = self._asked_to = at
        self._asked_pause = False
        return [request]

    def _request(self, voice_end: int, *, final: bool, whole: bool) -> Request:
        """About the sound up to `voice_end`, and the tail that belongs to it where a pause follows."""
        voice_end = max(voice_end, self._voice)  # a cut may lie in a pause, behind the voice
        tail = self._samples(self.config.tail_s) if whole else 0
        first = self._end - len(self._kept)
        last = min(voice_end + tail, self._end)
        if voice_end - self._voice < self._samples(self.config.shortest_s):
            last = self._start  # no sound, no text
        pcm = self._kept[self._start - first : last - first].copy()
        self._asked_to = self._end
        times = self._voice / self._rate, voice_end / self._rate
        return Request(self.utterance_id, pcm, *times, final=final, whole=whole, origin_ns=self.origin_ns)

    def _forget(self) -> None:
        """Drops sound that nothing can ask for any more: an onset is told of when it is up to a second old."""
        if self._open:
            first = self._start
        else:
            first = self._end - self._samples(self.config.preroll_s + 1.5)
        drop = first - (self._end - len(self._kept))
        if drop > 0:
            self._kept = self._kept[drop:].copy()
