# SPDX-License-Identifier: Apache-2.0
"""Choosing and reading a microphone, with a stand-in for PortAudio; cutting a live voice into utterances."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from flowact_ros.nodes import microphone
from flowact_ros.nodes.microphone import Microphone
from flowact_ros.nodes.sound_device import DeviceError, choose_device

DEVICES = [
    {"name": "HDMI out", "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "Built-in Microphone", "max_input_channels": 2, "default_samplerate": 44100.0},
    {"name": "ReSpeaker USB (hw:1,0)", "max_input_channels": 6, "default_samplerate": 16000.0},
]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("", None),
        ("default", None),
        ("Default", None),
        ("1", 1),
        (" 2 ", 2),
        ("usb", 2),
        ("built-in", 1),
        ("hw:1", 2),
    ],
)
def test_choice(wanted: str, index: int | None) -> None:
    assert choose_device(DEVICES, wanted) == index


@pytest.mark.parametrize("wanted", ["0", "7", "-1", "camera"])
def test_a_wrong_choice_lists_what_there_is(wanted: str) -> None:
    with pytest.raises(DeviceError, match="1: Built-in Microphone; 2: ReSpeaker USB") as caught:
        choose_device(DEVICES, wanted)
    assert wanted in str(caught.value) and "HDMI" not in str(caught.value)


def test_no_input_at_all() -> None:
    with pytest.raises(DeviceError, match="no input device"):
        choose_device(DEVICES[:1], "default")


class FakeStream:
    def __init__(self, **options: Any) -> None:
        self.options = options
        self.closed = False

    def start(self) -> None:
        if self.options["device"] == 2:
            raise FakePortAudioError("device is busy")

    def close(self, ignore_errors: bool) -> None:
        self.closed = True


class FakePortAudioError(Exception):
    pass


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    def check(device: Any, channels: int, dtype: str, samplerate: int) -> None:
        if device == 1 and samplerate != 44100:
            raise FakePortAudioError("invalid sample rate")

    def query(device: Any = "all", kind: str | None = None) -> Any:
        return DEVICES if device == "all" else DEVICES[1 if device is None else device]

    fake = types.SimpleNamespace(
        PortAudioError=FakePortAudioError,
        query_devices=query,
        check_input_settings=check,
        InputStream=FakeStream,
        rescans=0,
    )
    fake._initialize = lambda: setattr(fake, "rescans", fake.rescans + 1)
    fake._terminate = lambda: None
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_blocks_arrive_with_the_time_of_their_first_sample(portaudio: types.SimpleNamespace) -> None:
    mic = Microphone("default", 16000, 0.04)
    assert (mic.name, mic.rate) == ("Built-in Microphone", 16000)
    options = mic._stream.options
    assert (options["blocksize"], options["channels"], options["samplerate"]) == (640, 1, 16000)
    data = np.arange(640, dtype=np.float32)[:, None]
    options["callback"](data, 640, None, None)
    data[:] = -1  # PortAudio reuses its buffer
    block = mic.read()
    np.testing.assert_array_equal(block.pcm, np.arange(640))
    options["callback"](data, 640, None, None)
    assert mic.read().captured >= block.captured
    assert mic.read(timeout_s=0.01) is None
    mic.close()
    assert mic._stream.closed


def test_the_devices_own_rate_where_the_wished_one_cannot_be(portaudio: types.SimpleNamespace) -> None:
    assert Microphone("built-in", 16000, 0.04).rate == 44100


def test_a_busy_device_and_a_rescan(portaudio: types.SimpleNamespace) -> None:
    with pytest.raises(DeviceError, match="'usb' cannot be opened: device is busy"):
        Microphone("usb", 16000, 0.04)
    assert portaudio.rescans == 0
    Microphone("default", 16000, 0.04, rescan=True)
    assert portaudio.rescans == 1


def test_a_slow_reader_loses_blocks_and_they_are_counted(portaudio: types.SimpleNamespace) -> None:
    mic = Microphone("default", 16000, 0.04)
    callback = mic._stream.options["callback"]
    for _ in range(microphone.QUEUE_BLOCKS + 3):
        callback(np.zeros((640, 1), np.float32), 640, None, None)
    callback(np.zeros((640, 1), np.float32), 640, None, types.SimpleNamespace(input_overflow=True))
    assert mic.overflows == 5


def test_no_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceError, match="libportaudio2"):
        Microphone("default", 16000, 0.04)
