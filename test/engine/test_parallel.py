# SPDX-License-Identifier: Apache-2.0
"""One avatar on several processes: the same as on one, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowact_ros.engine.denoising import LatentPipeline
from flowact_ros.engine.parallel.build import Across, build_across
from flowact_ros.engine.parallel.ranks import Layout, RankLost
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.timebase import SAMPLES_PER_LATENT

CHUNKS = ((3, "speaking"), (1, "nods"), (3, ""))  # under an empty and a growing memory
DEMO = Path(__file__).parents[2] / "config" / "demo.wav"
TIMEOUT_S = 30.0  # on a machine that does much else


def picture() -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)


def chunks(pipeline: LatentPipeline, reference: Any) -> list[Any]:
    """Those of a short stream, which is saved and restored on its way."""
    state, made = pipeline.start(reference, 7), []
    for k, (count, text) in enumerate(CHUNKS):
        length = pipeline.context_samples + count * SAMPLES_PER_LATENT + pipeline.lookahead_samples
        sound = (0.1 * np.random.default_rng(k).standard_normal(length)).astype(np.float32)
        made.append(pipeline.denoise(state, sound, count, text))
        state = pipeline.advance(state, made[-1])
        if k == 1:
            state = pipeline.restore(pipeline.save(state), reference, 7)
    return made


def compare(alone: list[Any], shared: list[Any]) -> None:
    """Sums of other lengths round otherwise, nothing else differs."""
    for a, b in zip(alone, shared, strict=True):
        assert float(a.latents.abs().max()) > 0.5
        np.testing.assert_allclose(a.latents.numpy(), b.latents.numpy(), atol=1e-4)


@pytest.mark.slow
def test_two_ranks_share_the_frames_of_the_shipped_denoiser() -> None:
    """Diagonal: up to nine latents in flight, each of four frames, of which each rank has two."""
    settings = {"overrides": {"schedule": {"steps": 3, "order": "diagonal"}}, "runtime": "eager"}
    with build_across(Layout(("cpu", "cpu")), "avatar_cpu", timeout_s=TIMEOUT_S, **settings) as split:
        one = build_pipeline("avatar_cpu", precision="float32", **settings)
        one.check_references = split.check_references = False  # drawing it to look at it takes longest
        reference = one.load_reference(picture())
        compare(chunks(one, reference), chunks(split, reference))
        assert split.provenance.denoiser == "float32, 2 ranks" and one.provenance.denoiser == "float32"


@pytest.fixture(scope="module")
def spatial() -> Iterator[tuple[Across, list[str]]]:
    """Two ranks for the denoiser, one for the decoder; and what was said of a death."""
    died: list[str] = []
    across = build_across(
        Layout(("cpu", "cpu"), "cpu"), "avatar_spatial_debug", timeout_s=TIMEOUT_S, on_death=died.append,
        weights="random", overrides={"dit": {"width": 96, "heads": 2}, "schedule": {"steps": 2}},
    )  # fmt: skip
    yield across, died
    across.close()


def test_rows_of_a_latent_are_shared_and_drawn_elsewhere(spatial: tuple[Across, list[str]]) -> None:
    split = spatial[0].pipeline
    one = build_pipeline(
        "avatar_spatial_debug", weights="random", precision="float32",
        overrides={"dit": {"width": 96, "heads": 2}, "schedule": {"steps": 2}},
    )  # fmt: skip
    reference = one.load_reference(picture())
    alone, shared = chunks(one, reference), chunks(split, reference)
    compare(alone, shared)
    # The decoder was given each latent before anybody asked for frames, and memory was written meanwhile.
    assert [len(b.drawing) for b in shared] == [count for count, _ in CHUNKS]
    assert all(b.after is not None for b in shared) and all(a.drawing == () and a.after is None for a in alone)
    for a, b in zip(alone, shared):
        drawn, elsewhere = one.render(reference, a), split.render(reference, b)
        assert drawn.shape == elsewhere.shape == (4 * len(a), one.height, one.width, 3)
        assert np.abs(drawn.astype(int) - elsewhere).max() <= 1  # rounded to whole levels
        one_of_them = split.render(reference, replace(b[-1:], drawing=()))  # as in a replay: nothing was begun
        np.testing.assert_array_equal(one_of_them, elsewhere[-4:])


def test_a_rank_that_dies_is_named(spatial: tuple[Across, list[str]]) -> None:
    """Last of this file: the ranks are gone then."""
    across, died = spatial
    began = time.monotonic()
    os.kill(across.ranks.pids[0], signal.SIGKILL)
    with pytest.raises(RankLost, match="rank 1 of 3, on cpu, was ended by SIGKILL"):
        chunks(across.pipeline, across.pipeline.load_reference(picture()))
    assert time.monotonic() - began < TIMEOUT_S  # it is not waited for
    assert died == ["rank 1 of 3, on cpu, was ended by SIGKILL: the avatar needs all its ranks"]


def test_devices_that_cannot_be_together() -> None:
    with pytest.raises(ValueError, match="different kinds"):
        Layout(("cpu", "cuda:0"))
    with pytest.raises(ValueError, match="cuda:0 is named twice"):
        Layout(("cuda:0", "cuda:0"))
    with pytest.raises(ValueError, match="no device is named"):
        Layout(())
    with pytest.raises(ValueError, match="precision int8 cannot be split"):
        build_across(Layout(("cpu", "cpu")), "avatar_cpu", precision="int8")


def test_weights_that_are_not_there_end_all_ranks() -> None:
    with pytest.raises(CheckpointError, match="comes without weights"):
        build_across(Layout(("cpu", "cpu")), "avatar_spatial_debug")


@pytest.mark.slow
def test_all_processes_of_a_film_end_when_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowact_ros.cli", "render", str(DEMO), str(tmp_path / "out.mp4"), "--json"]
    command += ["--preset", "debug", "--seconds", "3600", "--devices", "cpu,cpu", "--decoder", "cpu"]
    film = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: (tmp_path / "out.mp4.part").exists() or film.poll() is not None)
        first, second = map(int, Path(f"/proc/{film.pid}/task/{film.pid}/children").read_text().split())
        os.kill(first, signal.SIGKILL)
        out, said = film.communicate(timeout=60.0)
    finally:
        film.kill()
    assert film.returncode == 1 and out == ""
    lines = [line for line in said.splitlines() if line.startswith("flowact: ")]
    assert lines[0] == "flowact: rank 1 of 3, on cpu, was ended by SIGKILL: the avatar needs all its ranks"
    assert len(lines) <= 2  # the decoder's own, if it was quicker to say it than the test to read
    until(lambda: not Path(f"/proc/{second}").exists())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 200.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
