# SPDX-License-Identifier: Apache-2.0
"""The pipeline on the debug preset: sizes, determinism, cutting a chunk, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.engine.interfaces import Pipeline, ReferenceError_
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline, resize
from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.config import ConfigError
from flowact_ros.models.decoding import Part, sketch
from flowact_ros.models.window import Window


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    built = build_pipeline("debug")
    torch.manual_seed(0)
    for parameter in built.denoiser.parameters():  # zero-initialised gates would ignore every input
        parameter.add_(0.05 * torch.randn_like(parameter))
    return built


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)


def sound(pipeline: AvatarPipeline, latents: int, seed: int = 0) -> np.ndarray:
    length = pipeline.context_samples + latents * 3840 + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_it_is_a_pipeline(pipeline: AvatarPipeline) -> None:
    assert isinstance(pipeline, Pipeline)
    assert (pipeline.height, pipeline.width) == (120, 120)


def test_frames_have_the_published_size_and_repeat_for_a_seed(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    reference = pipeline.load_reference(picture)

    def run(seed: int) -> np.ndarray:
        state, decoder = pipeline.start(reference, seed), pipeline.start_decoder(reference)
        out = []
        for n in (1, 3, 2):
            chunk = pipeline.denoise(state, sound(pipeline, n, n), n, "speaking")
            assert len(chunk) == n
            for i in range(n):
                frames, decoder = pipeline.decode(chunk[i], decoder)
                out.append(frames)
            state = pipeline.advance(state, chunk)
        assert state.latent_index == 6
        return np.concatenate(out)

    first = run(3)
    assert first.shape == (24, 120, 120, 3) and first.dtype == np.uint8
    assert np.array_equal(first, run(3))
    assert not np.array_equal(first, run(4))


def test_sound_and_text_reach_the_latents(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    state = pipeline.start(pipeline.load_reference(picture), 0)
    base = pipeline.denoise(state, sound(pipeline, 1, 0), 1, "idle").latents
    assert torch.equal(base, pipeline.denoise(state, sound(pipeline, 1, 0), 1, "idle").latents)
    assert not torch.equal(base, pipeline.denoise(state, sound(pipeline, 1, 1), 1, "idle").latents)
    assert not torch.equal(base, pipeline.denoise(state, sound(pipeline, 1, 0), 1, "waving a hand").latents)


def test_the_front_of_a_chunk_may_be_committed(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    state = pipeline.start(pipeline.load_reference(picture), 0)
    chunk = pipeline.denoise(state, sound(pipeline, 3), 3, "")
    front = pipeline.advance(state, chunk[:2])
    assert front.latent_index == 2 and state.latent_index == 0
    assert torch.equal(front.memory.bank.short_term.latents, chunk.latents[:, 1:2])
    assert -1.0 <= pipeline.identity(front) <= 1.0 and pipeline.identity(state) == 1.0


def test_any_image_size_becomes_a_reference(pipeline: AvatarPipeline) -> None:
    for height, width in ((480, 832), (33, 40), (128, 128)):
        reference = pipeline.load_reference(np.full((height, width, 3), 90, np.uint8))
        assert reference.latent.shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 64), np.uint8), "uint8 [64, 64]"),
        (np.zeros((64, 64, 4), np.uint8), "uint8 [64, 64, 4]"),
        (np.zeros((64, 64, 3), np.float32), "float32 [64, 64, 3]"),
        (np.zeros((8, 64, 3), np.uint8), "64 x 8 pixels; at least 32"),
    ],
)
def test_a_wrong_image_is_refused(pipeline: AvatarPipeline, image: np.ndarray, message: str) -> None:
    with pytest.raises(ReferenceError_) as error:
        pipeline.load_reference(image)
    assert message in str(error.value)


def test_an_image_the_vae_cannot_draw_is_refused(pipeline: AvatarPipeline) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    pipeline.check_references = True
    try:
        with pytest.raises(ReferenceError_, match=r"cannot draw this image \(round trip"):
            pipeline.load_reference(noise)
    finally:
        pipeline.check_references = False


def test_missing_weights_and_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        build_pipeline("avatar_cpu", weights=tmp_path)
    with pytest.raises(ConfigError, match="preset 'nobody'"):
        build_pipeline("nobody")
    with pytest.raises(ConfigError, match="live stream runs the sequential schedule"):
        build_pipeline("debug", overrides={"schedule": {"order": "diagonal"}})
    with pytest.raises(ValueError, match="dtype 'int4'"):
        build_pipeline("debug", dtype="int4")
    for device in ("banana", "cuda:99"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used .+; cpu always can") as told:
            build_pipeline("debug", device=device)
        assert "\n" not in str(told.value)


def test_pictures_are_resized_as_bytes() -> None:
    ramp = torch.arange(64).expand(2, 48, 64)
    pictures = torch.stack([3 * ramp, 255 - 3 * ramp, 4 * ramp.clamp(max=60)], -1).to(torch.uint8)
    found = resize(pictures, (45, 60))
    wanted = torch.nn.functional.interpolate(pictures.permute(0, 3, 1, 2).float(), (45, 60), mode="bilinear")
    assert found.dtype == torch.uint8 and found.shape == (2, 45, 60, 3) and found.is_contiguous()
    assert (found.permute(0, 3, 1, 2) - wanted).abs().max() <= 1.0
    assert torch.equal(resize(pictures, (48, 64)), pictures)


@pytest.mark.parametrize("lines, apart", [(120, True), (96, True), (100, False)])
def test_a_part_is_resized_alone_where_its_borders_fall_on_pixels(lines: int, apart: bool, picture: np.ndarray) -> None:
    pipeline = build_pipeline("debug", overrides={"lines": lines})
    scene = pipeline.load_reference(picture).extra.scene
    random = torch.randint(0, 256, (4, 48, 80, 3), dtype=torch.uint8)
    part = Part(random, Window(2, 5, 1, 6))
    whole = part.upon(scene.picture)
    assert torch.equal(whole[:, 32:80, 16:96], random)
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[32:80, 16:96] = False
    assert torch.equal(whole[:, outside], scene.picture[outside].expand(4, -1, -1))
    found = pipeline._published(part, scene)
    assert torch.equal(found, resize(whole, (lines, lines)))
    assert (pipeline._ground is not None) is apart


def test_silence_is_heard_once(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build_pipeline("debug")
    state = pipeline.start(pipeline.load_reference(picture), 0)
    heard: list[int] = []
    window = pipeline.window
    monkeypatch.setattr(pipeline, "window", lambda pcm: heard.append(len(pcm)) or window(pcm))
    silence = {n: np.zeros_like(sound(pipeline, n)) for n in (1, 2)}
    first = pipeline.denoise(state, silence[2], 2, "idle")
    assert torch.equal(pipeline.denoise(state, silence[2], 2, "idle").condition.audio, first.condition.audio)
    assert torch.equal(first.condition.audio[0].flatten(0, 1), window(silence[2]))
    pipeline.denoise(state, silence[1], 1, "idle")
    quiet = silence[1].copy()
    quiet[-1] = 1e-4
    pipeline.denoise(state, quiet, 1, "idle")
    assert heard == [len(silence[2]), len(silence[1]), len(quiet)]


def test_what_stands_still_keeps_the_picture_of_the_reference(picture: np.ndarray) -> None:
    pipeline = build_pipeline("debug", overrides={"still": 0.03, "calm": 0.08})
    reference = pipeline.load_reference(picture)
    chunk = pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 1), 1, "speaking")
    relative = torch.zeros_like(chunk.latents[0, 0])
    relative[:, 0, 0] = 0.5

    def show(relative: torch.Tensor) -> np.ndarray:
        absolute = (reference.latent + relative).unsqueeze(1)
        start = reference.extra
        (one,) = sketch(pipeline.vae, absolute, start.memory.trail, start.scene, still=0.03, calm=0.08)
        return pipeline.decode((one, start.scene), start.shown)[0]

    frames, shown = show(relative), show(0 * relative)
    changed = (frames[0] != shown[0]).any(-1)
    assert changed[:40, :40].any() and not changed[60:].any() and not changed[:, 60:].any()


def test_a_chunk_can_be_given_up_between_evaluations(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    state = pipeline.start(pipeline.load_reference(picture), 0)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    assert pipeline.denoise(state, sound(pipeline, 2), 2, "speaking", stop) is None
    assert len(asked) == 3
    whole = pipeline.denoise(state, sound(pipeline, 2), 2, "speaking", lambda: False)
    assert torch.equal(whole.latents, pipeline.denoise(state, sound(pipeline, 2), 2, "speaking").latents)


def test_pictures_are_those_of_all_latents_in_a_row(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    """Also where a chunk was cut: the decoder's memory of the latent before comes from the stream's."""
    reference = pipeline.load_reference(picture)
    state, decoder = pipeline.start(reference, 0), pipeline.start_decoder(reference)
    drawn, latents = [], [reference.latent]
    for n, kept in ((3, 1), (2, 2), (3, 3)):
        chunk = pipeline.denoise(state, sound(pipeline, n, n), n, "speaking")
        for i in range(kept):
            painting = pipeline.paint(chunk[i])
            frames, after = pipeline.decode(chunk[i], decoder)
            assert np.array_equal(frames, pipeline.decode(chunk[i], decoder, painting)[0])
            decoder = after
            drawn.append(frames)
            latents.append(reference.latent + chunk.latents[:, i])
        state = pipeline.advance(state, chunk[:kept])
    whole = pipeline.vae.decode_rgb(torch.stack(latents, 1))[0][0, 4:]
    wanted = resize(whole, (pipeline.height, pipeline.width)).numpy().astype(int)
    assert np.abs(np.concatenate(drawn) - wanted).max() <= 1
