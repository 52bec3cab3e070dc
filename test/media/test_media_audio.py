# SPDX-License-Identifier: Apache-2.0
"""Audio files and resampling: what is read is what was written, and what cannot be used says why."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.media.downmix import Downmix
from flowact_ros.media.errors import MediaError
from flowact_ros.media.resample import StreamResampler, resample
from flowact_ros.media.wav import as_file, read_audio, write_wav

ROOT = Path(__file__).parents[2]


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


def header(data: bytes, length: int) -> bytes:
    """The wav with another length of its samples in the header."""
    at = data.index(b"data") + 4
    return data[:4] + struct.pack("<I", length) + data[8:at] + struct.pack("<I", length) + data[at + 4 :]


@pytest.mark.parametrize("length", [0, 1, 8_000, 2_000_000_000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_wrong_length_in_the_header_loses_nothing(tmp_path, length, subtype, caplog):
    """Programs that write to a pipe leave 0, -1 or a guess there; the samples are all there."""
    pcm = tone(16_000, seconds=2.0)
    write_wav(tmp_path / "a.wav", pcm, 16_000, subtype=subtype)
    (tmp_path / "pipe.wav").write_bytes(header((tmp_path / "a.wav").read_bytes(), length))
    back, _ = read_audio(tmp_path / "pipe.wav")
    assert back.shape == pcm.shape and np.abs(back - pcm).max() < 1e-4
    assert f"promises {length} bytes" in caplog.text


def test_tags_behind_the_samples_are_not_sound(tmp_path, caplog):
    write_wav(tmp_path / "a.wav", tone(16_000), 16_000)
    tags = b"LIST" + struct.pack("<I", 10) + b"INFOabcdef" + b"id3 " + struct.pack("<I", 3) + b"xyz\0"
    for tail in (tags, tags[:-1]):
        (tmp_path / "tagged.wav").write_bytes((tmp_path / "a.wav").read_bytes() + tail)
        assert len(read_audio(tmp_path / "tagged.wav")[0]) == 8_000
    assert not caplog.records


@pytest.mark.parametrize("kind", ["fifo", "stdin", "dash"])
def test_pipes_are_read(tmp_path, kind):
    pcm = tone(16_000)
    write_wav(tmp_path / "a.wav", pcm, 16_000)
    data = header((tmp_path / "a.wav").read_bytes(), 0xFFFFFFFF)
    path = {"fifo": str(tmp_path / "pipe"), "stdin": "/dev/stdin", "dash": "-"}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    program = (
        "import sys, numpy as np; from flowact_ros.media.wav import as_file, read_audio;"
        "copy = as_file(sys.argv[1]); sys.stdout.buffer.write(read_audio(copy)[0].tobytes()); copy.unlink()"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    if kind == "fifo":
        Path(path).write_bytes(data)
    out, _ = reader.communicate(b"" if kind == "fifo" else data, timeout=60)
    back = np.frombuffer(out, np.float32)
    assert back.shape == pcm.shape and np.abs(back - pcm).max() < 1e-4


def test_a_file_is_itself(tmp_path):
    write_wav(tmp_path / "a.wav", tone(16_000), 16_000)
    assert as_file(tmp_path / "a.wav") == tmp_path / "a.wav"


@pytest.mark.parametrize("rate", [7_999, 4_000, 192_001, 384_000])
def test_rates_that_the_avatar_does_not_take_are_refused_where_the_file_is_read(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.float32), rate)
    with pytest.raises(MediaError, match=f"{rate} Hz; expected 8000 to 192000 Hz: resample it"):
        read_audio(tmp_path / "a.wav")


def test_floats_at_the_scale_of_integers_are_read_at_full_scale(tmp_path, caplog):
    pcm = tone(16_000)
    soundfile.write(tmp_path / "a.wav", pcm * 32768, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[0], pcm, atol=1e-6)
    assert "16-bit integers" in caplog.text


# ---------------------------------------------------------------- channels


def test_opposite_phase_is_heard(tmp_path, caplog):
    pcm = tone(16_000)
    soundfile.write(tmp_path / "a.wav", np.stack([pcm, -0.98 * pcm], 1), 16_000)
    assert np.abs(read_audio(tmp_path / "a.wav")[0] - pcm).max() < 1e-4
    assert "cancel each other" in caplog.text


@pytest.mark.parametrize("channels", [2, 4, 8])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_one_live_channel_of_many_keeps_its_level(channels, noise):
    pcm = tone(16_000)
    for live in (0, channels - 1):
        frames = noise * np.random.default_rng(0).standard_normal((len(pcm), channels)).astype(np.float32)
        frames[:, live] = pcm
        downmix = Downmix()
        out = np.concatenate([downmix(part) for part in np.array_split(frames, 13)])
        assert np.abs(out - pcm).max() < 1e-6 and f"only {live} carry sound" in downmix.remark


def test_usual_stereo_is_the_mean_and_says_nothing():
    left, right = tone(16_000, hz=300), tone(16_000, hz=500)
    silent = np.zeros_like(left)
    for frames in ([left, right], [left, left], [left, 0.3 * left], [silent, silent]):
        downmix = Downmix()
        stack = np.stack(frames, 1)
        np.testing.assert_allclose(downmix(stack), stack.mean(axis=1), atol=1e-6)
        assert downmix.remark == ""


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
