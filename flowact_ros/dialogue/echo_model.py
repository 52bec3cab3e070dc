# SPDX-License-Identifier: Apache-2.0
"""How loud the robot's echo is at the microphone, band by band and moment by moment, and whether somebody else is.

The echo's power in a band is what was played in it lately, weighted: the room's answer, as powers. Weights are learned
while nobody else speaks, by multiplicative steps of maximum likelihood for powers that are distributed exponentially
(the Itakura-Saito divergence): they stay positive, and need no delay to be known before. Nine of ten cells of an echo
stay within 2.5 dB above such an estimate, so the mean excess, over all bands and 30 ms, tells even a voice that is as
loud as the echo: a bound that no moment of the echo exceeds would hide it.
"""

from __future__ import annotations

import numpy as np

from flowact_ros.dialogue.echo import HOP, RATE

LAGS = 64  # hops: an echo comes, and is gone, within so many of them
LOUDEST_DB = 10.0  # coupling that is assumed before anything is known
LEARN, SETTLE = (
    300,
    600,
)  # hops of the robot's voice that are learned from quickly, and until they are believed
QUICK, STEADY = 0.3, 0.02  # exponents of a step then, and later
MEMORY = 0.98  # a hop, of the likelihood's gradients
CREDIT = 3.0  # times the estimate is as much as a hop is believed: more is hardly the echo
FLOOR = 2.0  # times the noise of the room is no voice (3 dB)
MOST_DB = 12.0  # of a band's excess that counts: one loud band is a whistle
OTHER_DB = 3.0  # mean excess that only another voice explains
SMOOTH = 0.7  # a hop, of the mean excess: 30 ms
RESTS = 20  # hops after another voice before the echo is learned from again
RISE = (
    10**0.002
)  # a hop while somebody speaks: a loudspeaker that was turned up is believed after a while (2 dB/s)
QUIET = 1e-4  # band power of a window, below which nothing is played: about -70 dB re full scale
_LEAST = 1e-12


class EchoModel:
    """Learned from two streams of band powers, a hop at a time."""

    def __init__(self, bands: int) -> None:
        # Written twice, LAGS apart: the last LAGS hops are one slice, the newest first.
        self._at = 0
        self._powers = np.zeros((2 * LAGS, bands))
        self._weights = np.full((LAGS, bands), 10 ** (LOUDEST_DB / 10) / LAGS)
        self._more, self._less = np.zeros((LAGS, bands)), np.zeros((LAGS, bands))
        self._floor: np.ndarray | None = None
        self._excess_db = 0.0
        self._resting = 0
        self._heard = 0
        self.explained = np.zeros(bands)  # power of the echo, as it is expected

    @property
    def settled(self) -> bool:
        return self._heard >= SETTLE

    def describe(self) -> str:
        if not self.settled:
            return "not known yet"
        coupling_db = 10 * np.log10(self._weights.sum(axis=0)).mean()
        lag = int(self._weights.sum(axis=1).argmax())
        return f"{coupling_db:.0f} dB, {1000 * lag * HOP // RATE} ms late"

    def judge(self, played: np.ndarray, left: np.ndarray) -> tuple[bool, bool]:
        """Powers [bands] of a hop: played, and heard (of a canceller: what it left of that).

        Returns whether the robot is heard at all, and whether somebody else is.
        """
        self._at = (self._at - 1) % LAGS
        self._powers[self._at] = self._powers[self._at + LAGS] = played
        self._learn_floor(left)
        recent = self._powers[self._at : self._at + LAGS]
        if recent.max() < QUIET:
            self.explained[:] = self._excess_db = 0.0
            return False, True
        np.einsum("kb,kb->b", self._weights, recent, out=self.explained)
        expected = self.explained + FLOOR * self._floor + _LEAST
        ratio = left / expected
        excess_db = np.clip(10 * np.log10(ratio + _LEAST), 0.0, MOST_DB).mean()
        self._excess_db = SMOOTH * self._excess_db + (1 - SMOOTH) * excess_db
        other = self.settled and bool(self._excess_db > OTHER_DB)
        self._resting = RESTS if other else max(0, self._resting - 1)
        if self._resting:
            self._weights[:, ratio > 1.0] *= RISE
        else:
            self._learn(recent, ratio, expected)
        return True, other

    def _learn_floor(self, left: np.ndarray) -> None:
        """It follows a fall in some hops and rises by a dB a second."""
        if self._floor is None:
            self._floor = left.copy()
        falling = left < self._floor
        self._floor = np.where(falling, 0.7 * self._floor + 0.3 * left, self._floor * 1.002 + 1e-12)

    def _learn(self, recent: np.ndarray, ratio: np.ndarray, expected: np.ndarray) -> None:
        """A step towards the weights under which what was heard is likeliest."""
        share = recent / expected
        self._more = MEMORY * self._more + share * np.minimum(ratio, CREDIT)
        self._less = MEMORY * self._less + share
        exponent = STEADY if self._heard >= LEARN else QUICK
        step = exponent * np.log((self._more + 1e-9) / (self._less + 1e-9))
        self._weights = np.clip(self._weights * np.exp(np.clip(step, -0.2, 0.2)), 1e-7, 30.0)
        self._heard += 1
