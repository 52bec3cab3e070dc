# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back: the one place for both directions, with every check of what comes in.

A message is refused with one `ConversionError` that names what was wrong and what would be right; nothing here
changes a message or keeps a reference to its data.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import CompressedImage, Image

from flowact_msgs.msg import AudioChunk, Instruction
from flowact_ros.media.downmix import Downmix
from flowact_ros.nodes.process import one_line
from flowact_ros.timebase import INPUT_RATES
from flowact_ros.vocabulary import BEHAVIOURS, F32LE, S16LE

NANOSECONDS = 1_000_000_000
MAX_CHANNELS = 8
MAX_CHUNK_S = 600.0  # [s] of one message: more is a mistake, not a sentence
MAX_SIDE = 8192  # [px] of a reference image
MID_GREY = 128.0

# Where red, green, blue (and alpha) are in a pixel; OpenCV's nameless types are in its own order, as cv_bridge has it.
_CHANNELS = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "8uc3": (2, 1, 0),
    "rgba8": (0, 1, 2, 3),
    "bgra8": (2, 1, 0, 3),
    "8uc4": (2, 1, 0, 3),
    "mono8": (0, 0, 0),
    "8uc1": (0, 0, 0),
}

_DTYPES = {S16LE: np.dtype("<i2"), F32LE: np.dtype("<f4")}


class ConversionError(ValueError):
    """A message that cannot be understood: one line, with what was wrong and what would be right."""


# ---------------------------------------------------------------- bytes


def to_bytes_field(data: np.ndarray | bytes) -> array:
    """The fastest thing a `uint8[]` field takes: 0.06 ms for a 1.2 MB frame.

    Assigning an array, a memoryview or a list to the field iterates over its items in Python (24–89 ms), and
    `bytes` does so when field checks are switched on.
    """
    field = array("B")
    field.frombytes(data if isinstance(data, bytes) else memoryview(data).cast("B"))
    return field


def _field_view(data: Any) -> np.ndarray:
    """uint8 [N] over a `uint8[]` field, without a copy where the field allows it."""
    if isinstance(data, (array, bytes, bytearray, memoryview)):
        return np.frombuffer(data, np.uint8)
    return np.asarray(data, np.uint8)


# ---------------------------------------------------------------- time


