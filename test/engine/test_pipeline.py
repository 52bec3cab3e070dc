# SPDX-License-Identifier: Apache-2.0
"""The pipeline on the debug preset: sizes, determinism, cutting a chunk, what is rendered, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.engine.interfaces import Pipeline, ReferenceError_
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline
from flowact_ros.engine.runtime import base
from flowact_ros.models.checkpoint import CheckpointError, weights_dir
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.config import ConfigError
from flowact_ros.models.precision import has_int8


def stirred(runtime: str = "eager", order: str = "sequential", draw_every: int = 1) -> AvatarPipeline:
    """The debug preset without layers of zeros, which would ignore every input."""
    overrides = {"schedule": {"order": order}, "draw_every": draw_every}
    built = build_pipeline("debug", runtime=runtime, overrides=overrides)
    generator = torch.Generator().manual_seed(0)
    for network, size in ((built.denoiser, 0.05), (built.codec.renderer, 0.02)):
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return built


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    return stirred()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)


def sound(pipeline: AvatarPipeline, latents: int, seed: int = 0) -> np.ndarray:
    length = pipeline.context_samples + latents * 3840 + pipeline.lookahead_samples
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_it_is_a_pipeline(pipeline: AvatarPipeline) -> None:
    assert isinstance(pipeline, Pipeline)
    assert (pipeline.height, pipeline.width) == (128, 128)


def test_frames_have_the_published_size_and_repeat_for_a_seed(
    pipeline: AvatarPipeline, picture: np.ndarray
) -> None:
    reference = pipeline.load_reference(picture)

    def run(seed: int) -> np.ndarray:
        state = pipeline.start(reference, seed)
        out = []
        for n in (1, 3, 2):
            chunk = pipeline.denoise(state, sound(pipeline, n, n), n, "speaking")
            assert chunk is not None and len(chunk) == n
            out += [pipeline.render(reference, chunk[i : i + 1]) for i in range(n)]
            state = pipeline.advance(state, chunk)
        assert state.latent_index == 6
        return np.concatenate(out)

    first = run(3)
    assert first.shape == (24, 128, 128, 3) and first.dtype == np.uint8
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
    assert torch.equal(front.memory.entries[-1].latent, chunk.latents[:, 1:2])
    with pytest.raises(ValueError, match="consecutive"):
        chunk[::2]


def test_what_is_rendered_is_what_the_sampler_gave(
    pipeline: AvatarPipeline, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clamped to the rig's limits, and nothing else: no gain, no timer, no sway."""
    from flowact_ros.engine import orders as module

    made, given = [], []
    sample = module.denoise_chunk

    def wild(*arguments, **options):
        made.append(3.0 * sample(*arguments, **options))  # far enough to pass limits
        return made[-1]

    render = pipeline.codec.render
    monkeypatch.setattr(module, "denoise_chunk", wild)
    monkeypatch.setattr(
        pipeline.codec, "render", lambda who, motion: given.append(motion) or render(who, motion)
    )
    reference = pipeline.load_reference(picture)
    chunk = pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 2), 2, "speaking")
    pipeline.render(reference, chunk)
    raw = rig.denormalise(made[0][0].flatten(0, 1))
    assert not torch.equal(raw, rig.clamp(raw))
    torch.testing.assert_close(rig.denormalise(given[0]), rig.clamp(raw), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(pipeline.motion(chunk), rig.denormalise(given[0]).numpy())


def test_a_frame_depends_on_reference_and_motion_alone(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    reference = pipeline.load_reference(picture)
    chunk = pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 3), 3, "")
    together = pipeline.render(reference, chunk)
    backwards = [pipeline.render(reference, chunk[i : i + 1]) for i in (2, 1, 0)]
    assert np.array_equal(together, np.concatenate(backwards[::-1]))


def test_a_chunk_can_be_given_up_between_evaluations(pipeline: AvatarPipeline, picture: np.ndarray) -> None:
    state = pipeline.start(pipeline.load_reference(picture), 0)
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) == 2

    assert pipeline.denoise(state, sound(pipeline, 1), 1, "", stop) is None
    assert len(asked) == 2 < pipeline.config.schedule.steps


def test_any_image_size_becomes_a_reference(pipeline: AvatarPipeline) -> None:
    for height, width in ((480, 832), (33, 40), (128, 128)):
        reference = pipeline.load_reference(np.full((height, width, 3), 90, np.uint8))
        assert reference.appearance.picture.shape == (1, 3, 128, 128)


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


