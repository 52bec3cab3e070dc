# SPDX-License-Identifier: Apache-2.0
"""Is the face alive? Once a second the last motion that left is compared with training motion and with its sound.

Nobody may look at a robot's screen for hours. What goes wrong with a stream that feeds on its own output is known: it
drifts away, trembles, freezes, or its lips lose the sound. Each has a figure, a window and a limit, chosen so that an
hour of true motion, and one of the shipped model's, raise no alarm (`flowact eval watch`, docs/watch.md). The watch
sees the motion that the sampler gave, before a look that was told, and skips frames that were shown twice.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from flowact_ros.models.codec import motion_statistics as statistics
from flowact_ros.models.codec.motion_statistics import MotionStatistics
from flowact_ros.timebase import FRAME_RATE

DRIFT, JITTER, NO_BLINK, STILL_LIPS, LIPS_OFF = "drift", "jitter", "no blink", "still lips", "lips off sound"

JITTER_FRAMES = 5 * FRAME_RATE
LIP_FRAMES = 2 * FRAME_RATE  # of speech, among the last drift window's
SOUND_FRAMES = 20 * FRAME_RATE
SOUND_VOICED = 3 * FRAME_RATE  # of speech that must be among them
LOUDEST_S = 300.0  # [s] after which the loudest speech counts half: what hisses in a pause is not taken for speech
MADE = 0.9  # share of a window that must have been made, else its figure is unknown

# Limits; beside them the worst of an hour of truth and of an hour of the shipped model.
MOST_DRIFT = 1.8  # 0.81, 0.82; of truth 1.62 where a behaviour is held for two minutes
MOST_JITTER = 6.0  # 2.0, 3.2; int8 trembles a fifth more
LONGEST_WITHOUT_BLINK_S = 30.0  # 6, 19
LEAST_LIP_MOVEMENT = 0.15  # 0.45, 0.39
LEAST_LIP_SOUND = 0.15  # 0.36, 0.37

REFINE_S = 5.0  # while it drifts, memory is refined again after so long: half of the window is new by then
RESET_S = 60.0  # a face that is frozen again so soon is not started anew: it would only jump


@dataclass(frozen=True)
class MotionFigures:
    """What is known of the motion now; NaN: not known. alarms: what is wrong, in seconds since it was found."""

    drift: float = math.nan
    jitter: float = math.nan
    without_blink_s: float = math.nan
    lip_movement: float = math.nan
    lip_sound: float = math.nan
    alarms: dict[str, float] = field(default_factory=dict)


class Watch:
    """Fed with every frame that leaves. `recover` may be changed at any time: without it nothing is asked for.

    refine, reset: asked for since they were last taken (`take_refine`, `take_reset`).
    """

    def __init__(self, training: MotionStatistics, *, recover: bool = True) -> None:
        self.training, self.recover = training, recover
        self.figures = MotionFigures()
        self.raised = 0
        self._frames = 0
        self._since: dict[str, int] = {}  # frame at which an alarm was raised
        self._refined = self._reset = -math.inf  # frame of the last request
        self._refine_wanted = self._reset_wanted = False
        self._loudest = 0.0
        self.cut()

    def cut(self) -> None:
        """The motion starts anew from a reference: what was before says nothing of it."""
        self._motion: deque[np.ndarray] = deque(maxlen=SOUND_FRAMES)
        self._power: deque[float] = deque(maxlen=SOUND_FRAMES)
        self._since_blink = 0  # frames since the lids last began to shut
        self._shut = False

    def frame(self, motion: np.ndarray | None, power: float) -> None:
        """A frame that leaves: motion float `[K]` as the sampler gave it, None if none was made; power: the mean square
        of the speech in it. Once a second the figures are new.
        """
        self._motion.append(motion if motion is not None else np.full_like(self.training.mean, math.nan))
        self._power.append(power)
        self._loudest = max(power, self._loudest * 0.5 ** (1.0 / (LOUDEST_S * FRAME_RATE)))
        self._since_blink += 1
        if motion is not None:
            self._blink(float(statistics.lids(motion[None])[0]))
        self._frames += 1
        if self._frames % FRAME_RATE == 0:
            self._look()

    def _blink(self, lid: float) -> None:
        """Eyes that stay shut do not blink."""
        if lid > statistics.SHUT and not self._shut:
            self._since_blink, self._shut = 0, True
        elif lid < statistics.OPEN:
            self._shut = False

    def take_refine(self) -> bool:
        """Is memory to be refined? Asked once a step."""
        wanted, self._refine_wanted = self._refine_wanted and self.recover, False
        return wanted

    def take_reset(self) -> bool:
        """Is memory to start anew?"""
        wanted, self._reset_wanted = self._reset_wanted and self.recover, False
        return wanted

    def _look(self) -> None:
        motion, power = np.stack(self._motion), np.array(self._power)
        recent, sound = motion[-statistics.WINDOW :], power[-statistics.WINDOW :]
        values = {
            "drift": statistics.drift(recent, self.training) if _enough(recent, statistics.WINDOW) else math.nan,
            "jitter": (
                statistics.jitter(motion[-JITTER_FRAMES:], self.training)
                if _enough(motion[-JITTER_FRAMES:], JITTER_FRAMES)
                else math.nan
            ),
            "without_blink_s": self._since_blink / FRAME_RATE,
            "lip_movement": self._lip_movement(recent, sound),
            "lip_sound": math.nan,
        }
        if _enough(motion, SOUND_FRAMES) and statistics.voiced(power, self._loudest).sum() >= SOUND_VOICED:
            values["lip_sound"] = statistics.lip_sound(motion, power)
        wrong = {
            DRIFT: values["drift"] > MOST_DRIFT,
            JITTER: values["jitter"] > MOST_JITTER,
            NO_BLINK: values["without_blink_s"] > LONGEST_WITHOUT_BLINK_S,
            STILL_LIPS: values["lip_movement"] < LEAST_LIP_MOVEMENT,
            LIPS_OFF: values["lip_sound"] < LEAST_LIP_SOUND,
        }
        self.raised += sum(is_wrong and name not in self._since for name, is_wrong in wrong.items())
        self._since = {name: self._since.get(name, self._frames) for name, is_wrong in wrong.items() if is_wrong}
        alarms = {name: (self._frames - since) / FRAME_RATE for name, since in self._since.items()}
        self.figures = MotionFigures(**values, alarms=alarms)
        self._decide(alarms)

    def _lip_movement(self, motion: np.ndarray, power: np.ndarray) -> float:
        spoken = motion[statistics.voiced(power, self._loudest) & np.isfinite(motion).all(1)][-LIP_FRAMES:]
        return statistics.lip_movement(spoken, self.training) if len(spoken) == LIP_FRAMES else math.nan

    def _decide(self, alarms: dict[str, float]) -> None:
        if DRIFT in alarms and self._frames - self._refined >= REFINE_S * FRAME_RATE:
            self._refined, self._refine_wanted = self._frames, True
        frozen = NO_BLINK in alarms or STILL_LIPS in alarms
        if frozen and self._frames - self._reset >= RESET_S * FRAME_RATE:
            self._reset, self._reset_wanted = self._frames, True


def _enough(motion: np.ndarray, frames: int) -> bool:
    return len(motion) == frames and float(np.isfinite(motion).all(1).mean()) >= MADE
