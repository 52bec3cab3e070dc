# SPDX-License-Identifier: Apache-2.0
"""A spatial preset on a runtime that draws beside the denoiser: the same frames, begun before anybody asks for them."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from flowact_ros.engine import pipeline as pipelines
from flowact_ros.engine.interfaces import ChunkRecord, Frame
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.replay import replay
from flowact_ros.engine.runtime.denoiser import StaticDenoiser
from flowact_ros.engine.runtime.graphs import CudaGraphs
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.engine.runtime.static import in_place
from flowact_ros.engine.session import Session
from flowact_ros.engine.spatial import SpatialPipeline
from flowact_ros.models.checkpoint import RANDOM

PICTURE = np.stack(np.mgrid[0:64, 0:64, 0:1], -1)[:, :, 0].astype(np.uint8) * 3
SMALL = {
    "video": {"height": 64, "width": 64}, "dit": {"grid": [2, 2]}, "memory": {"long_term": 1},
    "schedule": {"steps": 2},
}  # fmt: skip


class InOrder(CudaGraphs):
    """Draws when frames are asked for."""

    overlaps = False


class Late(Lanes):
    """Frames that come from the device when `there` is set."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.there = threading.Event()

    def begin(self, compute, *inputs):
        wait = super().begin(compute, *inputs)
        return lambda: (self.there.wait(60), wait())[1]


def made(
    monkeypatch: pytest.MonkeyPatch, kind: type[CudaGraphs], order: str = "sequential", lanes: Lanes | None = None
) -> SpatialPipeline:
    cpu = torch.device("cpu")
    runtime = kind(cpu, capture=in_place, lanes=lanes or Lanes(cpu), compile_block=lambda block: None)
    monkeypatch.setattr(pipelines, "choose", lambda *given: runtime)
    overrides = {**SMALL, "schedule": {**SMALL["schedule"], "order": order}}
    pipeline = build_pipeline("avatar_spatial_debug", weights=RANDOM, overrides=overrides, runtime="graphs")
    assert isinstance(pipeline, SpatialPipeline) and isinstance(pipeline.denoiser, StaticDenoiser)
    return pipeline


def shown(pipeline: SpatialPipeline) -> tuple[list[Frame], dict[str, float]]:
    """Frames of a session that is interrupted, so that a chunk is given up half-way, and what its metrics tell."""
    session, frames = Session(pipeline, PICTURE), []
    session.push_audio(np.sin(np.arange(24_000) / 20).astype(np.float32), 24_000, utterance_id="u", last=True)
    for frame in islice(session.frames(realtime=False), 30):
        frames.append(frame)
        if frame.index == 8:
            session.interrupt()
    waits = dict(session.metrics().waits_ms)
    session.close()
    return frames, waits


@pytest.mark.parametrize("order", ["sequential", "diagonal"])
def test_frames_are_those_of_a_runtime_that_does_one_thing_after_the_other(order: str, monkeypatch) -> None:
    (apart, _), (beside, waits) = (shown(made(monkeypatch, kind, order)) for kind in (InOrder, CudaGraphs))
    for one, other in zip(apart, beside, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb, err_msg=f"frame {one.index}")
    assert set(waits) == {"queue", "draw", "copy", "exposed_encode", "exposed_draw", "exposed_copy"}
    assert waits["exposed_encode"] > 0
    assert waits["draw"] > 0 and waits["exposed_draw"] == waits["draw"]  # on a CPU, nothing is hidden


def test_latents_are_drawn_and_committed_once_and_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = made(monkeypatch, CudaGraphs)
    reference = pipeline.load_reference(PICTURE)
    state = pipeline.start(reference, 1)
    sound = np.zeros(pipeline.context_samples + 3 * 3840 + pipeline.lookahead_samples, np.float32)
    begun: list[int] = []
    begin = pipeline._begin
    monkeypatch.setattr(pipeline, "_begin", lambda one: (begun.append(1), begin(one))[1])
    chunk = pipeline.denoise(state, sound, 3, "speaking")
    assert begun == [1] * 3 and len(chunk.drawing) == 3
    frames = pipeline.render(reference, chunk)
    np.testing.assert_array_equal(pipeline.render(reference, chunk[1:2]), frames[4:8])
    np.testing.assert_array_equal(pipeline.render(reference, replace(chunk, drawing=())[1:]), frames[4:])
    assert len(begun) == 5  # only the last call, of a chunk that nobody draws
    assert pipeline.advance(state, chunk).memory is chunk.after
    part = pipeline.advance(state, chunk[:2])
    assert part.memory is not chunk.after and part.latent_index == 2 and part.memory.latents == 2


def test_a_live_stream_denoises_its_next_step_while_frames_come(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, second, records = Late(torch.device("cpu")), threading.Event(), []
    pipeline = made(monkeypatch, CudaGraphs, lanes=lanes)
    denoise, asked = pipeline.denoise, []

    def counted(*given):
        asked.append(given)
        if len(asked) == 2:
            second.set()
        return denoise(*given)

    monkeypatch.setattr(pipeline, "denoise", counted)
    reference = load_reference(pipeline, PICTURE, "one")
    with Session(pipeline, reference, on_chunk=records.append) as session:
        session.start()
        assert second.wait(60)  # and no frame was there yet
        lanes.there.set()
        frames = []
        for frame in session.frames():
            frames.append(frame)  # on a busy machine many are the one before again: as many as it takes
            if len(frames) >= 20 and len(records) > 2 and sum(not one.repeated for one in frames) >= 4:
                break
    assert len(records) > 2 and all(isinstance(record, ChunkRecord) for record in records)
    again = replay(made(monkeypatch, InOrder), {"one": reference}, records)
    shown = [(one, other) for one, other in zip(frames, again) if not one.repeated]
    assert len(shown) >= 4
    for one, other in shown:
        np.testing.assert_array_equal(one.rgb, other.rgb, err_msg=f"frame {one.index}")
