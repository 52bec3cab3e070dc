# SPDX-License-Identifier: Apache-2.0
"""When somebody speaks: the protocol of voice activity detectors, and the one that goes by the energy of the sound.

Time is counted in samples, never read from a clock, so the same sound always gives the same events. Backends:
`silero` (a small network, PyPI package `silero-vad`: tells voices from noises) and `energy` (always there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from flowact_ros.dialogue.vad_silero import SileroVadConfig

BACKENDS = ("auto", "silero", "energy")  # auto: silero where it is installed

FRAME_S = 0.01  # [s] one decision
BAND_HZ = (
    150.0,
    3800.0,
)  # where a voice is loud at every sample rate from 8 kHz on; hum and hiss are outside


class VadError(ValueError):
    """A setting of the voice activity detector, or the sound given to it, is out of range."""


@dataclass(frozen=True)
class VoiceEvent:
    """The voice began or ended. `time_s` counts from the first sample pushed since the last reset."""

    voiced: bool
    time_s: float  # [s] where the voice began, or where its last voiced frame ended


class VoiceActivityDetector(Protocol):
    """Sound in, onsets and offsets out."""

    @property
    def voiced(self) -> bool:
        """True between an onset and its offset."""
        ...

    @property
    def quiet_since_s(self) -> float | None:
        """Where a pause began that may turn out to be the end: the time that the offset would have. None if there is
        no pause, or no voice."""
        ...

    def push(self, pcm: np.ndarray) -> list[VoiceEvent]:
        """Hear float32 mono samples [T] of the detector's rate, any T; returns what they brought about."""
        ...

    def reset(self) -> None:
        """Forget everything heard."""
        ...


def load_vad(
    name: str,
    sample_rate: int,
    *,
    energy: EnergyVadConfig | None = None,
    silero: SileroVadConfig | None = None,
) -> VoiceActivityDetector:
    """The backend `name` for sound of `sample_rate` [Hz], with its own settings of the two.

    Raises VadError for a name that is unknown, and with the remedy for a backend that is not installed.
    """
    from flowact_ros.dialogue import vad_silero

    if name not in BACKENDS:
        raise VadError(f"unknown voice activity detector {name!r}; available: {', '.join(BACKENDS)}")
    if name == "auto":
        name = "energy" if vad_silero.missing() else "silero"
    if name == "silero":
        return vad_silero.SileroVad(sample_rate, silero)
    return EnergyVad(sample_rate, energy)


def check_sound(pcm: np.ndarray) -> np.ndarray:
    """The samples as float32 [T]. Raises VadError for what would be remembered wrongly for long."""
    if pcm.ndim != 1 or pcm.dtype.kind != "f":
        raise VadError(
            f"the detector hears mono float samples [T], not {pcm.dtype} of shape {tuple(pcm.shape)}"
        )
    pcm = pcm.astype(np.float32, copy=False)
    if not np.isfinite(pcm).all():
        raise VadError("the detector got NaN or infinite samples; expected finite samples")
    return pcm


class Hysteresis:
    """Decisions about frames to onsets and offsets: an onset needs `onset_s` of voiced frames within
    `onset_window_s`, an offset `hangover_s` without one."""

    def __init__(self, frame_s: float, onset_s: float, onset_window_s: float, hangover_s: float) -> None:
        self._frame_s = frame_s
        self._onset = max(1, round(onset_s / frame_s))
        self._window = max(self._onset, round(onset_window_s / frame_s))
        self._hangover = max(1, round(hangover_s / frame_s))
        self._frames = self._quiet = 0
        self._recent: list[bool] = []
        self.voiced = False

    @property
    def quiet_since_s(self) -> float | None:
        return (self._frames - self._quiet) * self._frame_s if self.voiced and self._quiet else None

    def decide(self, loud: bool) -> VoiceEvent | None:
        """What the next frame brings about."""
        self._frames += 1
        self._recent = [*self._recent, loud][-self._window :]
        if not self.voiced:
            if sum(self._recent) < self._onset:
                return None
            self.voiced, self._quiet = True, 0
            first = self._recent.index(True)
            return VoiceEvent(True, (self._frames - len(self._recent) + first) * self._frame_s)
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet < self._hangover:
            return None
        self.voiced, self._recent = False, []
        return VoiceEvent(False, (self._frames - self._quiet) * self._frame_s)


