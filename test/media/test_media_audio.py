# SPDX-License-Identifier: Apache-2.0
"""Audio files and resampling: what is read is what was written, and what cannot be used says why."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.media.errors import MediaError
from flowact_ros.media.resample import StreamResampler, resample
from flowact_ros.media.wav import read_audio, write_wav


def tone(rate, seconds=0.5, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_wav_round_trip(tmp_path, rate, subtype):
    pcm = tone(rate)
    write_wav(tmp_path / "a.wav", pcm, rate, subtype=subtype)
    back, back_rate = read_audio(tmp_path / "a.wav")
    assert back_rate == rate and back.dtype == np.float32 and back.shape == pcm.shape
    assert np.abs(back - pcm).max() < {"PCM_16": 1e-4, "PCM_24": 1e-6, "FLOAT": 1e-7, "ULAW": 0.02}[subtype]


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(24_000, hz=300), tone(24_000, hz=500)
    soundfile.write(tmp_path / "s.flac", np.stack([left, right], 1), 24_000)
    mono, _ = read_audio(tmp_path / "s.flac")
    assert mono.ndim == 1 and np.abs(mono - (left + right) / 2).max() < 1e-4


def test_every_unusable_file_is_one_clear_line(tmp_path):
    write_wav(tmp_path / "whole.wav", tone(24_000), 24_000)
    whole = (tmp_path / "whole.wav").read_bytes()
    soundfile.write(
        tmp_path / "nan.wav", np.array([0.0, np.nan, np.inf], np.float32), 24_000, subtype="FLOAT"
    )
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 24_000)
    cases = {
        "missing.wav": (None, "does not exist"),
        "zero.wav": (b"", "empty"),
        "cut.wav": (whole[: len(whole) // 2], "cut short"),
        "head.wav": (whole[:20], "cut short"),
        "text.wav": (b"hello, I am not sound at all\n" * 20, "not readable audio"),
        "nan.wav": (None, "2 NaN or infinite samples of 3"),
        "none.wav": (None, "without a single sample"),
    }
    for name, (data, expected) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError) as caught:
            read_audio(tmp_path / name)
        message = str(caught.value)
        assert expected in message and name in message and "\n" not in message, message
    with pytest.raises(MediaError, match="directory"):
        read_audio(tmp_path)


def test_a_streamed_header_without_a_length_is_read(tmp_path):
    """Programs that write to a pipe leave 0xFFFFFFFF as the length; the samples are all there."""
    write_wav(tmp_path / "a.wav", tone(16_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = data[4:8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "pipe.wav").write_bytes(data)
    assert read_audio(tmp_path / "pipe.wav")[0].size == 8_000


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_never_crash_the_reader(tmp_path_factory, data, riff):
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    path.write_bytes(b"RIFF\x40\x00\x00\x00WAVE" + data if riff else data)
    try:
        pcm, rate = read_audio(path)
    except MediaError as error:
        assert "\n" not in str(error)
    else:
        assert pcm.size and np.isfinite(pcm).all() and rate > 0


def test_write_wav_refuses_what_is_not_sound(tmp_path):
    for bad in (np.zeros(4, np.int16), np.zeros((2, 2, 2), np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(MediaError):
            write_wav(tmp_path / "x.wav", bad, 24_000)
    with pytest.raises(MediaError, match="cannot write"):
        write_wav(tmp_path / "no" / "x.wav", tone(24_000), 24_000)


@pytest.mark.parametrize(
    ("src", "dst"), [(48_000, 24_000), (44_100, 24_000), (8_000, 24_000), (24_000, 16_000)]
)
def test_resampling_keeps_pitch_time_and_length(src, dst):
    out = resample(tone(src), src, dst)
    expected = tone(dst)
    assert out.dtype == np.float32 and out.size == expected.size
    middle = slice(dst // 20, -dst // 20)
    assert np.abs(out[middle] - expected[middle]).max() < 0.01


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(48_000, 24_000), (16_000, 24_000), (44_100, 24_000), (24_000, 24_000)]), st.data())
def test_streamed_pieces_equal_the_whole(rates, data):
    src, dst = rates
    pcm = np.random.default_rng(0).standard_normal(src // 4).astype(np.float32) * 0.1
    cuts = sorted(data.draw(st.lists(st.integers(0, pcm.size), max_size=8)))
    stream = StreamResampler(src, dst)
    pieces = [stream.push(piece) for piece in np.split(pcm, cuts)] + [stream.flush()]
    streamed, whole = np.concatenate(pieces), resample(pcm, src, dst)
    assert abs(streamed.size - whole.size) <= 1
    n = min(streamed.size, whole.size)
    assert np.abs(streamed[:n] - whole[:n]).max() < 1e-5


def test_resampling_refuses_bad_input():
    for bad in (np.zeros((2, 3), np.float32), np.zeros(3, np.int16)):
        with pytest.raises(MediaError):
            resample(bad, 24_000, 16_000)
    with pytest.raises(MediaError, match="0 Hz"):
        StreamResampler(0, 24_000)
    assert resample(np.zeros(0, np.float32), 48_000, 24_000).size == 0
