# SPDX-License-Identifier: Apache-2.0
"""From the stream's 24 kHz to the encoders' 16 kHz, as a stateless window.

A fixed windowed-sinc filter (up 2, down 3) on exactly the samples it needs: no state to snapshot at a rewind, and a
window gives the same sound as a pass over the whole utterance. Training features are made by `whole_features`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.audio_encoder import AudioEncoder
from flowact_ros.timebase import ENCODER_RATE, ENCODER_SAMPLES_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME

UP, DOWN = 2, 3  # 24 kHz * 2 / 3 = 16 kHz
BATCH = 8  # windows of `whole_features` that are encoded at once
HALF_TAPS = 48  # at 48 kHz: the filter reaches 1 ms to either side
MARGIN = HALF_TAPS // UP  # the same in samples of 24 kHz
assert SAMPLE_RATE * UP == ENCODER_RATE * DOWN


def _taps() -> Tensor:
    n = torch.arange(-HALF_TAPS, HALF_TAPS + 1, dtype=torch.float64)
    cutoff = 0.94 / DOWN  # of the 48 kHz half-band: 7.5 kHz
    window = 0.5 * (1 + torch.cos(math.pi * n / (HALF_TAPS + 1)))
    taps = cutoff * torch.sinc(cutoff * n) * window
    return (UP * taps / taps.sum()).float()[None, None]


class AudioWindow:
    """Encodes windows of 24 kHz sound with an `AudioEncoder`.

    context_samples, lookahead_samples: samples of 24 kHz wanted before and after the frames of a window.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        self.encoder = encoder
        parameters = encoder.parameters() if isinstance(encoder, nn.Module) else iter(())
        self.device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        self.taps = _taps()
        # a window starts on a sample that both rates share: 3 samples of 24 kHz are 2 of 16 kHz
        self.encoder_context = encoder.context_samples + encoder.context_samples % UP
        self.context_samples = self.encoder_context * DOWN // UP + 24
        self.lookahead_samples = math.ceil(encoder.lookahead_samples * DOWN / UP) + MARGIN

    def __call__(self, pcm: np.ndarray | Tensor) -> Tensor:
        """pcm float32 `[context + n * 960 + lookahead]` at 24 kHz -> features `[n, width]`, on the encoder's device.

        Raises ValueError when the length does not fit a whole number of frames.
        """
        pcm = torch.as_tensor(pcm, dtype=torch.float32)
        frames, rest = divmod(len(pcm) - self.context_samples - self.lookahead_samples, SAMPLES_PER_FRAME)
        if rest or frames < 1:
            raise ValueError(
                f"window is {len(pcm)} samples; {self.context_samples} + n x {SAMPLES_PER_FRAME} + "
                f"{self.lookahead_samples} at {SAMPLE_RATE} Hz are needed"
            )
        return self.encoder(self._resample(pcm, frames)[None].to(self.device))[0]

    def _resample(self, pcm: Tensor, frames: int) -> Tensor:
        """A window of `frames` frames at 24 kHz -> what the encoder hears of it, at 16 kHz."""
        wanted = self.encoder_context + frames * ENCODER_SAMPLES_PER_FRAME + self.encoder.lookahead_samples
        zero_stuffed = torch.zeros(1, 1, UP * len(pcm))
        zero_stuffed[0, 0, ::UP] = pcm
        # output j stands at 48 kHz sample DOWN * j + UP * 24: 24 samples of 24 kHz give the filter its past
        low = F.conv1d(zero_stuffed, self.taps, stride=DOWN)[0, 0]
        start = (UP * 24 - HALF_TAPS) // DOWN
        low = low[start : start + wanted]
        return low[self.encoder_context - self.encoder.context_samples :]

    def whole_features(self, pcm: np.ndarray, step: int | None = None) -> Tensor:
        """Features `[T, 384]` of a whole utterance float32 `[T * 960]`, silence assumed before and after it.

        step: frames of a window, as a stream takes them one after the other. None: one pass over it all, which gives
        the same and is faster, but only with an encoder whose features do not depend on where its window ends.
        """
        frames, rest = divmod(len(pcm), SAMPLES_PER_FRAME)
        if rest or frames < 1:
            raise ValueError(f"{len(pcm)} samples of sound are no whole frames of {SAMPLES_PER_FRAME}")
        step = step or frames
        after = -frames % step * SAMPLES_PER_FRAME + self.lookahead_samples
        padded = np.pad(np.asarray(pcm, np.float32), (self.context_samples, after))
        low = self._resample(torch.from_numpy(padded), frames + -frames % step)
        hop = step * ENCODER_SAMPLES_PER_FRAME
        fixed = self.encoder.context_samples + self.encoder.lookahead_samples
        parts = low.unfold(0, fixed + hop, hop).split(BATCH)
        return torch.cat([self.encoder(part.to(self.device)).flatten(0, 1) for part in parts])[:frames]