def check_times(onset_s: float, onset_window_s: float, hangover_s: float, frame_s: float) -> None:
    """The times that every backend has. Raises VadError."""
    if not frame_s <= onset_s <= onset_window_s <= 1.0:
        raise VadError(
            f"onset_s and onset_window_s must lie in {frame_s:g} … 1 s, the first not above the second, "
            f"not {onset_s:g} and {onset_window_s:g}"
        )
    if not 0.05 <= hangover_s <= 5.0:
        raise VadError(f"hangover_s must be 0.05 … 5 s, not {hangover_s:g}")


@dataclass(frozen=True)
class EnergyVadConfig:
    """Settings of `EnergyVad`. Times in seconds, levels in dB."""

    margin_db: float = 10.0  # above the noise floor counts as voice
    release_db: float = 6.0  # once voiced, this much above the floor keeps it going
    minimum_db: float = -50.0  # relative to full scale: quieter is never a voice, whatever the floor
    onset_s: float = 0.05  # voiced time, within the last `onset_window_s`, that makes an onset
    onset_window_s: float = 0.1
    hangover_s: float = 0.6  # silence that makes an offset: longer than a pause inside a sentence
    floor_rise_db_s: float = 4.0  # how fast the floor may rise: a new steady noise is learned in seconds

    def __post_init__(self) -> None:
        if not 0 < self.release_db <= self.margin_db:
            raise VadError(
                f"release_db must be in (0, margin_db = {self.margin_db:g}], not {self.release_db:g}"
            )
        check_times(self.onset_s, self.onset_window_s, self.hangover_s, FRAME_S)


class EnergyVad:
    """Adaptive energy detector with hysteresis and hangover.

    Each 10 ms frame's level in the voice band is compared with a noise floor that follows a fall at once and
    rises slowly, so that a long sentence, which has short pauses, does not become the noise.
    """

    def __init__(self, sample_rate: int, config: EnergyVadConfig | None = None) -> None:
        if not 8_000 <= sample_rate <= 192_000:
            raise VadError(f"sample rate must be 8000 … 192000 Hz, not {sample_rate}")
        self.sample_rate = sample_rate
        self.config = config or EnergyVadConfig()
        self._frame = round(sample_rate * FRAME_S)
        self._window = np.hanning(self._frame + 2)[1:-1].astype(np.float32)
        frequencies = np.fft.rfftfreq(self._frame, 1 / sample_rate)
        self._band = (frequencies >= BAND_HZ[0]) & (frequencies <= BAND_HZ[1])
        # Parseval: two-sided spectrum of a windowed frame -> mean square of the samples.
        self._scale = 2.0 / (self._frame * float(np.sum(self._window**2)))
        self.reset()

    def reset(self) -> None:
        config = self.config
        self._rest = np.zeros(0, np.float32)
        self._floor_db: float | None = None
        self._gate = Hysteresis(FRAME_S, config.onset_s, config.onset_window_s, config.hangover_s)

    @property
    def voiced(self) -> bool:
        return self._gate.voiced

    @property
    def quiet_since_s(self) -> float | None:
        return self._gate.quiet_since_s

    @property
    def floor_db(self) -> float:
        """The noise floor learned so far [dB re full scale]; -120 before any sound."""
        return -120.0 if self._floor_db is None else self._floor_db

    def push(self, pcm: np.ndarray) -> list[VoiceEvent]:
        sound = np.concatenate([self._rest, check_sound(pcm)])
        n = len(sound) // self._frame
        self._rest = sound[n * self._frame :].copy()
        if n == 0:
            return []
        frames = sound[: n * self._frame].reshape(n, self._frame)
        power = np.abs(np.fft.rfft(frames * self._window, axis=1)[:, self._band]) ** 2
        events = []
        for level in 10 * np.log10(power.sum(axis=1) * self._scale + 1e-12):
            event = self._gate.decide(self._is_loud(float(level)))
            if event is not None:
                events.append(event)
        return events

    def _is_loud(self, level_db: float) -> bool:
        config = self.config
        if self._floor_db is None:
            # A stream that opens with a voice must not take it for the floor.
            self._floor_db = min(level_db, config.minimum_db)
        rise = config.floor_rise_db_s * FRAME_S
        self._floor_db = level_db if level_db < self._floor_db else min(level_db, self._floor_db + rise)
        self._floor_db = max(self._floor_db, -90.0)  # after digital silence, faint noise is no voice
        margin = config.release_db if self.voiced else config.margin_db
        return level_db > max(self._floor_db + margin, config.minimum_db)
