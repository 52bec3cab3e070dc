# SPDX-License-Identifier: Apache-2.0
"""`flowact data prepare --cluster`: workers on a local Ray make the very shots that one process makes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from flowact_ros.data.footage import LOCAL, Made, Preparation
from flowact_ros.data.footage import main as prepare
from flowact_ros.media.errors import MediaError
from flowact_ros.media.mp4 import Mp4Writer
from flowact_ros.models.config import preset


def clip(path: Path, level: int) -> Path:
    """Two and a half seconds of stripes, with a hum."""
    with Mp4Writer(path, 320, 240, 25, 44_100) as writer:
        for k in range(62):
            frame = np.full((240, 320, 3), level, np.uint8)
            frame[::8, k:] //= 2
            writer.write_frame(frame)
        writer.write_audio(0.2 * np.sin(np.arange(44_100 * 62 // 25) / 50).astype(np.float32))
    return path


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs the extra cluster")
    from flowact_ros.data.footage_cluster import Cluster, made_on

    class Finder:  # inside the test, so that workers get it as it is
        name = "everywhere"

        def find(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
            face = np.array([[180, 150], [150, 100], [210, 100]], np.float32)
            return [face * (len(picture) / 240) for picture in pictures]

    clips = [clip(tmp_path / f"{level}.mp4", level) for level in (120, 200)]
    bad = tmp_path / "notes.txt"
    bad.write_text("no video")
    here = tmp_path / "here"
    there = tmp_path / "there"
    here.mkdir(), there.mkdir()

    def make() -> Preparation:
        return Preparation(there, preset("debug"), Finder(), "embedded")

    alone, driver = Preparation(here, preset("debug"), Finder(), "embedded"), make()
    for path in clips:
        alone.add(path)
    found = dict(made_on(Cluster(LOCAL, workers=2, threads=1), [*clips, bad], make))
    assert isinstance(found[bad], MediaError) and "notes.txt" in str(found[bad])
    for path in clips:
        made = found[path]
        assert isinstance(made, Made) and driver.list_clip(made).startswith("1 shots, 2.5 s")
    shots = sorted(path.name for path in here.glob("*.safetensors"))
    assert len(shots) == 2 and shots == sorted(path.name for path in there.glob("*.safetensors"))
    for name in shots:
        with safe_open(str(here / name), "np") as one, safe_open(str(there / name), "np") as other:
            assert one.metadata() == other.metadata()
            for key in one.keys():
                assert np.array_equal(one.get_tensor(key), other.get_tensor(key)), key
    assert make().add(clips[0]) == "1 shots are there"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_is_no_address_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "debug", "--out", str(tmp_path / "out")]
    assert prepare(["a.mp4", *options, "--cluster", "b.mp4"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "--cluster b.mp4 is no address; give auto, HOST:PORT" in told
