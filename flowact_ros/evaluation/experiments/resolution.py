# SPDX-License-Identifier: Apache-2.0
"""Where does the time go at 480, 720 and 1080 lines? The renderer with its crops grown alike, and a spatial video VAE.

Speed only: the renderer has its weights but was not trained at other sizes, the VAE has random ones. Sides are
multiples of 32. A part's time is that of its graph computed alone; frames a second are those of all of them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.data.characters import NAMED, neutral_picture
from flowact_ros.engine.pipeline import AvatarPipeline
from flowact_ros.engine.runtime.base import choose
from flowact_ros.evaluation.experiments.material import STEP, Tell
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.models.codec.live import Compile, Graph, LiveCodec
from flowact_ros.models.codec.motion import neutral, normalise
from flowact_ros.models.codec.quantise import Ranges
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.codec.video_vae import VideoVAE
from flowact_ros.models.config import RendererConfig, VAEConfig
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_LATENT

LINES = (480, 720, 1080)
GRID = 32
VAE_SIZES = ((480, 832), (736, 1280), (1088, 1920))  # lines and columns
GRAPHS = {"Mouth": "faces", "Eyes": "faces", "Body": "body"}
FIGURES = (
    Figure("fps", "frames a second", None, 1),
    Figure("frame_ms", "ms a frame, all of it", None, 1),
    Figure("faces_ms", "ms a frame: mouth and eyes", None, 1),
    Figure("body_ms", "ms a frame: flow and paint", None, 1),
    Figure("compose_ms", "ms a frame: moving pixels", None, 1),
    Figure("decode_ms", "ms a frame: VAE decoder", None, 1),
    Figure("reference_ms", "ms to encode a picture", None, 0),
    Figure("ttff_share", "share of rendering in the first frame's time", None),
)


def at_lines(config: RendererConfig, lines: int) -> RendererConfig:
    """The same networks on a canvas of at least `lines`, with crops that show as much of the face as before."""
    size = -(-lines // GRID) * GRID
    grow = size / config.size

    def sides(pixels: tuple[int, int]) -> tuple[int, int]:
        a, b = (round(p * grow / 8) * 8 for p in pixels)
        return a, b

    names = ("mouth_size", "eye_size", "hand_size", "arm_size")
    return replace(
        config, size=size, **{name: sides(getattr(config, name)) for name in names},
        mouth_drop=round(config.mouth_drop * grow), eye_lift=round(config.eye_lift * grow),
        hand_above=config.hand_above * grow, hand_window=round(config.hand_window * grow / 8) * 8,
    )  # fmt: skip


def timed(compile: Compile, spent: dict[str, float]) -> Compile:
    """Adds up the seconds of every graph, by the name of its module; each is computed alone."""

    def compiled(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        graph, name = compile(module, example), type(module).__name__

        def begin(*inputs: Tensor) -> Callable[[], tuple[np.ndarray, ...]]:
            began = time.perf_counter()
            outputs = graph(*inputs)()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
            return lambda: outputs

        return begin

    return compiled


def _stretched(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the codes of places, the only ones whose shape is a picture's, brought to other sizes."""
    return {
        name: F.interpolate(tensor, wanted[name].shape[2:], mode="bilinear") if name.endswith(".place") else tensor
        for name, tensor in weights.items()
    }