def to_time(nanoseconds: int) -> Time:
    """Nanoseconds since the clock's epoch, exactly."""
    seconds, rest = divmod(int(nanoseconds), NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def from_time(stamp: Time) -> int:
    """[ns] since the clock's epoch."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def to_duration(seconds: float) -> Duration:
    whole, rest = divmod(int(round(seconds * NANOSECONDS)), NANOSECONDS)
    return Duration(sec=whole, nanosec=rest)


# ---------------------------------------------------------------- images


def image_message(rgb: np.ndarray, stamp: Time, frame_id: str) -> Image:
    """uint8 [H, W, 3] -> rgb8 Image; the stamp is the time at which the frame is to be seen."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ConversionError(f"a frame must be uint8 [H, W, 3], not {rgb.dtype} {tuple(rgb.shape)}")
    message = Image()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.height, message.width = int(rgb.shape[0]), int(rgb.shape[1])
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.step = message.width * 3
    message.data = to_bytes_field(np.ascontiguousarray(rgb))
    return message


def compressed_message(jpeg: bytes, stamp: Time, frame_id: str) -> CompressedImage:
    """A JPEG of an rgb8 frame. The format line is what image_transport writes: raw encoding; codec, codec order."""
    message = CompressedImage()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.format = "rgb8; jpeg compressed bgr8"
    message.data = to_bytes_field(jpeg)
    return message


def image_array(message: Image) -> np.ndarray:
    """Image -> uint8 [H, W, 3] RGB, a copy; what is transparent lies over mid grey, as in files. Encodings of 8 bits
    are read here; others through cv_bridge if it is there.

    Raises ConversionError for a wrong size, row step or encoding.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ConversionError(f"image is {width}×{height}: each side must be 1 … {MAX_SIDE} pixels")
    encoding = message.encoding.lower()
    if encoding not in _CHANNELS:
        return _through_cv_bridge(message)
    order = _CHANNELS[encoding]
    channels = max(order) + 1
    if step < width * channels:
        raise ConversionError(
            f"image row step is {step} bytes, but {width} {encoding} pixels need {width * channels}"
        )
    data = _field_view(message.data)
    if data.size != step * height:
        raise ConversionError(
            f"image has {data.size} bytes, but {height} rows of {step} bytes are {step * height}"
        )
    pixels = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    rgb = np.ascontiguousarray(pixels[:, :, order[:3]])
    if len(order) == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255.0
        rgb = np.rint(rgb * alpha + MID_GREY * (1.0 - alpha)).astype(np.uint8)
    return rgb


def _through_cv_bridge(message: Image) -> np.ndarray:
    known = "rgb8, bgr8, rgba8, bgra8 or mono8"
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # its binary part fails in its own ways when NumPy's version does not fit
        raise ConversionError(
            f"image encoding {message.encoding!r} needs cv_bridge, which is not usable here ({one_line(error)}); "
            f"send {known}"
        ) from None
    try:
        rgb = np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except Exception as error:  # its own, OpenCV's and NumPy's, by encoding and by what is wrong
        raise ConversionError(
            f"cv_bridge cannot read encoding {message.encoding!r} ({one_line(error)}); send {known}"
        ) from None
    # Told the wrong row step it reads a picture of another size without complaint.
    expected = (int(message.height), int(message.width), 3)
    if rgb.shape != expected or rgb.dtype != np.uint8:
        raise ConversionError(
            f"cv_bridge made {rgb.dtype} {rgb.shape} of an image of {expected[1]}×{expected[0]} {message.encoding!r} "
            f"pixels with rows of {message.step} bytes; send {known}"
        )
    return np.array(rgb)  # it may share the message's memory


# ---------------------------------------------------------------- audio


def audio_message(
    pcm: np.ndarray,
    sample_rate: int,
    stamp: Time,
    *,
    encoding: str = S16LE,
    first_sample: int = 0,
    sequence: int = 0,
    utterance_id: str = "",
    last: bool = False,
    frame_id: str = "",
) -> AudioChunk:
    """float32 [T] mono in -1 … 1 -> AudioChunk. Louder is clipped; S16LE is exact for what came from 16 bits."""
    if pcm.ndim != 1:
        raise ConversionError(f"audio must be mono samples [T], not shape {tuple(pcm.shape)}")
    if encoding == S16LE:
        scaled = np.rint(np.asarray(pcm, np.float32) * 32768.0)
        data = np.clip(scaled, -32768, 32767).astype("<i2")
    elif encoding == F32LE:
        data = np.asarray(pcm, np.float32).astype("<f4")
    else:
        raise ConversionError(f"audio encoding must be one of {', '.join(_DTYPES)}, not {encoding!r}")
    message = AudioChunk()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.sample_rate = int(sample_rate)
    message.channels = 1
    message.encoding = encoding
    message.first_sample = int(first_sample)
    message.sequence = int(sequence) & 0xFFFFFFFF
    message.utterance_id = utterance_id
    message.last = bool(last)
    message.data = to_bytes_field(np.ascontiguousarray(data))
    return message


def audio_array(message: AudioChunk) -> tuple[np.ndarray, int]:
    """AudioChunk -> (float32 [T] mono, full scale 1, sample rate [Hz]). Channels are mixed by `Downmix`. T may be 0.

    Raises ConversionError for a wrong rate, channel count, encoding or byte count, and for NaN or infinite samples.
    """
    frames, rate, rest = audio_frames(message)
    if rest:
        width = _DTYPES[message.encoding].itemsize * message.channels
        raise ConversionError(
            f"audio has {len(message.data)} bytes: {message.channels} channel(s) of {message.encoding} need a "
            f"multiple of {width}"
        )
    return Downmix()(frames), rate


def audio_frames(message: AudioChunk, before: bytes = b"") -> tuple[np.ndarray, int, bytes]:
    """AudioChunk -> (float32 [T, channels], sample rate [Hz], the bytes of a sample that goes on in the next chunk).

    before: the bytes that were left over from the chunk before it. Raises ConversionError like `audio_array`.
    """
    rate, channels = int(message.sample_rate), int(message.channels)
    if not INPUT_RATES[0] <= rate <= INPUT_RATES[1]:
        raise ConversionError(
            f"audio sample_rate is {rate} Hz: must be {INPUT_RATES[0]} … {INPUT_RATES[1]} Hz"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise ConversionError(f"audio has {channels} channels: must be 1 … {MAX_CHANNELS}")
    dtype = _DTYPES.get(message.encoding)
    if dtype is None:
        raise ConversionError(f"audio encoding is {message.encoding!r}: must be one of {', '.join(_DTYPES)}")
    data = before + _field_view(message.data).tobytes()
    width = dtype.itemsize * channels
    if len(data) // width > MAX_CHUNK_S * rate:
        raise ConversionError(
            f"audio chunk lasts {len(data) / width / rate:.0f} s: at most {MAX_CHUNK_S:.0f} s"
        )
    whole = len(data) - len(data) % width
    samples = np.frombuffer(data[:whole], dtype).astype(np.float32)
    if dtype.kind == "i":
        samples /= 32768.0
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise ConversionError(f"audio has {bad} NaN or infinite samples of {samples.size}")
    return samples.reshape(-1, channels), rate, data[whole:]


# ---------------------------------------------------------------- behaviours


def behaviour_name(number: int) -> str:
    """Instruction.behaviour -> the engine's lower-case name."""
    if not 0 <= number < len(BEHAVIOURS):
        raise ConversionError(
            f"behaviour is {number}: must be 0 … {len(BEHAVIOURS) - 1} "
            f"({', '.join(f'{i} = {name}' for i, name in enumerate(BEHAVIOURS))})"
        )
    return BEHAVIOURS[number]


def behaviour_number(name: str) -> int:
    """The engine's name -> the constant of Instruction.msg and AvatarState.msg; IDLE for a name it does not know."""
    return BEHAVIOURS.index(name) if name in BEHAVIOURS else Instruction.IDLE


if (
    sys.byteorder != "little"
):  # the `<` dtypes above convert, but images and field views were never tried there
    raise ImportError("flowact_ros.nodes.convert supports little-endian machines only")
