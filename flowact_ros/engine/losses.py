# SPDX-License-Identifier: Apache-2.0
"""What became of the speech that was pushed: counted for `metrics`, and said once an utterance with the remedy."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)

# Why samples were not heard, and what to do about it; the last three are told to whoever pushed them.
REPEATED = "repeated"
LATE = "late"
INTERRUPTED = "interrupted"
QUEUE_FULL = "queue full"
OTHER_RATE = "other rate"
REFUSED = "refused"
_REMEDIES = {
    REPEATED: "were dropped: they came a second time, with the same numbers; send each chunk once",
    LATE: "were dropped: they came after silence had taken their place; send chunks in order and in time",
    INTERRUPTED: "were dropped: their utterance was interrupted; speak on under another utterance_id",
}


@dataclass
class IntakeCounts:
    """What came, in samples of its own rate unless it says chunks or utterances.

    Every sample that was received is heard, dropped for one of the reasons, or still waits for earlier ones.
    """

    received: int = 0
    heard: int = 0  # went on to be said
    filled: int = 0  # silence put in for lost ones
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    repeats: int = 0  # chunks dropped because they had been heard
    lost_chunks: int = 0  # gaps
    lost_samples: int = 0  # that they stood for
    shortened: int = 0  # gaps longer than the limit
    reordered: int = 0  # chunks that waited for an earlier one
    unended: int = 0  # utterances that ended without `last`
    bad_samples: int = 0  # NaN or infinite, replaced by silence
    clipped: int = 0  # samples beyond +-1
    rescaled: int = 0  # samples that had come at the scale of integers

    def drop(self, reason: str, samples: int, repeats: int = 0) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + samples
        self.repeats += repeats


class Notes:
    """Says each thing once an utterance; what happens to most utterances is said for the 1st, 10th, 100th, ..."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def dropped(self, utterance: str, reason: str, samples: int) -> None:
        level = logging.INFO if reason == INTERRUPTED else logging.WARNING  # that was asked for
        self.once(reason, f"{_name(utterance)}: {samples} samples {_REMEDIES[reason]}", level)

    def lost(self, utterance: str, what: str) -> None:
        self.once("lost", f"{_name(utterance)}: {what} did not arrive; look at the sender's queue depth and QoS")

    def unended(self, utterance: str, count: int) -> None:
        if str(count).strip("0") == "1":
            times = "" if count == 1 else f" ({count} utterances so far)"
            self.once(
                "unended",
                f"{_name(utterance)}: ended without a chunk with last = true{times}; set it, or each end waits",
            )

    def once(self, kind: str, text: str, level: int = logging.WARNING) -> None:
        if kind not in self._said:
            self._said.add(kind)
            _LOG.log(level, "%s", text)


def _name(utterance: str) -> str:
    return f"speech {utterance!r}" if utterance else "speech without an utterance_id"
