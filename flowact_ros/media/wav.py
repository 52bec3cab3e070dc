# SPDX-License-Identifier: Apache-2.0
"""Audio files in and out, as float32 mono at their own rate."""

from __future__ import annotations

import io
import logging
import os
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from flowact_ros.media.downmix import Downmix
from flowact_ros.media.errors import MediaError
from flowact_ros.media.levels import FullScale
from flowact_ros.timebase import INPUT_RATES

_LOG = logging.getLogger(__name__)
_EXPECTED = "a wav, flac, ogg or mp3 file"
STANDARD_INPUT = "-"
_PLACEHOLDER = 2**30  # a length this large is what writers leave that cannot seek back, each its own


def read_audio(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Reads any audio file libsndfile knows (wav, flac, ogg, mp3, ...) whole; "-" and pipes are read to their end.

    Returns (pcm float32 [T] in about -1..1, mono: see `Downmix`; sample rate in Hz). A wav whose header gives a wrong
    length is read to the end of its samples, with a warning. Raises `MediaError` for a file that is missing, empty, cut
    short, not audio, of a rate outside INPUT_RATES, or that holds NaN or infinite samples.
    """
    name = "standard input" if os.fspath(path) == STANDARD_INPUT else str(path)
    data = _with_true_length(_read_bytes(path, name), name)
    try:
        pcm, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = reason.split("BytesIO object at")[0].removesuffix("<_io.").strip() or reason
        raise MediaError(f"{name} is not readable audio ({reason}); expected {_EXPECTED}") from error
    if pcm.shape[0] == 0:
        raise MediaError(f"{name} is audio without a single sample")
    if not INPUT_RATES[0] <= rate <= INPUT_RATES[1]:
        raise MediaError(
            f"{name} has a sample rate of {rate} Hz; expected {INPUT_RATES[0]} to {INPUT_RATES[1]} Hz: resample it"
        )
    bad = int(pcm.size - np.count_nonzero(np.isfinite(pcm)))
    if bad:
        raise MediaError(f"{name} holds {bad} NaN or infinite samples of {pcm.size}; expected finite samples")
    scale, downmix = FullScale(), Downmix()
    mono = downmix(scale(pcm))
    for remark in filter(None, (scale.remark, downmix.remark)):
        _LOG.warning("%s: %s", name, remark)
    return np.ascontiguousarray(mono, dtype=np.float32), int(rate)


def as_file(path: str | os.PathLike[str]) -> Path:
    """A file that can be read again and by another process: the absolute path, or a copy of what a pipe holds.

    Raises `MediaError`. A copy is the caller's to delete.
    """
    if os.fspath(path) != STANDARD_INPUT and not _is_pipe(Path(path)):
        return Path(path).resolve()
    name = "standard input" if os.fspath(path) == STANDARD_INPUT else str(path)
    with tempfile.NamedTemporaryFile(prefix="flowact-", suffix=".wav", delete=False) as copy:
        copy.write(_read_bytes(path, name))
    return Path(copy.name)


def write_wav(path: str | os.PathLike[str], pcm: np.ndarray, rate: int, *, subtype: str = "PCM_16") -> None:
    """Writes mono float32 [T] (or [T, channels]) as a wav file; samples beyond -1..1 are clipped by PCM subtypes."""
    pcm = np.asarray(pcm)
    if pcm.ndim not in (1, 2) or pcm.dtype.kind != "f":
        raise MediaError(
            f"write_wav needs float samples [T] or [T, channels], got {pcm.dtype} {list(pcm.shape)}"
        )
    if not np.isfinite(pcm).all():
        raise MediaError("write_wav got NaN or infinite samples; expected finite samples")
    if not 0 < int(rate) <= INPUT_RATES[1]:
        raise MediaError(f"write_wav got a sample rate of {rate} Hz; expected 1 to {INPUT_RATES[1]} Hz")
    try:
        soundfile.write(str(path), pcm, int(rate), subtype=subtype, format="WAV")
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise MediaError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _is_pipe(path: Path) -> bool:
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return False


def _read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        if os.fspath(path) == STANDARD_INPUT:
            data = sys.stdin.buffer.read()
        elif Path(path).is_dir():
            raise MediaError(f"{name} is a directory; expected {_EXPECTED}")
        else:
            data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise MediaError(f"{name} does not exist; expected {_EXPECTED}") from error
    except MediaError:
        raise
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: standard input is closed
        raise MediaError(f"{name} cannot be opened ({error}); expected {_EXPECTED}") from error
    if not data:
        raise MediaError(f"{name} is empty (0 bytes); expected {_EXPECTED}")
    return data


def _with_true_length(data: bytes, name: str) -> bytes:
    """The same wav with the length that its samples have; other formats as they are.

    Programs that write to a pipe cannot go back to fill the length in: it is 0, -1 or a guess, and libsndfile would
    believe it. A believable length that is more than there is means that the file was cut: half a sentence, said as if
    it were whole, is worse than an error. Raises `MediaError`.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return data
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        position += 8
        if kind != b"data":
            position += length + (length & 1)
            continue
        there = len(data) - position
        if length == there or (length < there and _are_chunks(data, position + length + (length & 1))):
            return data
        if there < length < _PLACEHOLDER:
            raise MediaError(
                f"{name} is cut short: its header promises {length} bytes of samples, {there} are there"
            )
        _LOG.warning("%s: its header promises %d bytes of samples, %d are there and read", name, length, there)
        size = min(len(data) - 8, 0xFFFFFFFF)
        header = data[:4] + struct.pack("<I", size) + data[8 : position - 4] + struct.pack("<I", min(there, 0xFFFFFFFF))
        return header + data[position:]
    raise MediaError(f"{name} is cut short: a wav header without samples")


def _are_chunks(data: bytes, position: int) -> bool:
    """From there on the file holds whole chunks (a list of tags, say), or at most a byte or two that fill it up."""
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if not all(32 <= byte < 127 for byte in kind):
            return False
        position += 8 + length + (length & 1)
    return len(data) - 8 <= position <= len(data) + 1
