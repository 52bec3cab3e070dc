# SPDX-License-Identifier: Apache-2.0
"""Recordings: picture and sound start together and stay together, to the sample."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.media import mp4
from flowact_ros.media.errors import MediaError
from flowact_ros.media.mp4 import Mp4Writer, read_mp4
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

SIZE, FRAMES, FLASHES = 64, 60, (0, 11, 37, 58)


def flash_and_click(path, sound_pieces):
    """A dark clip that flashes for one frame and clicks at that very frame's first samples."""
    burst = np.random.default_rng(1).uniform(-0.9, 0.9, 96).astype(np.float32)
    pcm = np.zeros(FRAMES * SAMPLES_PER_FRAME, np.float32)
    for k in FLASHES:
        pcm[k * SAMPLES_PER_FRAME : k * SAMPLES_PER_FRAME + burst.size] = burst
    pieces = np.array_split(pcm, sound_pieces)
    with Mp4Writer(path, SIZE, SIZE) as writer:
        for k in range(FRAMES):
            writer.write_frame(np.full((SIZE, SIZE, 3), 250 if k in FLASHES else 20, np.uint8))
            while pieces and writer.samples < (k + 1) * SAMPLES_PER_FRAME:
                writer.write_audio(pieces.pop(0))
        for piece in pieces:
            writer.write_audio(piece)
    return pcm, burst


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("sound_pieces", [FRAMES, 7])
def test_flash_and_click_decode_at_the_same_instant(tmp_path, monkeypatch, encoder, sound_pieces):
    if encoder == "mpeg4":
        monkeypatch.setattr(mp4, "_has_encoder", lambda name: name != "libx264")
    pcm, burst = flash_and_click(tmp_path / "a.mp4", sound_pieces)
    clip = read_mp4(tmp_path / "a.mp4")
    assert clip.frames.shape == (FRAMES, SIZE, SIZE, 3) and clip.fps == FRAME_RATE
    assert np.allclose(clip.times, np.arange(FRAMES) / FRAME_RATE, atol=1e-6)
    assert tuple(np.flatnonzero(clip.frames.mean((1, 2, 3)) > 130)) == FLASHES
    assert clip.sample_rate == SAMPLE_RATE and abs(clip.pcm.size - pcm.size) <= 1
    for k in FLASHES:
        near = clip.pcm[max(0, (k - 2) * SAMPLES_PER_FRAME) : (k + 2) * SAMPLES_PER_FRAME]
        found = int(np.argmax(np.correlate(near, burst, "valid"))) + max(0, (k - 2) * SAMPLES_PER_FRAME)
        assert abs(found - k * SAMPLES_PER_FRAME) <= 24, (
            f"click {k} is {found - k * SAMPLES_PER_FRAME} samples off"
        )


def test_colours_and_first_frames_only(tmp_path):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, :48], picture[:, 48:] = (200, 40, 60), (30, 160, 90)
    with Mp4Writer(tmp_path / "c.mp4", 96, 48) as writer:
        for _ in range(10):
            writer.write_frame(picture)
    clip = read_mp4(tmp_path / "c.mp4", max_frames=4)
    assert clip.frames.shape == (4, 48, 96, 3) and clip.pcm.size == 0
    for x, expected in ((20, (200, 40, 60)), (76, (30, 160, 90))):
        assert np.abs(clip.frames[3, 24, x].astype(int) - expected).max() < 12


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.mp4"
    with pytest.raises(RuntimeError, match="power"), Mp4Writer(path, 64, 64) as writer:
        writer.write_frame(np.zeros((64, 64, 3), np.uint8))
        assert not path.exists()
        raise RuntimeError("power")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MediaError, match="nothing was recorded"):
        Mp4Writer(path, 64, 64).close()
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused(tmp_path):
    for width, height, rate in ((63, 64, 24_000), (0, 64, 24_000), (64, 64, 12_345)):
        with pytest.raises(MediaError, match="expected"):
            Mp4Writer(tmp_path / "x.mp4", width, height, 25, rate)
    with pytest.raises(MediaError, match="cannot write"):
        Mp4Writer(tmp_path / "no" / "x.mp4", 64, 64)
    writer = Mp4Writer(tmp_path / "x.mp4", 64, 64)
    with pytest.raises(MediaError, match="32x64"):
        writer.write_frame(np.zeros((64, 32, 3), np.uint8))
    for bad in (np.zeros((2, 5), np.float32), np.zeros(5, np.int16), np.array([np.nan], np.float32)):
        with pytest.raises(MediaError, match="write_audio"):
            writer.write_audio(bad)
    writer.discard()
    with pytest.raises(MediaError, match="closed"):
        writer.write_frame(np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "bad.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(50))
    for name, expected in (("none.mp4", "does not exist"), ("bad.mp4", "bad.mp4")):
        with pytest.raises(MediaError, match=expected):
            read_mp4(tmp_path / name)
