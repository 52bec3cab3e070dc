# SPDX-License-Identifier: Apache-2.0
"""The diagonal order live: the same chunks as its rollout, what cuts do to it, and a session that runs on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_pipeline import stirred

from flowact_ros.diffusion.sampler import DiagonalWindow, noise_for
from flowact_ros.engine.orders import Chunk
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.engine.session import Session
from flowact_ros.models.dit import Condition
from flowact_ros.timebase import SAMPLES_PER_LATENT

CHUNK, CHUNKS = 3, 5


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    return stirred(order="diagonal")


@pytest.fixture(scope="module")
def reference(pipeline: AvatarPipeline):  # type: ignore[no-untyped-def]
    y, x = np.mgrid[0:96, 0:96]
    return pipeline.load_reference(np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8))


@pytest.fixture(scope="module")
def sound(pipeline: AvatarPipeline) -> np.ndarray:
    length = pipeline.context_samples + CHUNKS * CHUNK * SAMPLES_PER_LATENT + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(0).standard_normal(length)).astype(np.float32)


def window(pipeline: AvatarPipeline, sound: np.ndarray, latent: int, count: int = CHUNK) -> np.ndarray:
    length = pipeline.context_samples + count * SAMPLES_PER_LATENT + pipeline.lookahead_samples
    return sound[latent * SAMPLES_PER_LATENT :][:length]


def test_chunks_are_those_of_a_rollout(pipeline: AvatarPipeline, reference, sound: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    state, live = pipeline.start(reference, 7), []
    for k in range(CHUNKS):
        chunk = pipeline.denoise(state, window(pipeline, sound, CHUNK * k), CHUNK, "speaking")
        assert len(chunk) == CHUNK and chunk.condition.audio.shape[1] == CHUNK
        live.append(chunk.latents)
        state = pipeline.advance(state, chunk)
    assert state.latent_index == CHUNK * CHUNKS

    with torch.inference_mode():
        start = pipeline.start(reference, 7).memory.window
        rolled, done = DiagonalWindow(start.bank, start.sigmas, start.in_flight, finish=start.finish), []
        words = pipeline._text("speaking")[:, None].expand(-1, CHUNK, -1, -1)
        for k in range(CHUNKS + 2):
            pcm = sound[CHUNK * k * SAMPLES_PER_LATENT :]
            length = pipeline.context_samples + CHUNK * SAMPLES_PER_LATENT + pipeline.window.lookahead_samples
            features = pipeline.window(pcm[:length]).unflatten(0, (CHUNK, 4))[None]
            shape = pipeline.config.dit.latent_shape
            noise = torch.stack([noise_for(7, CHUNK * k + i, shape) for i in range(CHUNK)], 1)
            rolled, out = rolled.push(pipeline.denoiser, noise, Condition(features, words))
            done += [] if out is None else [out]
    assert len(done) == CHUNKS
    for a, b in zip(live, done):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_a_cut_begins_a_new_window(pipeline: AvatarPipeline, reference, sound: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    state = pipeline.start(reference, 7)
    chunk = pipeline.denoise(state, window(pipeline, sound, 0), CHUNK, "speaking")
    whole, front = pipeline.advance(state, chunk[:3]), pipeline.advance(state, chunk[:2])
    assert len(whole.memory.window.flight) == 2 and whole.memory.first == 3
    assert not front.memory.window.flight and front.latent_index == 2
    assert torch.equal(front.memory.window.bank.entries[-1].latent, chunk.latents[:, 1:2])
    # a step of another size, and latents that were skipped, do not use what is in flight for others
    short = pipeline.denoise(whole, window(pipeline, sound, 3, 1), 1, "speaking")
    assert isinstance(short, Chunk) and len(short) == 1
    assert pipeline.denoise(state, window(pipeline, sound, 0), CHUNK, "", stop=lambda: True) is None


def test_a_session_runs_on_it_and_hears_what_comes(pipeline: AvatarPipeline, reference) -> None:  # type: ignore[no-untyped-def]
    def motion(loud: float) -> np.ndarray:
        session = Session(pipeline, reference, seed=1)
        pcm = (loud * np.random.default_rng(1).standard_normal(48000)).astype(np.float32)
        session.push_audio(pcm, 24000, utterance_id="a", last=True)
        frames = [frame for _, frame in zip(range(72), session.frames(realtime=False))]
        session.close()
        assert any(frame.speaking for frame in frames) and not any(frame.repeated for frame in frames)
        return np.stack([frame.motion for frame in frames])

    quiet, spoken = motion(0.0), motion(0.3)
    assert np.array_equal(spoken, motion(0.3))
    assert not np.array_equal(spoken, quiet)


def test_refinement_renews_memory_and_keeps_what_is_in_flight(
    pipeline: AvatarPipeline,
    reference,  # type: ignore[no-untyped-def]
    sound: np.ndarray,
) -> None:
    state = pipeline.start(reference, 7)
    assert pipeline.refine(state).memory.window.bank.entries == ()  # nothing is remembered yet
    state = pipeline.advance(state, pipeline.denoise(state, window(pipeline, sound, 0), CHUNK, "speaking"))
    renewed = pipeline.refine(state)
    before, after = state.memory.window, renewed.memory.window
    assert after.flight == before.flight and renewed.memory.first == state.memory.first
    assert renewed.latent_index == state.latent_index
    assert not torch.equal(after.bank.entries[-1].latent, before.bank.entries[-1].latent)
    again = pipeline.refine(state).memory.window.bank.entries[-1].latent
    assert torch.equal(again, after.bank.entries[-1].latent)
