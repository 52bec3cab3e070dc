# SPDX-License-Identifier: Apache-2.0
"""What a GPU computes is what the CPU computes: denoisers of all presets, decoders, a session, a training step.

They skip where there is no card. `scripts/gpu_session` runs them first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import noise_for, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.checkpoint import fill_random
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.codec.video_vae import VideoVAE, to_rgb
from flowact_ros.models.config import PRESETS, ModelConfig, avatar_spatial_debug, debug, preset
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.fp8 import Fp8Error, check_fp8
from flowact_ros.models.precision import set_precision

pytestmark = pytest.mark.cuda
CUDA = torch.device("cuda")
CHUNKS = 3


def small(name: str) -> ModelConfig:
    """A preset with narrow, few blocks on a small picture; heads are as wide as its own, and so are its ports."""
    config = preset(name)
    heads = min(2, config.dit.heads)
    sizes = {"heads": heads, "width": heads * config.dit.head_dim, "single_blocks": 2}
    dit = replace(config.dit, double_blocks=min(1, config.dit.double_blocks), **sizes)
    if config.video is None:
        return replace(config, dit=dit)
    video = replace(config.video, height=2 * config.video.vae.spatial_stride, width=4 * config.video.vae.spatial_stride)
    return replace(config, video=video, dit=replace(dit, grid=video.grid))


def random(module: nn.Module, seed: int = 0) -> nn.Module:
    """The same random weights for every device."""
    fill_random(module, device="cpu", dtype=torch.float32, seed=seed)
    return module.eval().requires_grad_(False)


@torch.inference_mode()
def stream(model: DiT, device: torch.device) -> Tensor:
    """Latents of some chunks of a stream, by the one rollout, from the same noise everywhere."""
    config = model.config
    size, dit = config.schedule.chunk_latents, config.dit
    generator = torch.Generator().manual_seed(7)
    audio = torch.randn(1, CHUNKS * size, 4, dit.audio_dim, generator=generator)
    text = torch.randn(1, CHUNKS * size, dit.text_tokens, dit.text_dim, generator=generator)
    every = Condition(audio.to(device), text.to(device))
    conditions = [every.slots(k, k + size) for k in range(0, CHUNKS * size, size)]

    def noise(first: int, count: int) -> Tensor:
        return torch.cat([noise_for(1, first + i, dit.latent_shape) for i in range(count)])[None].to(device)

    bank = MemoryBank.start(model, noise(0, 1)[:, 0])
    made = rollout(model, bank, conditions, noise, step_sigmas(config.schedule))
    return torch.cat([latents for latents, _ in made], 1).float().cpu()


def away(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@pytest.mark.parametrize("precision, most", [("float32", 1e-3), ("bfloat16", 0.05), ("fp8", 0.2)])
@pytest.mark.parametrize("name", list(PRESETS))
def test_a_denoiser_streams_as_on_the_cpu(name: str, precision: str, most: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    if precision == "fp8":
        try:
            check_fp8(CUDA)
        except Fp8Error as error:
            pytest.skip(f"needs a CUDA GPU with FP8: {error}")
    config = small(name)
    model = random(DiT(config))
    truth = stream(model, torch.device("cpu"))
    there = model.to(CUDA)
    set_precision(there, precision, "cuda")
    found = stream(there, CUDA)
    assert torch.isfinite(found).all() and away(found, truth) < most
    assert away(found, truth.flip(1)) > 0.3  # a control that must fail: the same latents in another order


def test_the_renderer_draws_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config, generator = debug().renderer, torch.Generator().manual_seed(0)
    renderer = random(Renderer(config))
    picture = torch.rand(1, 3, config.size, config.size, generator=generator) * 2 - 1
    motion = torch.randn(4, preset("debug").dit.channels, generator=generator)
    drawn = []
    for device in ("cpu", "cuda"):
        with torch.inference_mode():
            renderer = renderer.to(device)
            who = renderer.appearance(picture.to(device)).select(torch.zeros(4, dtype=torch.long, device=device))
            drawn.append(to_rgb(renderer(who, motion.to(device))).cpu().int())
    off = (drawn[0] - drawn[1]).abs()
    assert off.float().mean() < 0.5 and float((off > 4).float().mean()) < 0.01  # a pixel at an edge may fall to a side


@pytest.mark.parametrize("dtype, most", [(torch.float32, 0.01), (torch.bfloat16, 2.0)])
def test_the_video_decoder_draws_as_on_the_cpu(dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    vae = random(VideoVAE(avatar_spatial_debug().video.vae))
    latents = torch.randn(1, 3, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        truth = to_rgb(vae.decode(latents)[0]).float()
        found = to_rgb(vae.to(CUDA, dtype).decode(latents.to(CUDA, dtype))[0]).float().cpu()
    assert (truth - found).abs().mean() < most and truth.std() > 5


@pytest.mark.parametrize("runtime", ["eager", "graphs"])
@pytest.mark.parametrize("name", ["debug", "avatar_spatial_debug"])
def test_a_session_gives_the_frames_of_the_cpu(name: str, runtime: str):
    """Two seconds with speech, by every runtime: as many frames, and nearly the same."""
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.engine.session import Session

    picture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    speech = (0.2 * np.random.default_rng(1).standard_normal(24_000)).astype(np.float32)
    films = []
    for device, by in (("cpu", "eager"), ("cuda", runtime)):
        pipeline = build_pipeline(name, device, weights="random", runtime=by, precision="float32")
        pipeline.prepare()
        with Session(pipeline, pipeline.load_reference(picture), seed=3) as session:
            session.push_audio(speech, 24_000, utterance_id="one", first_sample=0, last=True)
            frames = [frame for frame, _ in zip(session.frames(realtime=False), range(50))]
        assert [frame.index for frame in frames] == list(range(50)) and not any(f.repeated for f in frames)
        assert any(frame.speaking for frame in frames)
        films.append(np.stack([frame.rgb for frame in frames]).astype(np.int32))
    assert films[0].shape == films[1].shape
    assert np.abs(films[0] - films[1]).mean() < 8  # of 255; memory feeds what differs back


def test_trainers_step_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The renderer's three kinds of steps and the VAE's, of wide random poses: performances need a voice."""
    from flowact_ros.data.poses import random_movement
    from flowact_ros.training.main import main
    from flowact_ros.training.stages.renderer_data import Motions

    def draw(self: Motions, rng: np.random.Generator, frames: int) -> Tensor:
        return torch.cat([random_movement(rng, 1) for _ in range(frames)])

    monkeypatch.setattr(Motions, "draw", draw)
    monkeypatch.setattr(Motions, "stretch", lambda self, rng, frames: random_movement(rng, frames))
    common = ["--device", "cuda", "--steps", "3", "--batch", "1", "--warmup", "1"]
    assert main(["renderer", "--preset", "debug", "--run", str(tmp_path / "renderer"), *common]) == 0
    assert main(["vae", "--run", str(tmp_path / "vae"), *common]) == 0
    assert (tmp_path / "renderer" / "state.pt").exists() and (tmp_path / "vae" / "state.pt").exists()
