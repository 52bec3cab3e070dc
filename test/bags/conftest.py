# SPDX-License-Identifier: Apache-2.0
"""Recordings made of a short offline session, with and without what `flowact record` adds."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import ChunkRecord, Frame

NEEDS_ROS = tuple(f"test_bag_{name}.py" for name in ("files", "replay", "inputs", "recorder", "spatial", "draw_every"))
MISSING = [name for name in ("rclpy", "flowact_msgs") if importlib.util.find_spec(name) is None]


def pytest_ignore_collect(collection_path, config):  # noqa: ARG001 - pytest gives both
    """Modules that import messages at their top cannot even be collected without them."""
    if MISSING and collection_path.name in NEEDS_ROS and os.environ.get("FLOWACT_CI") != "1":
        return True
    return None


@contextmanager
def _lively_networks() -> Iterator[None]:
    """Random weights that listen: zero-initialised gates would ignore every input, and all frames be the same.

    The hash of weights is that of the weights before, here and in a replay: both are made by the same function.
    """
    import torch

    from flowact_ros.engine import pipeline as module

    build = module.build_pipeline

    def built(*arguments, **options):
        made = build(*arguments, **options)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made.denoiser.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return made

    module.build_pipeline = built
    try:
        yield
    finally:
        module.build_pipeline = build


@pytest.fixture
def lively() -> Iterator[None]:
    """Networks that are built meanwhile are those of `session_of_records`."""
    with _lively_networks():
        yield


@pytest.fixture(scope="session")
def session_of_records() -> tuple[list[Frame], list[ChunkRecord]]:
    """Speech, a look, an urgent instruction and another picture: 60 frames and the records of them."""
    import torch
    from bag_making import picture

    from flowact_ros.engine import pipeline as module
    from flowact_ros.engine.session import Session

    torch.set_num_threads(1)
    with _lively_networks():
        pipeline = module.build_pipeline("debug", overrides={"schedule": {"order": "sequential"}})
    records: list[ChunkRecord] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append) as session:
        frames = []
        for frame in islice(session.frames(realtime=False), 60):
            frames.append(frame)
            if frame.index == 2:
                pcm = 0.3 * np.sin(np.arange(24_000) / 9).astype(np.float32)
                session.push_audio(pcm, 24000, utterance_id="u", last=True)
            if frame.index == 12:
                session.look_at(0.5, 0.2)
            if frame.index == 20:
                session.set_instruction("laughs", behaviour="reacting", priority=200)
            if frame.index == 40:
                session.set_reference(picture(1))
    return frames, records


@pytest.fixture(scope="session")
def recording(
    session_of_records: tuple[list[Frame], list[ChunkRecord]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `flowact record` makes of that session."""
    from bag_making import picture, write_recording

    path = tmp_path_factory.mktemp("bags") / "talk"
    write_recording(path, session_of_records[1], [picture(0), picture(1)])
    return path
