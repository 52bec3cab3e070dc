# SPDX-License-Identifier: Apache-2.0
"""The spatial presets at a hundredth of their size: their whole path on a CPU, from sound to pictures and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.engine import memory_need, spatial_build
from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Frame, Pipeline, Reference
from flowact_ros.engine.memory_need import NotEnoughMemory, need_of
from flowact_ros.engine.pipeline import build_pipeline, motion_pipeline
from flowact_ros.engine.replay import replay
from flowact_ros.engine.session import Session
from flowact_ros.engine.spatial import SpatialPipeline
from flowact_ros.models.checkpoint import RANDOM, CheckpointError, save_weights
from flowact_ros.models.codec.video_vae import from_tokens, to_rgb
from flowact_ros.models.config import ConfigError, preset, video_of
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.timebase import SAMPLES_PER_LATENT

FEW = {"steps": 2}
WIDE = {"video": {"height": 64, "width": 96}, "dit": {"grid": [2, 3]}, "schedule": FEW}


def made(order: str = "sequential") -> SpatialPipeline:
    overrides = {**WIDE, "schedule": {**FEW, "order": order}}
    pipeline = build_pipeline("avatar_spatial_debug", weights=RANDOM, overrides=overrides)
    assert isinstance(pipeline, SpatialPipeline)
    return pipeline


@pytest.fixture(scope="module")
def pipeline() -> SpatialPipeline:
    return made()


def picture(turn: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:70, 0:96]
    return np.roll(np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8), turn, axis=2)


@pytest.fixture(scope="module")
def reference(pipeline: SpatialPipeline) -> Reference:
    return pipeline.load_reference(picture())


def sound(pipeline: SpatialPipeline, latents: int, seed: int = 0) -> np.ndarray:
    length = pipeline.context_samples + latents * SAMPLES_PER_LATENT + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


@pytest.mark.parametrize("order", ["sequential", "diagonal"])
def test_a_session_runs_and_is_replayed_bit_for_bit(order: str) -> None:
    """Speech, an urgent instruction, a barge-in and a cut to another picture: what left is made again from records."""
    pipeline = made(order)
    records: list[ChunkRecord] = []
    speech = (0.3 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)
    frames: list[Frame] = []
    with Session(pipeline, picture(), seed=7, on_chunk=records.append, reference_id="a") as session:
        for frame in islice(session.frames(realtime=False), 48):
            frames.append(frame)
            if frame.index == 1:
                session.push_audio(speech, 24_000, utterance_id="u", last=True)
            if frame.index == 13:
                session.set_instruction("laughs", priority=200)
            if frame.index == 17:
                session.interrupt()
            if frame.index == 33:
                session.set_reference(picture(1), "b")
    assert records[-1].rewinds >= 3 and records[-1].resets == 1
    assert any(f.speaking for f in frames[:17]) and not any(f.speaking for f in frames[21:])
    assert frames[0].rgb.shape == (64, 96, 3) and frames[0].motion.shape == (0,)
    known = {"a": pipeline.load_reference(picture()), "b": pipeline.load_reference(picture(1))}
    again = list(replay(made(order), known, records))
    assert len(again) >= 48
    for live, frame in zip(frames, again, strict=False):
        np.testing.assert_array_equal(live.rgb, frame.rgb, err_msg=f"frame {live.index}")
        np.testing.assert_array_equal(live.audio, frame.audio)


def test_it_is_a_pipeline_of_any_shape(pipeline: SpatialPipeline, reference: Reference) -> None:
    assert isinstance(pipeline, Pipeline)
    assert (pipeline.height, pipeline.width, pipeline.training_motion) == (64, 96, None)
    assert reference.appearance.shape == (1, 6, 32)
    for height, width in ((480, 832), (33, 40)):
        assert pipeline.load_reference(np.full((height, width, 3), 90, np.uint8)).appearance.shape == (1, 6, 32)


@torch.inference_mode()
def test_there_is_no_seam_between_chunks(pipeline: SpatialPipeline, reference: Reference) -> None:
    """Chunks drawn one after the other are the pictures that the VAE draws of the whole stream at once."""
    state, drawn, latents = pipeline.start(reference, 3), [], []
    before = state.recent.latents
    for n in (1, 3, 2):
        chunk = pipeline.denoise(state, sound(pipeline, n, n), n, "speaking")
        drawn.append(pipeline.render(reference, chunk))
        latents.append(chunk.latents)
        state = pipeline.advance(state, chunk)
    at_once, _ = pipeline.vae.decode(from_tokens(torch.cat([before, *latents], 1), pipeline.grid))
    whole = to_rgb(at_once[0, 4 * before.shape[1] :]).numpy()
    apart = np.concatenate(drawn)
    assert apart.shape == (24, 64, 96, 3) and apart.std() > 20
    assert np.abs(whole.astype(int) - apart).max() <= 1  # sums of another order are rounded


def test_frames_are_the_same_however_the_stream_is_cut(pipeline: SpatialPipeline, reference: Reference) -> None:
    state = pipeline.start(reference, 3)
    chunk = pipeline.denoise(state, sound(pipeline, 3), 3, "speaking")
    together = pipeline.render(reference, chunk)
    one_by_one = [pipeline.render(reference, chunk[i : i + 1]) for i in (2, 1, 0)]
    assert np.array_equal(together, np.concatenate(one_by_one[::-1]))
    assert np.array_equal(pipeline.render(reference, chunk[1:][1:]), together[8:])
    other = pipeline.denoise(state, sound(pipeline, 3, 1), 3, "speaking")
    moved = pipeline.render(reference, replace(chunk[2:], before=other[:2].recent))
    assert not np.array_equal(moved, together[8:])  # what lies before a latent is seen in it
    front = pipeline.advance(state, chunk[:2])
    assert torch.equal(front.recent.latents, chunk.latents[:, :2])


def test_a_saved_state_goes_on_the_same(pipeline: SpatialPipeline, reference: Reference) -> None:
    state = pipeline.start(reference, 3)
    state = pipeline.advance(state, pipeline.denoise(state, sound(pipeline, 3), 3, "speaking"))
    back = pipeline.restore(pipeline.save(state), reference, 3)
    drawn = [pipeline.render(reference, pipeline.denoise(s, sound(pipeline, 1), 1, "")) for s in (state, back)]
    assert np.array_equal(*drawn)
    motion = build_pipeline("debug", runtime="eager")
    other = motion.start(motion.load_reference(picture()), 3)
    with pytest.raises(EngineError, match="saved memory is not of this model"):
        pipeline.restore(motion.save(other), reference, 3)


def test_what_has_no_rig_says_so(pipeline: SpatialPipeline, reference: Reference) -> None:
    with Session(pipeline, reference) as session, pytest.raises(EngineError, match="motion has no gaze"):
        session.look_at(0.5, 0.0)
    with pytest.raises(EngineError, match="preset avatar_spatial_debug has no named motion to draw from"):
        pipeline.render_motion(reference, np.zeros((4, 0), np.float32))
    with pytest.raises(ValueError, match="denoises pictures, and this is about motion; use avatar_cpu"):
        motion_pipeline(pipeline)


def test_latents_that_are_no_numbers_end_the_step(reference: Reference) -> None:
    pipeline = made()
    pipeline.denoiser.last.linear.bias.data.fill_(torch.nan)
    with pytest.raises(EngineError, match="the denoiser gave a NaN"):
        pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 1), 1, "")


# ---- loading


@pytest.fixture
def trained(pipeline: SpatialPipeline, tmp_path: Path) -> Path:
    """A folder of weights as training would leave it: those of `pipeline`."""
    config = pipeline.config
    contract = config.denoiser_contract()
    save_weights(
        tmp_path / "vae.safetensors", pipeline.vae, kind="vae", config=video_of(config), card={}, dtype=torch.float32
    )
    save_weights(
        tmp_path / "denoiser.safetensors", pipeline.denoiser, kind=KIND, config=contract,
        card={"schedule": {"steps": config.schedule.steps, "solver": config.schedule.solver}}, dtype=torch.float32,
    )  # fmt: skip
    return tmp_path


def test_weights_of_a_folder_draw_what_they_drew(
    pipeline: SpatialPipeline, reference: Reference, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = build_pipeline("avatar_spatial_debug", weights=trained, overrides=WIDE)
    drawn = []
    for p in (pipeline, loaded):
        chunk = p.denoise(p.start(p.load_reference(picture()), 3), sound(pipeline, 1), 1, "speaking")
        drawn.append(p.render(reference, chunk))
    assert np.array_equal(*drawn)
    assert loaded.provenance.weights not in ("", RANDOM) and pipeline.provenance.weights == RANDOM
    (trained / "vae.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no vae.safetensors: train them"):
        build_pipeline("avatar_spatial_debug", weights=trained, overrides=WIDE)


def test_ports_refuse_another_size_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audio backend embedded gives 384 .* takes 16: use an encoder of that width"):
        build_pipeline("avatar_cpu", weights=RANDOM, overrides={"dit": {"audio_dim": 16}})
    wide = {**WIDE, "dit": {**WIDE["dit"], "text_dim": 8, "text_tokens": 3, "audio_dim": 512}}
    folder = {"weights": RANDOM, "overrides": wide}
    random = build_pipeline("avatar_spatial_debug", **folder)  # random networks come with random encoders of their size
    assert (random.provenance.audio_encoder, random.provenance.text_encoder) == (RANDOM, RANDOM)
    assert random._text("a").shape == (1, 3, 8) and not torch.equal(random._text("a"), random._text("b"))
    assert random.window.encoder.width == 512


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory_need, "free_memory", lambda device: 6_000_000_000)
    yield


def test_too_little_memory_names_the_preset_that_would_fit(little: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = r"preset avatar_14b needs about 8\d\.\d GB on cpu, and 6.0 GB are free; avatar_cpu would fit"
    with pytest.raises(NotEnoughMemory, match=wanted):
        build_pipeline("avatar_14b", weights=RANDOM, precision="float32")
    with pytest.raises(NotEnoughMemory, match=r"on cpu, .*; avatar_cpu would fit, which needs no GPU"):
        build_pipeline("avatar_1b", weights=RANDOM, precision="float32")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    monkeypatch.setattr(spatial_build, "fill_random", full)
    with pytest.raises(NotEnoughMemory, match="cpu ran out of memory while the weights were loaded: preset avatar_s"):
        made()


def test_the_need_is_that_of_weights_and_what_is_kept(pipeline: SpatialPipeline, reference: Reference) -> None:
    need = need_of(pipeline.config, "float32")
    networks = [*pipeline.denoiser.parameters(), *pipeline.vae.parameters()]
    assert need.weights == sum(p.numel() * p.element_size() for p in networks)
    state = pipeline.start(reference, 3)
    for _ in range(4):
        state = pipeline.advance(state, pipeline.denoise(state, sound(pipeline, 1), 1, ""))
    caches = [state.memory.reference, *(entry.cache for entry in state.memory.entries)]
    entry = sum(x.numel() * x.element_size() for pair in caches[1] for x in pair)
    assert need.memory == entry * (len(caches) + memory_need.HELD_ENTRIES) and len(caches) == 5
    assert need_of(preset("avatar_14b"), "bfloat16").weights > 24e9 and need.work > 0


def test_large_networks_are_made_without_weights() -> None:
    with torch.device("meta"):
        model = DiT(preset("avatar_spatial_debug"))
    assert all(p.is_meta for p in model.parameters()) and not model.motion_places.is_meta
