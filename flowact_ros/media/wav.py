# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out, as float32 mono at their own rate."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import soundfile

from flowact_ros.media.errors import MediaError

MIN_RATE, MAX_RATE = 1_000, 384_000  # [Hz] outside of this a header is broken, not unusual
_STREAMED_SIZE = 0x7FFF0000  # a length this large is what writers leave that cannot seek back


def read_audio(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Reads any audio file libsndfile knows (wav, flac, ogg, mp3, ...) whole.

    Returns (pcm float32 [T] in about -1..1, channels averaged to mono; sample rate in Hz). Raises `MediaError` for a
    file that is missing, empty, cut short, not audio, or that holds NaN or infinite samples.
    """
    path = Path(path)
    _check_file(path, "a wav, flac, ogg or mp3 file")
    _check_riff_length(path)
    try:
        pcm, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MediaError(
            f"{path} is not readable audio ({reason}); expected a wav, flac, ogg or mp3 file"
        ) from error
    if pcm.shape[0] == 0:
        raise MediaError(f"{path} is audio without a single sample")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(f"{path} claims a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE} Hz")
    mono = pcm[:, 0] if pcm.shape[1] == 1 else pcm.mean(axis=1, dtype=np.float32)
    bad = int(mono.size - np.count_nonzero(np.isfinite(mono)))
    if bad:
        raise MediaError(
            f"{path} holds {bad} NaN or infinite samples of {mono.size}; expected finite samples"
        )
    return np.ascontiguousarray(mono, dtype=np.float32), int(rate)


def write_wav(path: str | os.PathLike[str], pcm: np.ndarray, rate: int, *, subtype: str = "PCM_16") -> None:
    """Writes mono float32 [T] (or [T, channels]) as a wav file; samples beyond -1..1 are clipped by PCM subtypes."""
    pcm = np.asarray(pcm)
    if pcm.ndim not in (1, 2) or pcm.dtype.kind != "f":
        raise MediaError(
            f"write_wav needs float samples [T] or [T, channels], got {pcm.dtype} {list(pcm.shape)}"
        )
    if not np.isfinite(pcm).all():
        raise MediaError("write_wav got NaN or infinite samples; expected finite samples")
    if not MIN_RATE <= int(rate) <= MAX_RATE:
        raise MediaError(f"write_wav got a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE} Hz")
    try:
        soundfile.write(str(path), pcm, int(rate), subtype=subtype, format="WAV")
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise MediaError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _check_file(path: Path, expected: str) -> None:
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a directory; expected {expected}")
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist; expected {expected}") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be opened ({error}); expected {expected}") from error
    if size == 0:
        raise MediaError(f"{path} is empty (0 bytes); expected {expected}")


def _check_riff_length(path: Path) -> None:
    """libsndfile silently shortens a cut wav; half a sentence played as if it were whole is worse than an error."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
                return
            end = file.seek(0, os.SEEK_END)
            position = 12
            while position + 8 <= end:
                file.seek(position)
                name, length = struct.unpack("<4sI", file.read(8))
                position += 8
                if name == b"data":
                    if length < _STREAMED_SIZE and length > end - position:
                        raise MediaError(
                            f"{path} is cut short: its header promises {length} bytes of samples, "
                            f"{end - position} are there"
                        )
                    return
                position += length + (length & 1)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error}); expected an audio file") from error
    raise MediaError(f"{path} is cut short: a wav header without samples")
