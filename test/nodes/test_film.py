# SPDX-License-Identifier: Apache-2.0
"""Both sides of a conversation in a recording: the user's voice in its place, captions in time, and the text."""

from __future__ import annotations

import numpy as np

from flowact_msgs.msg import Transcript
from flowact_ros.nodes.convert import to_time
from flowact_ros.nodes.film_text import FilmText
from flowact_ros.nodes.recorder import VOICE_WAIT_FRAMES, Aligner
from flowact_ros.nodes.voice_track import VoiceTrack

SECOND = 1_000_000_000
START = 1000 * SECOND
FRAME = SECOND // 25


class Film:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.sound: list[np.ndarray] = []

    def write_frame(self, rgb: np.ndarray) -> None:
        self.frames.append(rgb)

    def write_audio(self, pcm: np.ndarray) -> None:
        self.sound.append(pcm)


def caption(text: str, at_s: float, side: str, *, final: bool = False, start_s: float = 0.0) -> Transcript:
    message = Transcript(text=text, final=final)
    message.header.frame_id, message.header.stamp = side, to_time(START + round(at_s * SECOND))
    message.start, message.end = to_time(START + round(start_s * SECOND)), message.header.stamp
    return message


def test_stamps_that_shake_leave_no_gap_in_a_voice() -> None:
    track, rng = VoiceTrack(), np.random.default_rng(0)
    voice = rng.normal(0, 0.1, 16000).astype(np.float32)
    out, ends = [], []
    for at in range(0, len(voice), 640):
        stamp = START + at * SECOND // 16000 + int(rng.integers(-20, 20)) * 1_000_000
        first, pcm = track.take(stamp, voice[at : at + 640], 16000)
        out.append((first, pcm))
        ends.append(first + len(pcm) * SECOND // 24000)
    assert all(abs(first - end) <= 100_000 for (first, _), end in zip(out[1:], ends, strict=False))
    assert abs(sum(len(pcm) for _, pcm in out) - 24000) < 1500
    # A microphone that was away for a while goes on where its stamp says.
    first, _ = track.take(START + 60 * SECOND, voice[:640], 16000)
    assert first == START + 60 * SECOND


def test_the_voice_is_mixed_in_where_it_belongs() -> None:
    film = Film()
    aligner = Aligner(film, START, voices=True)  # type: ignore[arg-type]
    spoken, voice = np.full(960, 0.25, np.float32), np.full(1000, 0.5, np.float32)
    aligner.add_voice(START - SECOND, voice)  # before the film
    for n in range(30):
        aligner.add_picture(START + n * FRAME, np.zeros((16, 16, 3), np.uint8))
        aligner.add_sound(START + n * FRAME, spoken)
        aligner.write()
        if n == 8:  # later than the frame: as microphones are
            aligner.add_voice(START + 4 * FRAME + 480 * SECOND // 24000, voice)
    assert len(film.frames) == 30 - VOICE_WAIT_FRAMES
    aligner.write(finish=True)
    sound = np.concatenate(film.sound)
    assert len(sound) == 30 * 960
    begin = 4 * 960 + 480
    np.testing.assert_allclose(sound[begin : begin + 1000], 0.75)
    np.testing.assert_allclose(np.delete(sound, np.s_[begin : begin + 1000]), 0.25)


def test_words_are_seen_from_when_they_are_heard() -> None:
    text = FilmText()
    for message in (
        caption("When do you open?", 1.0, "user", final=True, start_s=0.2),
        caption("We", 2.0, "avatar"),
        caption("", 2.1, "avatar"),
        caption("We open", 2.2, "avatar", final=True, start_s=2.0),
    ):
        text.add(message)
    times = (0.5, 1.0, 1.9, 2.0, 2.2, 4.0, 4.3)
    seen = [text.at(START + round(t * SECOND))[0] for t in times]
    assert seen == ["", "When do you open?", "When do you open?", "We", "We open", "We open", ""]
    lines = text.transcript(START).splitlines()
    assert [line.split(maxsplit=3) for line in lines] == [
        ["0.20", "1.00", "user", "When do you open?"],
        ["2.00", "2.20", "avatar", "We open"],
    ]
    assert FilmText().transcript(START) == ""


def test_captions_are_burnt_into_the_frames_they_belong_to() -> None:
    film, text = Film(), FilmText()
    aligner = Aligner(film, START, text)  # type: ignore[arg-type]
    text.add(caption("Hello", 0.4, "avatar", final=True))
    for n in range(25):
        aligner.add_picture(START + n * FRAME, np.zeros((128, 128, 3), np.uint8))
        aligner.add_sound(START + n * FRAME, np.zeros(960, np.float32))
    aligner.write(finish=True)
    assert [bool(frame.any()) for frame in film.frames] == [n >= 10 for n in range(25)]
