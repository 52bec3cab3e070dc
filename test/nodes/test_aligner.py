# SPDX-License-Identifier: Apache-2.0
"""The recorder's aligner: pictures and sound where their stamps say, whatever order they arrive in or is missing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from flowact_ros.nodes.recorder import FRAME_NS, SOUND_WAIT_FRAMES, Aligner

START = 1_700_000_000_123_456_789


class Writer:
    """Keeps what is written: the number drawn in a picture, the number that a block of sound is full of."""

    def __init__(self) -> None:
        self.pictures: list[int] = []
        self.sound: list[np.ndarray] = []

    def write_frame(self, rgb: np.ndarray) -> None:
        self.pictures.append(int(rgb[0, 0, 0]))

    def write_audio(self, pcm: np.ndarray) -> None:
        self.sound.append(pcm)

    @property
    def heard(self) -> list[int]:
        return [round(float(block[0])) for block in self.sound]


def picture(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def sound(number: int) -> np.ndarray:
    return np.full(960, number, np.float32)


def align(events: list[tuple[str, int]], **options) -> tuple[Writer, Aligner]:
    """Events ("p" or "s", frame number); number n carries the value n."""
    writer = Writer()
    aligner = Aligner(writer, START)
    for kind, number in events:
        if kind == "p":
            aligner.add_picture(START + number * FRAME_NS, picture(number))
        else:
            aligner.add_sound(START + number * FRAME_NS, sound(number))
        aligner.write()
    aligner.write(**options)
    return writer, aligner


def test_in_order() -> None:
    writer, aligner = align([(kind, n) for n in range(10) for kind in "ps"])
    assert writer.pictures == writer.heard == list(range(10))
    assert (aligner.written, aligner.missing_pictures, aligner.missing_sound) == (10, 0, 0)
    assert all(len(block) == 960 for block in writer.sound)


def test_any_order_within_a_second() -> None:
    rng = random.Random(1)
    events = sorted(
        [(kind, n) for n in range(60) for kind in "ps"], key=lambda event: event[1] + rng.uniform(0, 12)
    )
    writer, _ = align(events)
    assert writer.pictures == writer.heard == list(range(60))


def test_a_missing_picture_is_the_one_before() -> None:
    events = [(kind, n) for n in range(60) for kind in "ps" if (kind, n) not in {("p", 5), ("p", 6)}]
    writer, aligner = align(events, finish=True)
    assert writer.pictures[3:8] == [3, 4, 4, 4, 7]
    assert writer.heard == list(range(60))
    assert aligner.missing_pictures == 2


def test_missing_sound_is_silence_and_nothing_moves() -> None:
    events = [(kind, n) for n in range(60) for kind in "ps" if (kind, n) != ("s", 5)]
    writer, aligner = align(events, finish=True)
    assert writer.pictures == list(range(60))
    assert writer.heard == [*range(5), 0, *range(6, 60)]
    assert aligner.missing_sound == 1


def test_sound_before_the_first_picture_is_cut_and_late_sound_waited_for() -> None:
    writer = Writer()
    aligner = Aligner(writer, START)
    for n in range(-3, 2):
        aligner.add_sound(START + n * FRAME_NS, sound(n))
    for n in range(SOUND_WAIT_FRAMES - 1):
        aligner.add_picture(START + n * FRAME_NS, picture(n))
        aligner.write()
    assert writer.pictures == [0, 1] and writer.heard == [0, 1]


def test_a_long_chunk_is_many_frames() -> None:
    writer = Writer()
    aligner = Aligner(writer, START)
    aligner.add_sound(START, np.concatenate([sound(1), sound(2), sound(3)[:100]]))
    for n in range(3):
        aligner.add_picture(START + n * FRAME_NS, picture(n))
    aligner.write()
    assert writer.heard == [1, 2, 3]
    assert len(writer.sound[2]) == 960 and not writer.sound[2][100:].any()


@pytest.mark.parametrize("until", [0, 1, 7])
def test_until(until: int) -> None:
    writer = Writer()
    aligner = Aligner(writer, START)
    for n in range(10):
        aligner.add_picture(START + n * FRAME_NS, picture(n))
        aligner.add_sound(START + n * FRAME_NS, sound(n))
    aligner.write(until=until, finish=True)
    assert len(writer.pictures) == len(writer.sound) == until


@pytest.mark.parametrize("by", [90_000, -90_000])
def test_a_clock_that_is_set_makes_no_gap(by: int) -> None:
    """An hour, in frames: neither is that much written, nor is anything waited for."""
    events = [(kind, n) for n in range(10) for kind in "sp"]
    events += [("s", by + 10), ("p", 10), *((kind, by + n) for n in range(10, 30) for kind in "sp")]
    writer = Writer()
    aligner = Aligner(writer, START)
    for kind, number in events:
        add, made = (aligner.add_picture, picture) if kind == "p" else (aligner.add_sound, sound)
        add(START + number * FRAME_NS, made(number % 200))
        aligner.write()
    aligner.write(finish=True)
    assert 28 <= aligner.written <= 31 and aligner.missing_pictures + aligner.missing_sound <= 4
    assert writer.pictures[:11] == [n % 200 for n in range(11)] and writer.pictures[-1] == (by + 29) % 200
