# SPDX-License-Identifier: Apache-2.0
"""The echo taken away by an adaptive filter: SpeexDSP's, by the PyPI package `pyaec`.

It models the way from the loudspeaker to the microphone (block frequency domain, with a step size that knows of double
talk), subtracts the echo and weakens what is left. What still is left at the beginning, or where the loudspeaker
distorts, is told from a voice by its level (`echo_threshold.Gate`), so the robot does not interrupt itself while the
filter learns.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from flowact_ros.dialogue.echo import HOP, RATE, EchoError
from flowact_ros.dialogue.echo_threshold import Gate

REACH_S = 0.5  # of the filter: delay of the loudspeaker and the room's tail together
REMEDY = "pip install pyaec (it is in the extra `talk`), or take echo:=threshold"
_FULL = 32767.0


def missing() -> str:
    """What is not installed, as one line with the remedy; empty if all is there."""
    if importlib.util.find_spec("pyaec") is None:
        return f"echo mode 'cancel' needs the package pyaec: {REMEDY}"
    return ""


class Canceller:
    """Raises EchoError, with the remedy, where the package is missing or its library cannot be loaded."""

    delay = 0

    def __init__(self) -> None:
        if problem := missing():
            raise EchoError(problem)
        try:
            from pyaec import Aec

            self._filter = Aec(HOP, int(REACH_S * RATE), RATE, True)
        except (
            AttributeError,
            OSError,
            RuntimeError,
        ) as error:  # the first: it found no library for this machine
            raise EchoError(f"pyaec does not work on this machine ({error}): {REMEDY}") from error
        self._gate = Gate()

    def describe(self) -> str:
        """Of what the filter leaves."""
        return self._gate.model.describe()

    def push(self, mic: np.ndarray, played: np.ndarray) -> np.ndarray:
        heard, reference = _integers(mic), _integers(played)
        left = np.concatenate(
            [
                self._filter.cancel_echo(heard[at : at + HOP], reference[at : at + HOP])
                for at in range(0, len(heard), HOP)
            ]
        )
        out = left.astype(np.float32) / _FULL
        for at, (echo, other) in zip(range(0, len(out), HOP), self._gate.open(out, played), strict=True):
            if not echo:
                out[at : at + HOP] = mic[at : at + HOP]  # untouched by the filter's noise suppression
            elif not other:
                out[at : at + HOP] = 0.0
        return out


def _integers(pcm: np.ndarray) -> list[int]:
    return np.rint(np.clip(pcm, -1.0, 1.0) * _FULL).astype(np.int16).tolist()
