# SPDX-License-Identifier: Apache-2.0
"""Voice activity by Silero's network, which tells a voice from a door, a fan or music.

The PyPI package `silero-vad` (MIT) carries the model. Only its ONNX file is used, by onnxruntime on one thread: the
package's own code would import torch. 0.15 ms for a frame of 32 ms on one core.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue.vad import Hysteresis, VadError, VoiceEvent, check_sound, check_times
from flowact_ros.media.resample import StreamResampler
from flowact_ros.timebase import ENCODER_RATE, INPUT_RATES

FRAME = 512  # samples at 16 kHz that the network judges at once
CONTEXT = 64  # samples before them that it sees as well
FRAME_S = FRAME / ENCODER_RATE  # 32 ms
STATE = (2, 1, 128)  # of its recurrent layer
FILES = ("silero_vad_16k_op15.onnx", "silero_vad.onnx")  # the second is that of older releases
REMEDY = "pip install silero-vad onnxruntime"


@dataclass(frozen=True)
class SileroVadConfig:
    """Settings of `SileroVad`. Times in seconds; thresholds are of the network's probability of a voice."""

    threshold: float = 0.5  # from it on a frame counts as voiced
    release: float = 0.35  # once voiced, down to this keeps it going
    onset_s: float = 0.096  # voiced time, within the last `onset_window_s`, that makes an onset
    onset_window_s: float = 0.16
    hangover_s: float = 0.6  # silence that makes an offset: longer than a pause inside a sentence

    def __post_init__(self) -> None:
        if not 0.0 < self.release <= self.threshold < 1.0:
            raise VadError(
                f"threshold and release must lie in 0 … 1, the second not above the first, "
                f"not {self.threshold:g} and {self.release:g}"
            )
        check_times(self.onset_s, self.onset_window_s, self.hangover_s, FRAME_S)


def missing() -> str:
    """What is not installed for this backend, as one line with the remedy; empty if all is there."""
    for package in ("silero_vad", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            return f"voice activity detector 'silero' needs the package {package.replace('_', '-')}: {REMEDY}"
    return ""


def model_file() -> Path:
    """The network's file inside the package, which is found without importing it. Raises VadError."""
    if problem := missing():
        raise VadError(problem)
    spec = importlib.util.find_spec("silero_vad")
    folders = [Path(folder) / "data" for folder in spec.submodule_search_locations or ()] if spec else []
    for name in FILES:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    raise VadError(
        f"the package silero-vad holds none of {', '.join(FILES)}: pip install --force-reinstall silero-vad"
    )


@functools.lru_cache(maxsize=1)
def _session() -> Any:
    """One for the process: the network's state is an argument, so all detectors can share it."""
    path = model_file()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for every kind of damage
        reason = str(error).splitlines()[0]
        raise VadError(
            f"{path.name} cannot be loaded ({reason}): pip install --force-reinstall silero-vad"
        ) from error


class SileroVad:
    """Silero's network over sound of any rate, with hysteresis and hangover."""

    def __init__(self, sample_rate: int, config: SileroVadConfig | None = None) -> None:
        if not INPUT_RATES[0] <= sample_rate <= INPUT_RATES[1]:
            raise VadError(f"sample rate must be {INPUT_RATES[0]} … {INPUT_RATES[1]} Hz, not {sample_rate}")
        self.sample_rate = sample_rate
        self.config = config or SileroVadConfig()
        self._network = _session()
        self._rate = np.array(ENCODER_RATE, np.int64)
        self.reset()

    def reset(self) -> None:
        config = self.config
        # The filter's delay is what speech would be noticed late by: a short one is good enough for this network.
        self._resampler = StreamResampler(self.sample_rate, ENCODER_RATE, quality="MQ")
        self._rest = np.zeros(0, np.float32)
        self._window = np.zeros((1, CONTEXT + FRAME), np.float32)
        self._state = np.zeros(STATE, np.float32)
        self._gate = Hysteresis(FRAME_S, config.onset_s, config.onset_window_s, config.hangover_s)
        self._probability = 0.0

    @property
    def voiced(self) -> bool:
        return self._gate.voiced

    @property
    def quiet_since_s(self) -> float | None:
        return self._gate.quiet_since_s

    @property
    def probability(self) -> float:
        """Of a voice in the last frame, as the network has it."""
        return self._probability

    def push(self, pcm: np.ndarray) -> list[VoiceEvent]:
        sound = np.concatenate([self._rest, self._resampler.push(check_sound(pcm))])
        whole = len(sound) - len(sound) % FRAME
        self._rest = sound[whole:].copy()
        events = []
        for frame in sound[:whole].reshape(-1, FRAME):
            least = self.config.release if self.voiced else self.config.threshold
            event = self._gate.decide(self._judge(frame) >= least)
            if event is not None:
                events.append(event)
        return events

    def _judge(self, frame: np.ndarray) -> float:
        """Probability of a voice in the next frame, float32 [FRAME]."""
        self._window[0, :CONTEXT] = self._window[0, -CONTEXT:]
        self._window[0, CONTEXT:] = frame
        inputs = {"input": self._window, "state": self._state, "sr": self._rate}
        probability, self._state = self._network.run(None, inputs)
        self._probability = float(probability.reshape(-1)[0])
        return self._probability