@pytest.mark.slow
def test_openvino_draws_what_torch_draws(picture: np.ndarray) -> None:
    pytest.importorskip(
        "openvino", reason="openvino is not installed; `make setup` installs it where it can be had"
    )
    drawn = []
    for runtime in ("eager", "openvino"):
        pipeline = stirred(runtime)
        reference = pipeline.load_reference(picture)
        chunk = pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 2), 2, "waving")
        drawn.append(pipeline.render(reference, chunk).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert drawn[0].std() > 5


def test_the_denoiser_is_computed_in_what_was_asked_for(picture: np.ndarray) -> None:
    made = {}
    for precision in ("float32", "bfloat16", "fp8"):
        pipeline = build_pipeline("debug", runtime="eager", precision=precision)
        for parameter in pipeline.denoiser.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        assert pipeline.provenance.denoiser == precision
        reference = pipeline.load_reference(picture)
        chunk = pipeline.denoise(pipeline.start(reference, 0), sound(pipeline, 2), 2, "waving")
        assert chunk is not None and chunk.latents.dtype == torch.float32
        pipeline.render(reference, chunk)
        made[precision] = chunk.latents
    assert not torch.equal(made["bfloat16"], made["float32"]) and not torch.equal(made["fp8"], made["bfloat16"])


def test_other_limits_of_int8_are_another_provenance(tmp_path: Path) -> None:
    """The same weights, rounded elsewhere, draw other frames: a replay must know."""
    if not has_int8():
        pytest.skip("this processor computes the renderer in float32")
    for path in (weights_dir() / "avatar_cpu").iterdir():
        (tmp_path / path.name).symlink_to(path)
    card = json.loads((tmp_path / "renderer.json").read_text())
    del card["activations"]["mouth.paint"]
    (tmp_path / "renderer.json").unlink()
    (tmp_path / "renderer.json").write_text(json.dumps(card))
    shipped, other = (build_pipeline("avatar_cpu", weights=weights).provenance for weights in (None, tmp_path))
    assert shipped.renderer.startswith("int8, limits ") and shipped.differences(other) == ["renderer"]
    assert build_pipeline("avatar_cpu", runtime="eager").provenance.renderer == "float32"


def test_every_second_frame_is_drawn_of_the_same_motion(picture: np.ndarray) -> None:
    made = []
    for every in (1, 2):
        pipeline = stirred(draw_every=every)
        state = pipeline.start(pipeline.load_reference(picture), 3)
        latents = pipeline.denoise(state, sound(pipeline, 3), 3, "speaking")
        made.append((pipeline.motion(latents), pipeline.render(state.reference, latents).astype(int)))
    assert json.loads(pipeline.provenance.settings)["draw_every"] == 2  # a replay draws as many
    (motion, frames), (same, fewer) = made
    assert np.array_equal(motion, same)
    assert np.abs(fewer[::2] - frames[::2]).max() <= 1 and np.array_equal(fewer[1::2], fewer[::2])
    assert np.abs(frames[1::2] - frames[::2]).max() > 1


def test_wrong_requests_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="renderer.safetensors are missing"):
        build_pipeline("avatar_cpu", weights=tmp_path)
    with pytest.raises(ConfigError, match="preset 'nobody'"):
        build_pipeline("nobody")
    with pytest.raises(CheckpointError, match="preset avatar_14b comes without weights: train them .* random"):
        build_pipeline("avatar_14b")
    with pytest.raises(ConfigError, match="'spiral'"):
        build_pipeline("debug", overrides={"schedule": {"order": "spiral"}})
    with pytest.raises(ConfigError, match="draw_every is 2; avatar_spatial_debug decodes .* together: use 1"):
        build_pipeline("avatar_spatial_debug", overrides={"draw_every": 2})
    with pytest.raises(ValueError, match="precision 'fp4' does not exist; use auto, float32"):
        build_pipeline("debug", precision="fp4")
    with pytest.raises(ValueError, match="runtime 'abacus' does not exist"):
        build_pipeline("debug", runtime="abacus")
    monkeypatch.setattr(base, "installed", lambda package: False)
    with pytest.raises(ValueError, match="needs the package openvino"):
        build_pipeline("debug", runtime="openvino")
    assert base.choose("auto").name == "eager"
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"device '{device}'"):
            build_pipeline("debug", device=device)


def test_weights_of_version_1_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("vae.safetensors", "mmdit.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="version 1"):
        build_pipeline("avatar_cpu", weights=tmp_path)


def test_warming_up_hears_and_remembers_but_draws_nothing(
    pipeline: AvatarPipeline, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, steps = pipeline.load_reference(picture), []
    monkeypatch.setattr(pipeline.codec, "render", lambda *_: pytest.fail("a frame was drawn"))
    denoise = pipeline.order.denoise

    def counted(state, condition, n, stop):  # type: ignore[no-untyped-def]
        steps.append((n, len(state.memory.entries)))
        return denoise(state, condition, n, stop)

    monkeypatch.setattr(pipeline.order, "denoise", counted)
    pipeline.warm_up(reference)
    assert steps == [(1, 0), (3, 1)]


def test_what_a_checked_reference_has_compiled_is_not_prepared_again(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, encoded = stirred(), []
    encode = built.codec.encode
    monkeypatch.setattr(built.codec, "encode", lambda x: (encoded.append(x), encode(x))[1])
    built.prepare()
    assert len(encoded) == 1  # no reference was there yet
    monkeypatch.setattr("flowact_ros.engine.pipeline.check_drawn", lambda *_: None)
    built.check_references = True
    built.load_reference(picture)
    built.prepare()
    assert len(encoded) == 2
