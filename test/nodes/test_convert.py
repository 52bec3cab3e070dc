# SPDX-License-Identifier: Apache-2.0
"""Messages and arrays: round trips that keep every bit, and one clear error for everything that is wrong."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from flowact_msgs.msg import AudioChunk, AvatarState, Instruction
from flowact_ros.nodes import convert
from flowact_ros.nodes.convert import ConversionError
from flowact_ros.vocabulary import AUDIO_ENCODINGS, BEHAVIOURS, PRIORITY_NORMAL, PRIORITY_URGENT


def picture(height: int = 6, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image(
    encoding: str = "rgb8", height: int = 6, width: int = 5, step: int | None = None, size: int | None = None
):
    message = Image(height=height, width=width, encoding=encoding)
    message.step = width * 3 if step is None else step
    message.data = array("B", bytes(message.step * height if size is None else size))
    return message


# ---------------------------------------------------------------- images


def test_image_round_trip_and_header() -> None:
    rgb = picture()
    message = convert.image_message(rgb, convert.to_time(1_234_567_890), "screen")
    assert (message.height, message.width, message.step, message.encoding) == (6, 5, 15, "rgb8")
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == (
        "screen",
        1,
        234_567_890,
    )
    assert bytes(message.data) == rgb.tobytes()
    np.testing.assert_array_equal(convert.image_array(message), rgb)


def test_image_of_a_view_that_is_not_contiguous() -> None:
    rgb = picture(12, 10)[::2, ::2]
    message = convert.image_message(rgb, convert.to_time(0), "")
    np.testing.assert_array_equal(convert.image_array(message), rgb)


def test_image_array_is_a_copy() -> None:
    message = convert.image_message(picture(), convert.to_time(0), "")
    convert.image_array(message)[:] = 0
    np.testing.assert_array_equal(convert.image_array(message), picture())


def test_bgr_is_turned_and_padding_skipped() -> None:
    rgb = picture()
    message = image("bgr8", step=20)
    rows = np.zeros((6, 20), np.uint8)
    rows[:, :15] = rgb[:, :, ::-1].reshape(6, 15)
    message.data = array("B", rows.tobytes())
    np.testing.assert_array_equal(convert.image_array(message), rgb)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (image(height=0), "0"),
        (image(width=10_000, height=1, size=0), "10000×1"),
        (image(step=14), "14 bytes"),
        (image(size=89), "89 bytes"),
        (image(size=91), "91 bytes"),
        (image("32FC1"), "32FC1"),
        (image(""), "send rgb8, bgr8, rgba8, bgra8 or mono8"),
    ],
)
def test_bad_images_are_named(message: Image, says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        convert.image_array(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_only_rgb_frames_become_messages(bad: np.ndarray) -> None:
    with pytest.raises(ConversionError, match="uint8"):
        convert.image_message(bad, convert.to_time(0), "")


def test_compressed_says_what_it_is() -> None:
    message = convert.compressed_message(b"\xff\xd8jpeg", convert.to_time(5), "screen")
    assert message.format == "rgb8; jpeg compressed bgr8"
    assert bytes(message.data) == b"\xff\xd8jpeg"


# ---------------------------------------------------------------- audio


def chunk(**fields) -> AudioChunk:
    message = AudioChunk(sample_rate=16000, channels=1, encoding="S16LE")
    data = fields.pop("data", bytes(8))
    for name, value in fields.items():
        setattr(message, name, value)
    message.data = array("B", data)
    return message


def test_sixteen_bits_survive_the_round_trip() -> None:
    values = np.array([-32768, -32767, -1, 0, 1, 12345, 32767], "<i2")
    pcm, rate = convert.audio_array(chunk(data=values.tobytes()))
    assert rate == 16000 and pcm.dtype == np.float32
    assert pcm[0] == -1.0 and pcm[4] == np.float32(1 / 32768)
    message = convert.audio_message(
        pcm, rate, convert.to_time(7), first_sample=960, sequence=3, utterance_id="u", last=True
    )
    assert bytes(message.data) == values.tobytes()
    assert (message.sample_rate, message.channels, message.encoding) == (16000, 1, "S16LE")
    assert (message.first_sample, message.sequence, message.utterance_id, message.last) == (960, 3, "u", True)
    assert message.header.stamp.nanosec == 7


def test_floats_survive_and_loud_ones_are_clipped_only_as_integers() -> None:
    pcm = np.array([0.1, -1.5, 2.0], np.float32)
    floats = convert.audio_message(pcm, 24000, convert.to_time(0), encoding="F32LE")
    np.testing.assert_array_equal(convert.audio_array(floats)[0], pcm)
    integers = convert.audio_message(pcm, 24000, convert.to_time(0))
    np.testing.assert_allclose(convert.audio_array(integers)[0], [0.1, -1.0, 1.0], atol=1 / 32768)


@given(st.lists(st.integers(-32768, 32767), max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_sixteen_bits_survive(values: list[int]) -> None:
    data = np.array(values, "<i2").tobytes()
    pcm, rate = convert.audio_array(chunk(data=data))
    assert bytes(convert.audio_message(pcm, rate, convert.to_time(0)).data) == data


def test_channels_are_averaged() -> None:
    data = np.array([[0.5, -0.5, 0.3], [1.0, 0.0, 0.5]], "<f4").tobytes()
    pcm, _ = convert.audio_array(chunk(channels=3, encoding="F32LE", data=data))
    np.testing.assert_allclose(pcm, [0.1, 0.5], rtol=1e-6)


def test_an_empty_chunk_is_only_an_end() -> None:
    pcm, _ = convert.audio_array(chunk(data=b"", last=True))
    assert pcm.shape == (0,)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 192000])
def test_usual_rates_pass(rate: int) -> None:
    assert convert.audio_array(chunk(sample_rate=rate))[1] == rate


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sample_rate": 0}, "0 Hz"),
        ({"sample_rate": 7999}, "7999 Hz"),
        ({"sample_rate": 192001}, "192001 Hz"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 9, "data": bytes(18)}, "9 channels"),
        ({"encoding": "MP3"}, "'MP3'"),
        ({"encoding": ""}, "S16LE, F32LE"),
        ({"data": bytes(7)}, "7 bytes.*multiple of 2"),
        ({"data": bytes(6), "channels": 2}, "6 bytes.*multiple of 4"),
        ({"data": bytes(6), "encoding": "F32LE"}, "multiple of 4"),
        (
            {"data": np.array([0, np.nan, np.inf], "<f4").tobytes(), "encoding": "F32LE"},
            "2 NaN or infinite.*of 3",
        ),
        ({"data": bytes(8000 * 2 * 601), "sample_rate": 8000}, "601 s"),
    ],
)
def test_bad_audio_is_named(fields: dict, says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        convert.audio_array(chunk(**fields))
    assert "\n" not in str(caught.value)


@given(
    rate=st.integers(0, 2**32 - 1),
    channels=st.integers(0, 255),
    encoding=st.sampled_from(["S16LE", "F32LE", "s16le", "", "S16BE", "\u2603"]),
    data=st.binary(max_size=64),
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_understood_or_refused(
    rate: int, channels: int, encoding: str, data: bytes
) -> None:
    message = chunk(sample_rate=rate, channels=channels, encoding=encoding, data=data)
    try:
        pcm, heard = convert.audio_array(message)
    except ConversionError as error:
        assert str(error)
        return
    assert heard == rate and pcm.ndim == 1 and pcm.dtype == np.float32 and np.isfinite(pcm).all()


def test_only_mono_becomes_a_message() -> None:
    with pytest.raises(ConversionError, match=r"\(2, 3\)"):
        convert.audio_message(np.zeros((2, 3), np.float32), 24000, convert.to_time(0))
    with pytest.raises(ConversionError, match="'S8'"):
        convert.audio_message(np.zeros(3, np.float32), 24000, convert.to_time(0), encoding="S8")


# ---------------------------------------------------------------- time and names


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_time_is_exact(nanoseconds: int) -> None:
    assert convert.from_time(convert.to_time(nanoseconds)) == nanoseconds


def test_duration() -> None:
    duration = convert.to_duration(1.25)
    assert (duration.sec, duration.nanosec) == (1, 250_000_000)


def test_behaviours_are_the_constants_of_the_messages() -> None:
    for name in BEHAVIOURS:
        number = convert.behaviour_number(name)
        assert convert.behaviour_name(number) == name
        assert getattr(Instruction, name.upper()) == getattr(AvatarState, name.upper()) == number
    assert convert.behaviour_number("greeting") == Instruction.IDLE
    with pytest.raises(ConversionError, match="5.*0 … 4"):
        convert.behaviour_name(5)


def test_the_other_words_are_the_constants_of_the_messages_too() -> None:
    assert (PRIORITY_NORMAL, PRIORITY_URGENT) == (Instruction.PRIORITY_NORMAL, Instruction.PRIORITY_URGENT)
    assert AUDIO_ENCODINGS == (AudioChunk.S16LE, AudioChunk.F32LE)
