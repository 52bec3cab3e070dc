# SPDX-License-Identifier: Apache-2.0
"""Speech by Kokoro-82M (Apache-2.0): 28 English voices of women and men, which `flowact weights get kokoro` brings.

hibari's voice was distilled from one of them, so text is read and phonemes are timed as there. It makes about 1.4 times
as much speech as a core of 2025 has time for: for computers with cores to spare, and for training.
"""

from __future__ import annotations

import numpy as np

from flowact_ros.dialogue.speech import SynthesizerError
from flowact_ros.dialogue.synthesizer_hibari import DURATION_UNIT, HibariSynthesizer
from flowact_ros.media.resample import resample
from flowact_ros.timebase import SAMPLE_RATE
from flowact_ros.vocabulary import KOKORO
from flowact_ros.weights_store import stored
from flowact_ros.weights_table import KOKORO_MODEL, KOKORO_VOICES

STYLE = 256  # numbers of a voice, for each length of a text


class KokoroSynthesizer(HibariSynthesizer):
    """The ``kokoro`` backend, one voice of it: its letters say the accent (a, b) and who speaks (f, m)."""

    voices = tuple(KOKORO_VOICES)
    durations = "/encoder/Clip_output_0"

    def __init__(self, voice: str = "af_bella") -> None:
        if voice not in self.voices:
            raise SynthesizerError(f"unknown kokoro voice {voice!r}; available: {', '.join(self.voices)}")
        folder = stored(KOKORO)
        if folder is None:
            raise SynthesizerError(f"kokoro's voices are not on this machine: flowact weights get {KOKORO}")
        try:
            self._styles = np.fromfile(folder / f"{voice}.bin", np.float32).reshape(-1, 1, STYLE)
        except (OSError, ValueError):
            raise SynthesizerError(f"kokoro's {voice}.bin is damaged: `flowact weights check kokoro`") from None
        self._open(british=voice[0] == "b", model=folder / KOKORO_MODEL)

    def _run(self, ids: np.ndarray, rate: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """As hibari's. The network has no melody to scale: sound that is spoken more slowly is played faster."""
        style = self._styles[min(ids.shape[1] - 2, len(self._styles) - 1)]
        speed = np.asarray([np.clip(rate / pitch, 0.5, 2.0)], np.float32)
        sound, durations = self._session.run(None, {"input_ids": ids, "style": style, "speed": speed})
        pcm = resample(sound[0], round(SAMPLE_RATE * pitch), SAMPLE_RATE)
        return pcm, durations.reshape(-1).astype(np.float64) * (DURATION_UNIT / pitch)
