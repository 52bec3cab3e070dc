# SPDX-License-Identifier: Apache-2.0
"""`flowact data prepare`: clips become shots of 25 frames a second with their sound, and bad ones are named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors import SafetensorError

from flowact_ros.data import footage, footage_faces, footage_store, prepare
from flowact_ros.data.characters import NAMED, landmarks, neutral, neutral_picture
from flowact_ros.data.footage import Preparation
from flowact_ros.data.footage_faces import RendererFinder, square_around, track
from flowact_ros.data.footage_store import read_footage
from flowact_ros.media.clip_reader import ClipReader
from flowact_ros.media.errors import MediaError
from flowact_ros.media.mp4 import Mp4Writer
from flowact_ros.models.config import preset

HEIGHT, WIDTH, RATE = 240, 320, 44_100
FACE = np.array([[180, 150], [150, 100], [210, 100]], np.float32)  # mouth, left and right eye


class BrightFinder:
    """Says that there is a face, always at `FACE`, in pictures that are bright."""

    name = "bright"

    def find(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        return [FACE * (len(picture) / HEIGHT) if picture.mean() > 90 else None for picture in pictures]


def picture(level: int, k: int) -> np.ndarray:
    """Stripes of a level, and a column of light whose place tells the frame."""
    frame = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    frame[::8] //= 2
    frame[:, 8 + k : 12 + k] = 255
    return frame


def clip(path: Path, levels: list[tuple[int, int]], *, fps: int = 25, sound: bool = True) -> Path:
    """Shots of (level, frames); a click sounds at one second."""
    with Mp4Writer(path, WIDTH, HEIGHT, fps, RATE) as writer:
        for level, frames in levels:
            for k in range(frames):
                writer.write_frame(picture(level, k))
        if sound:
            pcm = np.zeros(round(sum(n for _, n in levels) / fps * RATE), np.float32)
            pcm[RATE : RATE + 400] = 0.8
            writer.write_audio(pcm)
    return path


@pytest.fixture
def preparation(tmp_path: Path) -> Preparation:
    (tmp_path / "out").mkdir()
    return Preparation(tmp_path / "out", preset("debug"), BrightFinder(), "embedded")


def test_a_clip_becomes_shots(preparation: Preparation, tmp_path: Path) -> None:
    path = clip(tmp_path / "two.mp4", [(140, 90), (40, 72), (200, 66)], fps=30)  # 3.0 s, 2.4 s in the dark, 2.2 s
    told = preparation.add(path)
    assert told.startswith("2 shots, 5.2 s") and "no face from 3.0 to 5.4 s" in told
    first, second = read_footage(preparation.out)
    assert (len(first), first.start, len(second), second.start) == (75, 0.0, 55, 5.4)
    assert first.picture(0).shape == (3, 128, 128) and first.array("sound").shape == (75, 384)
    assert abs(float(first.picture(40).mean()) - 131) < 8 and abs(float(second.picture(20).mean()) - 187) < 8
    pcm = first.array("pcm")
    assert len(pcm) == 75 * 960 and abs(int(np.abs(pcm).argmax()) - 24_000) < 600  # the click stays at one second
    square = square_around(FACE[None], HEIGHT, WIDTH)
    assert np.allclose(first.places[3], (FACE - (square.left, square.top)) * (128 / square.side), atol=40)


def test_what_is_there_is_not_made_again(preparation: Preparation, tmp_path: Path) -> None:
    one = clip(tmp_path / "one.mp4", [(140, 60)])
    preparation.add(one)
    (shot,) = preparation.out.glob("*.safetensors")
    written = shot.stat().st_mtime_ns
    again = Preparation(preparation.out, preset("debug"), BrightFinder(), "embedded")
    one.rename(tmp_path / "renamed.mp4")
    assert again.add(tmp_path / "renamed.mp4") == "1 shots are there"
    assert shot.stat().st_mtime_ns == written
    shot.unlink()
    assert again.add(tmp_path / "renamed.mp4").startswith("1 shots, 2.4 s")
    with pytest.raises(ValueError, match="was prepared with size 128, not 480; give another folder"):
        Preparation(preparation.out, preset("avatar_cpu"), BrightFinder(), "embedded")


def test_a_variable_frame_rate(preparation: Preparation, tmp_path: Path) -> None:
    path, times = tmp_path / "phone.mp4", [0, 20, 100, 110, 240, 300, 700, 1500, 1510, 2600]  # [ms]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1000)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for k, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(140, 25 * k), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for k in range(0, RATE * 5 // 2, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = RATE, k
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    preparation.add(path)
    (shot,) = read_footage(preparation.out)
    assert 60 <= len(shot) <= 68  # 2.6 s
    # between 0.7 and 1.5 s the sixth picture is shown
    assert np.abs(shot.picture(20).astype(int) - shot.picture(34)).mean() < 2
    assert np.abs(shot.picture(20).astype(int) - shot.picture(45)).mean() > 2


def test_a_phone_that_was_held_upright(tmp_path: Path) -> None:
    """Its file is wide, and says to be turned by a quarter to the right."""
    path = clip(tmp_path / "upright.mp4", [(140, 10)])
    one = 1 << 16
    as_it_is, turned = (np.array(m, ">i4").tobytes() for m in ([one, 0, 0, 0, one], [0, one, 0, -one, 0]))
    content = path.read_bytes()
    at = content.index(as_it_is, content.index(b"tkhd"))  # of the first track, which is the pictures'
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    (first, cut), *rest = ClipReader(path).frames()
    assert first.shape == (WIDTH, HEIGHT, 3) and cut and len(rest) == 9
    assert first[8:12].mean() > 200 > first[40:].mean()  # the column on the left is now a row on top


def damaged(path: Path) -> Path:
    whole = clip(path, [(140, 190), (180, 10)]).read_bytes()
    path.write_bytes(whole[: len(whole) * 9 // 10] + bytes(len(whole) // 10))
    return path


def test_a_damaged_end_is_left_out(preparation: Preparation, tmp_path: Path) -> None:
    told = preparation.add(damaged(tmp_path / "torn.mp4"))
    (shot,) = read_footage(preparation.out)
    assert 50 <= len(shot) < 200 and "damaged at" in told and told.endswith("what came before is kept")
    cut = clip(tmp_path / "cut.mp4", [(140, 190), (180, 10)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 7 // 10])
    assert preparation.add(cut).startswith("1 shots")
    assert all(50 <= len(shot) < 200 for shot in read_footage(preparation.out))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: clip(p, [(140, 60)], sound=False), "has no sound"),
        (lambda p: clip(p, [(40, 60)]), "no face from 0.0 to 2.4 s"),
        (lambda p: clip(p, [(140, 20)]), "from 0.0 to 0.8 s is shorter than 2 s"),
        (lambda p: p.write_text("not a video"), "is no video that can be read"),
        (lambda p: p.write_bytes(b""), "is no video that can be read"),
        (lambda p: p.write_bytes(clip(p.with_name("x.mp4"), [(140, 60)]).read_bytes()[:900]), "no video"),
        (lambda p: None, "does not exist"),
    ],
)
def test_clips_that_cannot_be_used(make, says: str, preparation: Preparation, tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(MediaError, match=says) as told:
        preparation.add(path)
    assert "bad.mp4" in str(told.value)
    assert not list(preparation.out.iterdir())


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(footage, "RendererFinder", lambda config: BrightFinder())
    good = clip(tmp_path / "good.mp4", [(140, 60)])
    bad = tmp_path / "notes.txt"
    bad.write_text("no video")
    options = ["--out", str(tmp_path / "out"), "--preset", "debug"]
    assert prepare.main(["prepare", str(bad), str(good), *options]) == 0
    told = capsys.readouterr()
    assert "2/2" in told.out and "1 of 2 clips can be used" in told.out
    assert told.err.count("\n") == 1 and told.err.startswith("1/2 skipped: ") and "notes.txt" in told.err
    assert prepare.main(["prepare", str(bad), *options]) == 1

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    other = clip(tmp_path / "other.mp4", [(150, 60)])
    monkeypatch.setattr(footage_store, "save_file", full)
    capsys.readouterr()
    assert prepare.main(["prepare", str(other), *options]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 2  # the shot and the list of before
    (tmp_path / "out" / "footage.json").write_text("{")
    assert prepare.main(["prepare", str(good), *options]) == 2
    assert "footage.json is damaged; remove it" in capsys.readouterr().err


def test_a_damaged_shot_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no footage; make it with `flowact data prepare"):
        read_footage(tmp_path)
    (tmp_path / "0.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="0.safetensors is no shot of prepared footage"):
        read_footage(tmp_path)


def test_drawn_characters_are_found_where_they_are() -> None:
    finder = RendererFinder(preset("avatar_cpu"))
    wide = np.pad(neutral_picture(NAMED["mia"], 480), ((0, 0), (60, 200), (0, 0)), mode="edge")
    noise = np.random.default_rng(0).integers(0, 255, wide.shape, np.uint8)
    found, none = finder.find([wide, noise])
    true = landmarks(NAMED["mia"], neutral(1), 480)
    for place, name in zip(found, ("mouth", "eye_left", "eye_right")):
        assert np.abs(place - (true[name][0].numpy() + (60, 0))).max() < 8, name
    assert none is None
    square = square_around(found[None], *wide.shape[:2])
    assert abs(square.left - 60) < 12 and square.side >= 460


def test_gaps_are_filled_and_small_faces_are_refused() -> None:
    assert track([None, None]) is None
    between = track([FACE, None, FACE + 4])
    assert np.allclose(between.places[1], FACE + 2) and between.found == pytest.approx(2 / 3)
    small = FACE[None] * 0.2
    assert square_around(small, HEIGHT, WIDTH) is None
    assert footage_faces.is_face(FACE / HEIGHT) and not footage_faces.is_face(FACE[::-1] / HEIGHT)
