# SPDX-License-Identifier: Apache-2.0
"""Sound of other packages; plain classes with their fields stand in for their messages, which are in no wheel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from ros4hri_stand_ins import install
from std_msgs.msg import Header

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_adapter import Inward, Outward
from flowact_ros.nodes.audio_formats import DATA, DATA_STAMPED, RAW, STAMPED, AudioFormat, Form
from flowact_ros.nodes.convert import ConversionError, audio_array, audio_message, to_time
from flowact_ros.nodes.params import ParameterError

TONE = (np.sin(np.arange(960) * 0.1) * 9000).astype(np.int16)


@dataclass
class AudioData:
    data: bytes = b""


@dataclass
class AudioDataStamped:
    header: Header = field(default_factory=Header)
    audio: AudioData = field(default_factory=AudioData)


@dataclass
class AudioInfo:
    channels: int = 0
    sample_rate: int = 0
    sample_format: str = ""
    bitrate: int = 0
    coding_format: str = ""


@dataclass
class Numbers:
    float32_data: list = field(default_factory=list)
    int32_data: list = field(default_factory=list)
    int24_data: list = field(default_factory=list)
    int16_data: list = field(default_factory=list)
    int8_data: list = field(default_factory=list)
    uint8_data: list = field(default_factory=list)


@dataclass
class PortAudioInfo:
    format: int = 0
    channels: int = 0
    rate: int = 0
    chunk: int = 0


@dataclass
class Audio:
    audio_data: Numbers = field(default_factory=Numbers)
    info: PortAudioInfo = field(default_factory=PortAudioInfo)


@dataclass
class AudioStamped:
    header: Header = field(default_factory=Header)
    audio: Audio = field(default_factory=Audio)


@dataclass
class RawAudio:
    timestamp: Time = field(default_factory=Time)
    data: bytes = b""
    format: str = ""
    sample_rate: int = 0
    number_of_channels: int = 0


class Board:
    """Stands in for a node: keeps what is published, and callbacks, by their topic."""

    def __init__(self) -> None:
        self.shown: dict[str, list[Any]] = {}
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def add_publisher(self, kind: type, name: str, qos: Any = None) -> Any:
        self.shown[name] = []
        return SimpleNamespace(publish=self.shown[name].append)

    def add_subscription(self, kind: type, name: str, callback: Callable[[Any], None], qos: Any = None) -> None:
        self.callbacks[name] = callback

    def now_ns(self) -> int:
        return 5_000_000_000


@pytest.fixture
def ros_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"AudioData": AudioData, "AudioDataStamped": AudioDataStamped, "AudioInfo": AudioInfo}
    install(monkeypatch, "audio_common_msgs", "msg", **kinds)


@pytest.fixture
def mgonzs13(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "audio_common_msgs", "msg", AudioStamped=AudioStamped, AudioData=Numbers, AudioInfo=AudioInfo)


@pytest.fixture
def foxglove(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "foxglove_msgs", "msg", RawAudio=RawAudio)


def test_ros_drivers_bytes_are_described_beside_them(ros_drivers: None) -> None:
    board = Board()
    Inward(board, AudioFormat(DATA_STAMPED, Form()), "audio_stamped", "audio_info", topics.MIC)
    first = AudioDataStamped(audio=AudioData(TONE.tobytes()))
    first.header.stamp.sec = 7
    board.callbacks["audio_stamped"](first)
    board.callbacks["audio_info"](AudioInfo(2, 48_000, "S16LE", 0, "wave"))
    board.callbacks["audio_stamped"](AudioDataStamped(audio=AudioData(TONE.tobytes())))
    one, two = board.shown[topics.MIC]
    assert (one.sample_rate, one.channels, one.encoding, one.header.stamp.sec) == (16_000, 1, "S16LE", 7)
    assert one.data.tobytes() == TONE.tobytes()
    assert (two.sample_rate, two.channels, two.sequence, two.first_sample) == (48_000, 2, 1, 960)
    assert two.header.stamp.sec == 5  # the clock of now, where theirs is not set
    with pytest.raises(ConversionError, match="the sound is 'mp3': have its publisher send 'wave'"):
        board.callbacks["audio_info"](AudioInfo(1, 16_000, "", 0, "mp3"))
    with pytest.raises(ConversionError, match="its bytes are no samples"):
        board.callbacks["audio_stamped"](first)


@pytest.mark.parametrize(
    ("number", "name", "samples"),
    [
        (1, "float32_data", TONE / 32768.0),
        (2, "int32_data", TONE.astype(np.int64) * 65536),
        (4, "int24_data", TONE.astype(np.int64) * 256),
        (8, "int16_data", TONE),
        (16, "int8_data", TONE // 256),
        (32, "uint8_data", TONE // 256 + 128),
    ],
)
def test_portaudio_numbers(mgonzs13: None, number: int, name: str, samples: np.ndarray) -> None:
    message = AudioStamped(audio=Audio(info=PortAudioInfo(number, 1, 16_000, 960)))
    setattr(message.audio.audio_data, name, samples.tolist())
    pcm, rate = audio_array(AudioFormat(STAMPED, Form()).read(message))
    assert rate == 16_000 and np.abs(pcm - TONE / 32768.0).max() <= (1 / 128 if "8_data" in name else 1e-6)


def test_a_portaudio_format_that_is_none(mgonzs13: None) -> None:
    message = AudioStamped(audio=Audio(info=PortAudioInfo(64, 1, 16_000, 960)))
    with pytest.raises(ConversionError, match="format 64: must be one of 1, 2, 4, 8, 16, 32"):
        AudioFormat(STAMPED, Form()).read(message)


def test_what_is_said_goes_out_in_every_form(
    ros_drivers: None, foxglove: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = audio_message(TONE / np.float32(32768), 24_000, to_time(7_000_000_000))
    for name in (DATA_STAMPED, DATA):
        board = Board()
        Outward(board, AudioFormat(name, Form()), "theirs", "theirs_info")
        board.callbacks[topics.AUDIO](said)
        board.callbacks[topics.AUDIO](said)
        assert board.shown["theirs_info"] == [AudioInfo(1, 24_000, "S16LE", 384_000, "wave")]
        sent = board.shown["theirs"][1]
        assert bytes(sent.audio.data if name == DATA_STAMPED else sent.data) == TONE.tobytes()
    raw = AudioFormat(RAW, Form()).write(said)
    assert (raw.timestamp.sec, raw.format, raw.sample_rate, raw.number_of_channels) == (7, "pcm-s16", 24_000, 1)
    back = AudioFormat(RAW, Form()).read(raw)
    assert (back.data, back.sample_rate, back.header.stamp.sec) == (said.data, 24_000, 7)
    raw.format = "opus"
    with pytest.raises(ConversionError, match="format 'opus': must be 'pcm-s16'"):
        AudioFormat(RAW, Form()).read(raw)
    install(monkeypatch, "audio_common_msgs", "msg", AudioStamped=AudioStamped)
    stamped = AudioFormat(STAMPED, Form()).write(said)
    assert stamped.audio.audio_data.int16_data == TONE.tolist() and stamped.audio.info.format == 8
    assert AudioFormat(STAMPED, Form()).read(stamped).data == said.data
    with pytest.raises(ConversionError, match="its last sample is not whole"):
        AudioFormat(STAMPED, Form()).write(AudioChunk(sample_rate=24_000, channels=1, encoding="S16LE", data=b"abc"))


def test_packages_that_are_not_there_or_not_the_right_one(
    mgonzs13: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (DATA, DATA_STAMPED):
        with pytest.raises(ParameterError, match="is of ros-drivers.s audio_common_msgs.*try audio_common_msgs/AudioS"):
            AudioFormat(name, Form())
    monkeypatch.setitem(sys.modules, "foxglove_msgs", None)
    with pytest.raises(ParameterError, match="foxglove_msgs, which is not installed"):
        AudioFormat(RAW, Form())
    install(monkeypatch, "audio_common_msgs", "msg", AudioData=AudioData, AudioInfo=AudioInfo)
    monkeypatch.delattr(sys.modules["audio_common_msgs.msg"], "AudioStamped", raising=False)
    with pytest.raises(ParameterError, match="is of mgonzs13's audio_common_msgs.*try audio_common_msgs/AudioDataSt"):
        AudioFormat(STAMPED, Form())