def renderer_row(
    pipeline: AvatarPipeline, lines: int, repeats: int, runtime: str, ranges: Ranges | None, before_s: float
) -> Row:
    """before_s: what the first frame waits for before it can be drawn."""
    config = at_lines(pipeline.config.renderer, lines)
    renderer = Renderer(config)
    renderer.load_state_dict(_stretched(pipeline.codec.renderer.state_dict(), renderer.state_dict()))
    spent: dict[str, float] = {}
    together = LiveCodec(renderer, choose(runtime).compile, ranges)
    alone = LiveCodec(renderer, timed(choose(runtime).compile, spent), ranges)
    rgb = torch.from_numpy(neutral_picture(NAMED["mia"], config.size).copy()).permute(2, 0, 1)[None]
    motion = normalise(neutral(FRAMES_PER_LATENT))
    out: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):  # the first one compiles
        began = time.perf_counter()
        who, _ = together.encode(rgb.float() / 127.5 - 1)
        encoded = time.perf_counter() - began
        began = time.perf_counter()
        together.render(who, motion)
        latent = time.perf_counter() - began
        spent.clear()
        began = time.perf_counter()
        alone.render(who, motion)
        every = time.perf_counter() - began
        if repeat == 0:
            continue
        parts = dict.fromkeys(("faces", "body"), 0.0)
        for name, seconds in spent.items():
            parts[GRAPHS[name]] += seconds
        ms = 1e3 / FRAMES_PER_LATENT
        found = {
            "fps": FRAMES_PER_LATENT / latent, "frame_ms": ms * latent, "reference_ms": 1e3 * encoded,
            "faces_ms": ms * parts["faces"], "body_ms": ms * parts["body"],
            "compose_ms": ms * (every - sum(parts.values())), "ttff_share": latent / (latent + before_s),
        }  # fmt: skip
        for key, value in found.items():
            out.setdefault(key, []).append(value)
    return Row(f"renderer, {lines}", out)


@torch.inference_mode()
def vae_row(height: int, width: int, repeats: int, before_s: float) -> Row:
    config = VAEConfig()
    vae = VideoVAE(config).eval()
    stride = config.spatial_stride
    latents = torch.randn(1, 1, config.latent_channels, height // stride, width // stride)
    picture = torch.zeros(1, config.temporal_stride, 3, height, width)
    out: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        vae.decode(latents)
        latent = time.perf_counter() - began
        began = time.perf_counter()
        vae.encode(picture)
        encoded = time.perf_counter() - began
        if repeat:
            ms = 1e3 * latent / config.temporal_stride
            found = {"fps": 1e3 / ms, "frame_ms": ms, "decode_ms": ms, "reference_ms": 1e3 * encoded,
                     "ttff_share": latent / (latent + before_s)}  # fmt: skip
            for key, value in found.items():
                out.setdefault(key, []).append(value)
    return Row(f"video VAE, {height} x {width}", out)


def hearing_and_denoising_s(pipeline: AvatarPipeline, repeats: int) -> float:
    """Median seconds from sound to the latents of the first chunk."""
    pcm = np.zeros(pipeline.context_samples + STEP * SAMPLES_PER_LATENT + pipeline.lookahead_samples, np.float32)
    state = pipeline.start(pipeline.load_reference(neutral_picture(NAMED["mia"], pipeline.height)), 0)
    spent = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        pipeline.denoise(state, pcm, STEP, "talking to the viewer")
        spent.append(time.perf_counter() - began)
    return float(np.median(spent[1:]))


def compare(pipeline: AvatarPipeline, repeats: int, runtime: str, ranges: Ranges | None, tell: Tell) -> Table:
    """The experiment."""
    before = hearing_and_denoising_s(pipeline, repeats)
    rows = []
    for k, lines in enumerate(LINES):
        tell(f"renderer, {lines} lines", 0.6 * k / len(LINES))
        rows.append(renderer_row(pipeline, lines, repeats, runtime, ranges, before))
    for k, (height, width) in enumerate(VAE_SIZES):
        tell(f"video VAE, {height} lines", 0.6 + 0.4 * k / len(VAE_SIZES))
        rows.append(vae_row(height, width, repeats, before))
    limits = {}
    for row in rows[: len(LINES)]:
        parts = {key: float(np.median(row.values[key])) for key in ("faces_ms", "body_ms", "compose_ms")}
        limits[row.name] = max(parts, key=lambda key: parts[key]).removesuffix("_ms")
    facts = {"hearing_and_denoising_ms": round(1e3 * before, 1), "largest_part": limits}
    return Table("resolution", "where does the time go at more lines?", FIGURES, rows, repeats, None, facts)
