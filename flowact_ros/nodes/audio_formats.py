# SPDX-License-Identifier: Apache-2.0
"""Sound as other packages send it, to AudioChunk and back. A package is imported when its message is asked for.

Two packages are called audio_common_msgs, and a workspace can hold only one of them: that of ros-drivers has
`AudioData` and `AudioDataStamped` (bytes, described beside them by an `AudioInfo`), that of mgonzs13 has `AudioStamped`
(numbers, described by PortAudio's constants). `foxglove_msgs/RawAudio` is what Foxglove plays.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes.convert import ConversionError, audio_frames, to_bytes_field
from flowact_ros.nodes.params import ParameterError
from flowact_ros.vocabulary import F32LE, S16LE

DATA = "audio_common_msgs/AudioData"
DATA_STAMPED = "audio_common_msgs/AudioDataStamped"
STAMPED = "audio_common_msgs/AudioStamped"
RAW = "foxglove_msgs/RawAudio"
FORMATS = (DATA_STAMPED, DATA, STAMPED, RAW)
BARE = (DATA, DATA_STAMPED)  # their form comes in an AudioInfo

_PCM_S16 = "pcm-s16"  # of RawAudio, the only one that is defined
_WAVE = "wave"  # coding_format of an AudioInfo; the other one is mp3
# PortAudio's constants, as AudioStamped has them: the field that holds the samples, and their full scale. Samples of
# 24 bits are in fields of 32.
_PORTAUDIO = {
    1: ("float32_data", 1.0),
    2: ("int32_data", 2.0**31),
    4: ("int24_data", 2.0**23),
    8: ("int16_data", 2.0**15),
    16: ("int8_data", 2.0**7),
    32: ("uint8_data", 2.0**7),
}
_PA_INT16, _PA_UINT8 = 8, 32


@dataclass(frozen=True)
class Form:
    """Of samples that come without a description."""

    sample_rate: int = 16_000  # [Hz]
    channels: int = 1
    encoding: str = S16LE


def message_types(name: str) -> tuple[Any, Any]:
    """(the message, its AudioInfo or None) of one of `FORMATS`. Raises ParameterError where they cannot be had."""
    package, _, message = name.partition("/")
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError as error:
        raise ParameterError(
            f"parameter message: {name} needs the package {package}, which is not installed ({error})"
        ) from None
    kind = getattr(module, message, None)
    if kind is None or (name == DATA and not hasattr(kind(), "data")):
        owner, other = ("ros-drivers", STAMPED) if name in BARE else ("mgonzs13", DATA_STAMPED)
        raise ParameterError(
            f"parameter message: {name} is of {owner}'s {package}; the one that is installed here is the other package "
            f"of this name: try {other}"
        )
    return kind, module.AudioInfo if name in BARE else None


class AudioFormat:
    """One of `FORMATS`. `read` and `write` raise ConversionError for what cannot be translated."""

    def __init__(self, name: str, form: Form) -> None:
        """Raises ParameterError for a package that is not there."""
        self.name = name
        self.kind, self.info_kind = message_types(name)
        self._form = form
        self._wave = True

    def describe(self, info: Any) -> None:
        """An AudioInfo: what the bytes are, from now on. Raises ConversionError."""
        self._wave = info.coding_format.lower() in ("", _WAVE, "pcm")
        if not self._wave:
            raise ConversionError(
                f"the sound is {info.coding_format!r}: have its publisher send {_WAVE!r} (its parameter `format`)"
            )
        encoding = info.sample_format.upper() or self._form.encoding
        self._form = Form(int(info.sample_rate), int(info.channels), encoding)

    def read(self, message: Any) -> AudioChunk:
        """Their message as ours, without numbers; the stamp is 0 where theirs has none."""
        if self.name == STAMPED:
            chunk = _from_portaudio(message.audio)
            chunk.header = message.header
        elif self.name == RAW:
            if message.format != _PCM_S16:
                raise ConversionError(f"RawAudio has the format {message.format!r}: must be {_PCM_S16!r}")
            form = Form(int(message.sample_rate), int(message.number_of_channels))
            chunk = _chunk(form, message.data)
            chunk.header.stamp = message.timestamp
        else:
            if not self._wave:
                raise ConversionError(f"the sound is no {_WAVE!r}: its bytes are no samples")
            stamped = self.name == DATA_STAMPED
            chunk = _chunk(self._form, message.audio.data if stamped else message.data)
            if stamped:
                chunk.header = message.header
        return chunk

    def write(self, chunk: AudioChunk) -> Any:
        """Our message as theirs, in 16 bits."""
        pcm = _sixteen_bits(chunk)
        message = self.kind()
        if self.name == STAMPED:
            message.header = chunk.header
            audio = message.audio
            audio.info.format, audio.info.rate = _PA_INT16, int(chunk.sample_rate)
            audio.info.channels, audio.info.chunk = int(chunk.channels), len(pcm) // int(chunk.channels)
            _inner(audio).int16_data = pcm.tolist()
        elif self.name == RAW:
            message.timestamp, message.format = chunk.header.stamp, _PCM_S16
            message.sample_rate, message.number_of_channels = int(chunk.sample_rate), int(chunk.channels)
            message.data = to_bytes_field(pcm)
        elif self.name == DATA_STAMPED:
            message.header = chunk.header
            message.audio.data = to_bytes_field(pcm)
        else:
            message.data = to_bytes_field(pcm)
        return message

    def info(self, chunk: AudioChunk) -> Any:
        """The AudioInfo that belongs to what `write` made of the chunk; only for `BARE` formats."""
        message = self.info_kind()
        message.sample_rate, message.channels = int(chunk.sample_rate), int(chunk.channels)
        message.sample_format, message.coding_format = S16LE, _WAVE
        message.bitrate = 16 * message.sample_rate * message.channels
        return message


def _chunk(form: Form, data: Any) -> AudioChunk:
    chunk = AudioChunk(sample_rate=form.sample_rate, channels=form.channels, encoding=form.encoding)
    chunk.data = to_bytes_field(bytes(data))
    return chunk


def _inner(audio: Any) -> Any:
    """The samples of mgonzs13's Audio: the field was renamed in 2026."""
    return audio.audio_data if hasattr(audio, "audio_data") else audio.audio


def _from_portaudio(audio: Any) -> AudioChunk:
    number = int(audio.info.format)
    if number not in _PORTAUDIO:
        known = ", ".join(map(str, _PORTAUDIO))
        raise ConversionError(f"AudioStamped has PortAudio's format {number}: must be one of {known}")
    field, scale = _PORTAUDIO[number]
    samples = np.asarray(getattr(_inner(audio), field))
    form = Form(int(audio.info.rate), int(audio.info.channels), S16LE if number == _PA_INT16 else F32LE)
    if number == _PA_INT16:
        return _chunk(form, samples.astype("<i2").tobytes())
    middle = 128.0 if number == _PA_UINT8 else 0.0
    return _chunk(form, ((samples.astype(np.float64) - middle) / scale).astype("<f4").tobytes())


def _sixteen_bits(chunk: AudioChunk) -> np.ndarray:
    """int16 [T · channels], interleaved."""
    frames, _, rest = audio_frames(chunk)
    if rest:
        raise ConversionError(f"audio has {len(chunk.data)} bytes: its last sample is not whole")
    return np.clip(np.rint(frames.ravel() * 32768.0), -32768, 32767).astype("<i2")
