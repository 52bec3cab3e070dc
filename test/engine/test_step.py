# SPDX-License-Identifier: Apache-2.0
"""One step: what it leaves in the ring, and going on from the middle of it."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakePipeline, face, read_picture

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Reference
from flowact_ros.engine.ring import RingEntry, Snapshot
from flowact_ros.engine.step import Made, Step, make, resume


def record(first: int, latents: int) -> ChunkRecord:
    return ChunkRecord(
        step=0, first_frame=4 * first, latents=latents, first_sample=3840 * first, instruction="nods", behaviour="",
        utterance_id="", reference_id="", seed=5, rewinds=0, resets=0, pcm=np.zeros(0, np.float32),
    )  # fmt: skip


def sound(pipeline: FakePipeline, first: int, latents: int) -> np.ndarray:
    """A stream's sound around a step: every sample has its own value."""
    start = 3840 * first - pipeline.context_samples
    count = pipeline.context_samples + 3840 * latents + pipeline.lookahead_samples
    return (np.arange(start, start + count) % 9973 / 10000).astype(np.float32)


def run(pipeline: FakePipeline, before: Snapshot, first: int, latents: int, **hooks) -> tuple[Made, list[RingEntry]]:
    entries: list[RingEntry] = []
    step = Step(before, sound(pipeline, first, latents), record(first, latents), before.state.reference)
    return make(pipeline, step, entries.append, **hooks), entries


def place(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.state.latent_index, snapshot.state.memory


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def begin(pipeline: FakePipeline) -> Snapshot:
    return Snapshot(pipeline.start(pipeline.load_reference(face()), 5), None, 0, 0)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_snapshot_inside_a_step_resumes_bit_exactly(pipeline, begin, cut):
    """Taken up behind `cut` latents, the stream goes on as if the step had been made with so many from the start."""
    _, whole = run(pipeline, begin, 0, 3)
    front, entries = run(pipeline, begin, 0, 3, stop=lambda latent: latent == cut)
    assert front.done == cut == len(entries)
    usual, rest = run(pipeline, front.after, cut, 2)
    resumed, again = run(pipeline, whole[cut].before, cut, 2)
    assert place(front.after) == (cut, resume(pipeline, whole[cut].before).memory)
    assert place(resumed.after) == place(usual.after) and usual.done == 2
    for a, b in zip(rest, again, strict=True):
        assert a.latent == b.latent
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.motion, b.motion)


def test_a_step_broken_off_between_evaluations_changes_nothing(pipeline, begin):
    asked = []

    def stop(latent: int) -> bool:
        asked.append(latent)
        return len(asked) == 2

    made, entries = run(pipeline, begin, 0, 3, stop=stop)
    assert made.done == 0 and entries == [] and pipeline.rendered == []
    assert made.after.state is begin.state and made.after.latents is None


def test_only_what_can_be_seen_is_rendered_and_all_is_remembered(pipeline, begin):
    usual, _ = run(pipeline, begin, 0, 3)
    pipeline.rendered.clear()
    made, entries = run(pipeline, begin, 0, 3, seen=lambda latent: latent > 0)
    assert [e.latent for e in entries] == pipeline.rendered == [1, 2] and len(made.drawn) == 2
    assert made.done == 3 and place(made.after) == place(usual.after)
    assert set(made.stages) == {"denoise", "render", "commit"}


def test_entries_hold_frames_with_their_motion(pipeline, begin):
    _, entries = run(pipeline, begin, 0, 2)
    for entry in entries:
        for rgb, motion in zip(entry.frames, entry.motion, strict=True):
            assert tuple(motion[:2]) == (read_picture(rgb).frame, read_picture(rgb).loudest)


def test_motion_of_the_wrong_shape_is_named(pipeline, begin):
    pipeline.motion = lambda latents: np.zeros((3, 2), np.float32)
    with pytest.raises(EngineError, match=r"motion float32 \[3, 2\]: float32 \[4, K\] is needed"):
        run(pipeline, begin, 0, 1)


def test_a_cut_starts_from_the_other_reference(pipeline, begin):
    other = Reference(rgb=face(7), id="other", appearance=77)
    entries: list[RingEntry] = []
    step = Step(Snapshot(begin.state, None, 0, 1), sound(pipeline, 6, 1), record(6, 1), other)
    made = make(pipeline, step, entries.append)
    assert read_picture(entries[0].frames[0]).appearance == 77 and read_picture(entries[0].frames[0]).frame == 24
    assert made.after.state.reference is other and made.after.state.latent_index == 7
