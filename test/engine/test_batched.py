# SPDX-License-Identifier: Apache-2.0
"""Steps of several streams computed together: what each would get alone, and the same bits whoever the others are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial

import numpy as np
import pytest
import torch

from flowact_ros.engine import denoising
from flowact_ros.engine.interfaces import StreamState
from flowact_ros.engine.orders import Chunk
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline
from flowact_ros.engine.provenance import Provenance
from flowact_ros.engine.replay import replay
from flowact_ros.engine.runtime.graphs import CudaGraphs
from flowact_ros.engine.runtime.static import in_place
from flowact_ros.engine.streams.batched import batched
from flowact_ros.engine.streams.host import Streams
from flowact_ros.engine.streams.lockstep import Lockstep
from flowact_ros.engine.streams.rendering import BatchedCodec


def stirred(precision: str = "float32", order: str = "sequential") -> AvatarPipeline:
    """The debug preset without layers of zeros, which would ignore every input."""
    built = build_pipeline(
        "debug", runtime="eager", precision=precision, overrides={"schedule": {"order": order}}
    )
    generator = torch.Generator().manual_seed(0)
    for network, size in ((built.denoiser, 0.05), (built.codec.renderer, 0.02)):
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return built


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    return stirred()


def picture(turn: int) -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.roll(np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8), turn, axis=2)


def sound(pipeline: AvatarPipeline, latents: int, seed: int) -> np.ndarray:
    length = pipeline.context_samples + latents * 3840 + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def stream(pipeline: AvatarPipeline, who: int, sizes: tuple[int, ...] = (1, 3, 2)) -> list[Chunk]:
    """Chunks of a stream whose reference, seed, sound, text and ages of memory depend on `who`."""
    state: StreamState = pipeline.start(pipeline.load_reference(picture(who)), who)
    chunks = []
    for turn, n in enumerate(sizes):
        chunk = pipeline.denoise(state, sound(pipeline, n, 10 * who + turn), n, f"text {who}")
        assert chunk is not None
        chunks.append(chunk)
        state = pipeline.advance(state, chunk if turn != who else chunk[:1])  # a rewind: entries of other ages
    return chunks


@pytest.mark.parametrize("order", ["sequential", "diagonal"])
def test_a_batched_step_is_the_single_step(order: str) -> None:
    single = stirred(order=order)
    together = batched(single, 4)
    results = Lockstep(3).run([partial(stream, together, who) for who in range(3)])
    for who, chunks in enumerate(results):
        for mine, alone in zip(chunks, stream(single, who), strict=True):
            torch.testing.assert_close(mine.latents, alone.latents, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(results[0][1].latents, results[1][1].latents, atol=1e-2)


def test_graphs_of_fixed_shapes_take_streams_of_other_ages(pipeline: AvatarPipeline) -> None:
    """The bookkeeping of CUDA graphs, which captures nothing on a CPU: shapes and buffers are those of a batch."""
    static = copy(pipeline)
    static.runtime = CudaGraphs("cpu", capture=in_place, compile_block=lambda block: None)
    told: list[str] = []
    together = batched(static, 2, told.append)
    assert told and told[-1].startswith("the denoiser's graphs: 16 of 16 (1 slots under 0 cached ones of 2 streams)")
    results = Lockstep(2).run([partial(stream, together, who) for who in (1, 2)])
    for who, chunks in zip((1, 2), results):
        for mine, alone in zip(chunks, stream(pipeline, who), strict=True):
            torch.testing.assert_close(mine.latents, alone.latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "fp8"])
def test_the_others_in_a_batch_change_no_bit_fp8_and_others(precision: str) -> None:
    together = batched(stirred(precision), 3)
    assert together.provenance.denoiser == f"{precision}, batch 3"
    alone = stream(together, 2)  # in the first lane of a batch with nobody else
    lockstep = Lockstep(4)
    for company in ([0, 1, 2], [2, 0, 0], [0, 1, 0, 2]):  # four make batches of three and one
        beside = lockstep.run([partial(stream, together, who) for who in company])[company.index(2)]
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(alone, beside, strict=True)), company


def test_a_stream_among_others_is_replayed_alone_bit_for_bit(pipeline: AvatarPipeline) -> None:
    together = batched(pipeline, 2)
    now, records, frames = [0.0], ([], []), ([], [])
    streams = Streams(together, batch=2, threads=False, clock=lambda: now[0])
    sessions = [
        streams.open(picture(i), seed=i, on_chunk=records[i].append, reference_id=f"{i}") for i in range(2)
    ]
    for session in sessions:
        session.start()
    while now[0] < 1.6:
        while streams.turn() == 0.0:
            continue
        if round(now[0], 2) == 0.6:
            sessions[0].push_audio(sound(pipeline, 4, 5), 24000, utterance_id="u", last=True)
        for session, out in zip(sessions, frames, strict=True):
            with session._stream.cond:
                frame = session._stream.release()
            if not isinstance(frame, float):
                out.append(frame)
        now[0] += 0.02
    for i in range(2):
        sessions[i].close()
        reference = {f"{i}": together.load_reference(picture(i))}
        again = list(replay(together, reference, records[i]))
        assert len(frames[i]) > 20 and records[i][0].provenance.batch == 2
        for live, frame in zip(frames[i], again, strict=False):
            np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
    assert any(frame.speaking for frame in frames[0]) and not any(frame.speaking for frame in frames[1])


def test_frames_of_several_streams_are_drawn_together(pipeline: AvatarPipeline) -> None:
    """By torch, as on a GPU, what the live graphs draw one by one."""
    codec = BatchedCodec(pipeline.codec, torch.device("cpu"), 2)
    who = [pipeline.load_reference(picture(i)).appearance for i in range(3)]
    motion = torch.randn(3, 8, len(pipeline.control_names), generator=torch.Generator().manual_seed(1))
    drawn = Lockstep(3).run([partial(codec.render, who[i], motion[i]) for i in range(3)])
    for i in range(3):
        alone = pipeline.codec.render(who[i], motion[i]).astype(int)
        assert drawn[i].dtype == np.uint8 and np.abs(drawn[i] - alone).max() <= 2
        np.testing.assert_array_equal(drawn[i], codec.render(who[i], motion[i]))  # the others change nothing
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 20
    with pytest.raises(ValueError, match="5 frames asked for; a latent has 4"):
        codec.render(who[0], motion[0, :5])


def test_streams_share_the_cache_of_texts(pipeline: AvatarPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds what it asked for, also while others push it out."""
    monkeypatch.setattr(denoising, "TEXT_CACHE", 2)
    pipeline._texts.clear()
    expected = {text: pipeline.text_encoder.encode([text]) for text in "abcdef"}

    def read(first: int) -> bool:
        texts = ("abcdef" * 12)[first:]
        return all(torch.equal(pipeline._text(text), expected[text]) for text in texts)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert len(pipeline._texts) == 2


def test_batches_that_cannot_be_are_refused(pipeline: AvatarPipeline) -> None:
    assert batched(pipeline, 1) is pipeline and pipeline.provenance.batch == 1
    with pytest.raises(ValueError, match=r"batch is 65: it must lie in 1 .. 64"):
        batched(pipeline, 65)
    rounded = stirred()
    rounded._provenance = Provenance("debug", denoiser="int8")
    with pytest.raises(ValueError, match="batch 4 does not go with precision int8, .* use precision float32"):
        batched(rounded, 4)
    with pytest.raises(ValueError, match="a batch of 2 was given"):
        batched(pipeline, 2).denoiser(torch.zeros(2, 1, 4, 40), *[None] * 2, pipeline.denoiser.windows(torch.zeros(1)))
    assert Provenance(denoiser="bfloat16, batch 8").precision == "bfloat16"
