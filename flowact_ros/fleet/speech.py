# SPDX-License-Identifier: Apache-2.0
"""Speech on its way to the fleet: what a caller gives, and the messages in which it travels."""

from __future__ import annotations

import numpy as np

from flowact_ros.engine.interfaces import AudioError
from flowact_ros.fleet.wire import pack
from flowact_ros.timebase import INPUT_RATES

PIECE_S = 10.0  # of speech in one message


def as_sound(pcm: np.ndarray, sample_rate: int) -> np.ndarray:
    """float or int16 [n] -> float32 [n]. Raises AudioError, one line, for what is no mono sound."""
    pcm = np.asarray(pcm)
    if pcm.ndim != 1 or pcm.dtype.kind not in "fi":
        raise AudioError(f"audio is {pcm.dtype} {list(pcm.shape)}: float or int16 [samples] is needed")
    if not INPUT_RATES[0] <= sample_rate <= INPUT_RATES[1]:
        raise AudioError(f"sample rate is {sample_rate}: {INPUT_RATES[0]} to {INPUT_RATES[1]} Hz are needed")
    return pcm.astype(np.float32) / 32768.0 if pcm.dtype.kind == "i" else np.nan_to_num(pcm).astype(np.float32)


def speech_messages(
    sound: np.ndarray, rate: int, name: str, first: int | None, sequence: int | None, last: bool
) -> list[bytes]:
    """A message of speech; several, without numbers, of more than `PIECE_S`."""
    data = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype("<i2").tobytes()
    size = 2 * int(PIECE_S * rate)
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    numbers = {"first_sample": first, "sequence": sequence} if len(pieces) == 1 else {}
    return [
        pack("speech", piece, rate=rate, utterance_id=name, last=last and i == len(pieces) - 1, **numbers)
        for i, piece in enumerate(pieces)
    ]
