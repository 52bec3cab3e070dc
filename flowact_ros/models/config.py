# SPDX-License-Identifier: Apache-2.0
"""Typed sizes of every network, and the named presets made of them.

Nothing outside this file knows a literal size: whatever can be derived is a property. YAML may override single
fields (`with_overrides`); an unknown key is an error.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from flowact_ros.models.codec.motion import CONTROLS, GAZE, LIPS
from flowact_ros.timebase import FEATURE_DIM, FRAMES_PER_LATENT
from flowact_ros.vocabulary import DRAW_EVERY


class ConfigError(ValueError):
    """A size or option that cannot work; the message names the field, the value and what would be right."""


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Causal video VAE, spatial stride 32, temporal stride 4 without a special first frame."""

    latent_channels: int = 64
    stem_patch: int = 4  # pixels folded into channels before the first convolution
    encoder_widths: tuple[int, int, int, int] = (32, 64, 128, 320)  # at strides 4, 8, 16, 32
    decoder_widths: tuple[int, int, int, int] = (24, 48, 96, 256)  # at strides 4, 8, 16, 32
    encoder_depths: tuple[int, int, int, int] = (1, 1, 3, 3)
    decoder_depths: tuple[int, int, int, int] = (1, 1, 3, 4)

    @property
    def spatial_stride(self) -> int:
        return self.stem_patch * 2 ** (len(self.encoder_widths) - 1)

    @property
    def temporal_stride(self) -> int:
        return FRAMES_PER_LATENT

    def __post_init__(self) -> None:
        _require(self.stem_patch in (2, 4, 8), f"vae.stem_patch is {self.stem_patch}; use 2, 4 or 8")
        _require(self.latent_channels >= 1, f"vae.latent_channels is {self.latent_channels}; use at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """The codec of the GPU presets: pictures of this size and the VAE whose latents stand for four of them."""

    height: int = 480
    width: int = 832
    vae: VAEConfig = field(default_factory=VAEConfig)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a latent."""
        return self.height // self.vae.spatial_stride, self.width // self.vae.spatial_stride

    def __post_init__(self) -> None:
        stride = self.vae.spatial_stride
        ok = self.height % stride == 0 and self.width % stride == 0
        _require(ok, f"video is {self.height} x {self.width}; both must be multiples of the VAE's stride {stride}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryConfig:
    """Slots of the structured memory bank (paper, section 2.1: reference, long-term queue, short-term latent)."""

    long_term: int = 3  # entries in the queue of older chunks
    taught: int = 3  # most entries of that queue which training shows; a stream may keep fewer
    refine_interval: int = 0  # renew the short-term latent every so many chunks; 0 = never
    refine_sigma: float = 0.3  # noise level of that renewal

    def __post_init__(self) -> None:
        _require(0 <= self.long_term <= 7, f"memory.long_term is {self.long_term}; the range is 0 to 7")
        _require(0 <= self.taught <= 7, f"memory.taught is {self.taught}; the range is 0 to 7")
        _require(self.refine_interval >= 0, f"memory.refine_interval is {self.refine_interval}; use 0 or more chunks")
        _require(0 < self.refine_sigma < 1, f"memory.refine_sigma is {self.refine_sigma}; the range is 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """The denoiser: multimodal diffusion transformer with a modulation of its own for every token."""

    channels: int = CONTROLS  # of a token: one frame's motion, or one place of a spatial latent
    grid: tuple[int, int] | None = None  # rows and columns of a spatial latent; None: a token a frame
    width: int = 256
    heads: int = 8
    double_blocks: int = 1
    single_blocks: int = 5
    mlp_ratio: int = 4
    rope_axes: tuple[int, ...] = (32,)  # head channels rotated by each axis: time in frames, then row and column
    rope_theta: float = 100.0  # windows are short: a few dozen frames
    audio_dim: int = FEATURE_DIM
    text_dim: int = FEATURE_DIM
    text_tokens: int = 1
    guidance_embed: bool = True

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens and channels of one latent."""
        return math.prod(self.grid) if self.grid else FRAMES_PER_LATENT, self.channels

    def __post_init__(self) -> None:
        _require(self.width % self.heads == 0, f"dit.width {self.width} is not a multiple of heads {self.heads}")
        _require(
            sum(self.rope_axes) == self.head_dim and all(a % 2 == 0 for a in self.rope_axes),
            f"dit.rope_axes {self.rope_axes} must be even and sum to the head width {self.head_dim}",
        )
        axes = 3 if self.grid else 1
        _require(len(self.rope_axes) == axes, f"dit.rope_axes {self.rope_axes} must be {axes}, one for each axis")
        _require(self.single_blocks >= 1, f"dit.single_blocks is {self.single_blocks}; use at least 1")


#: How weights are sampled that were not distilled: a few of Euler's steps would give the mean of all that may follow.
UNDISTILLED: dict[str, Any] = {"steps": 6, "solver": "adams_bashforth"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerConfig:
    """How the evaluations of a chunk are spent (paper, section 2.1; Flow Matching time shift as in SD3)."""

    steps: int = 3
    shift: float = 3.0
    solver: str = "euler"  # or "adams_bashforth" (`diffusion.sampler.flow_step`)
    chunk_latents: int = 3
    order: str = "sequential"  # or "diagonal"
    in_flight: int = 3  # chunks that the diagonal order denoises side by side
    gaze_temperature: float = 1.0  # deviation of the noise that the gaze is denoised from
    lips_temperature: float = 1.0  # the same of the lips, jaw, teeth and tongue

    def __post_init__(self) -> None:
        _require(1 <= self.steps <= 50, f"schedule.steps is {self.steps}; the range is 1 to 50")
        _require(self.shift > 0, f"schedule.shift is {self.shift}; it must be positive")
        _require(1 <= self.chunk_latents <= 3, f"schedule.chunk_latents is {self.chunk_latents}; the range is 1 to 3")
        _require(2 <= self.in_flight <= 3, f"schedule.in_flight is {self.in_flight}; use 2 or 3")
        _require(
            self.solver in ("euler", "adams_bashforth"),
            f"schedule.solver is {self.solver!r}; use 'euler' or 'adams_bashforth'",
        )
        _require(
            self.order in ("sequential", "diagonal"),
            f"schedule.order is {self.order!r}; use 'sequential' or 'diagonal'",
        )
        for name in ("gaze_temperature", "lips_temperature"):
            value = getattr(self, name)
            _require(0 < value <= 2, f"schedule.{name} is {value}; the range is above 0, to 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererConfig:
    """The embedded codec: a reference picture and motion to pictures (`models.codec.renderer`). Sizes in pixels."""

    size: int = 480
    parts: int = 20  # soft masks of the reference, each with a movement of its own
    part_code: int = 8  # numbers that say what a part does, to the network that mends the warp
    identity: int = 64
    hidden: int = 192  # vectors that motion enters the networks by
    encoder_widths: tuple[int, int, int, int] = (32, 64, 112, 160)  # at strides 4, 8, 16, 32
    finest_width: int = 24  # of the features that are warped at stride 4
    fine_width: int = 48  # at stride 8
    coarse_width: int = 96  # at stride 16
    mouth_size: tuple[int, int] = (128, 192)  # height and width of the crop; a jaw that falls moves all of its outline
    mouth_drop: int = 12  # the crop's middle lies so far below the mouth's
    mouth_widths: tuple[int, int] = (64, 112)  # at strides 4 and 8
    eye_size: tuple[int, int] = (96, 96)
    eye_lift: int = 12  # the crop's middle lies so far above the eye's: brows are painted too
    eye_widths: tuple[int, int] = (48, 80)
    hand_size: tuple[int, int] = (152, 128)  # height and width of a painted hand
    hand_scale: float = 1.2  # picture pixels a painted one
    hand_above: float = 12.0  # the palm's middle lies so far below the painted hand's
    hand_window: int = 208  # the square around the palm that a turned hand fits in
    hand_widths: tuple[int, int] = (32, 64)
    arm_size: tuple[int, int] = (224, 176)
    arm_widths: tuple[int, int] = (32, 48)

    @property
    def crop_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width, of mouth, left and right eye."""
        return self.mouth_size, self.eye_size, self.eye_size

    def __post_init__(self) -> None:
        _require(self.size % 32 == 0, f"renderer.size is {self.size}; it must be a multiple of 32")
        for name in ("mouth_size", "eye_size"):
            value = getattr(self, name)
            ok = all(side % 8 == 0 and side <= self.size for side in value)
            _require(ok, f"renderer.{name} is {value}; use multiples of 8, at most {self.size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One preset: everything a checkpoint must agree with, and the picture it makes."""

    name: str
    renderer: RendererConfig = field(default_factory=RendererConfig)
    video: VideoConfig | None = None  # the denoiser works on its latents, and no renderer draws
    dit: DiTConfig = field(default_factory=DiTConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    schedule: SchedulerConfig = field(default_factory=SchedulerConfig)
    draw_every: int = 1  # of so many frames the renderer draws the first, which is shown in place of the others

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Deviation of the noise that each channel of a latent is denoised from."""
        wide = [1.0] * self.dit.channels
        if self.video is None:
            for controls, temperature in (
                (GAZE, self.schedule.gaze_temperature),
                (LIPS, self.schedule.lips_temperature),
            ):
                for i in controls:
                    wide[i] = temperature
        return tuple(wide)

    def denoiser_contract(self) -> dict[str, Any]:
        """What a denoiser checkpoint must agree with: the network's sizes and how far back it was taught to look."""
        sizes = {name: value for name, value in asdict(self.dit).items() if value is not None}
        return {"dit": sizes, "long_term": self.memory.taught}

    def __post_init__(self) -> None:
        grid, channels = (self.video.grid, self.video.vae.latent_channels) if self.video else (None, CONTROLS)
        _require(
            (self.dit.grid, self.dit.channels) == (grid, channels),
            f"dit.grid {self.dit.grid} of {self.dit.channels} channels does not fit the codec, whose latents are "
            f"{grid} of {channels}",
        )
        _require(self.draw_every in DRAW_EVERY, f"draw_every is {self.draw_every}; use 1, 2 or 4")
        _require(
            self.draw_every == 1 or self.video is None,
            f"draw_every is {self.draw_every}; {self.name} decodes the frames of a latent together: use 1",
        )


def debug() -> ModelConfig:
    """Random weights, milliseconds: for tests."""
    return ModelConfig(
        name="debug",
        renderer=RendererConfig(
            size=128,
            parts=4,
            part_code=4,
            identity=8,
            hidden=16,
            encoder_widths=(8, 8, 8, 8),
            finest_width=8,
            fine_width=8,
            coarse_width=8,
            mouth_size=(32, 40),
            mouth_drop=2,
            mouth_widths=(8, 8),
            eye_size=(24, 24),
            eye_lift=3,
            eye_widths=(8, 8),
            hand_size=(40, 32),
            hand_above=3.0,
            hand_window=56,
            hand_widths=(8, 8),
            arm_size=(64, 48),
            arm_widths=(8, 8),
        ),
        dit=DiTConfig(width=32, heads=2, double_blocks=1, single_blocks=2, rope_axes=(16,)),
    )


def avatar_cpu() -> ModelConfig:
    """The embedded default for two CPU cores: motion, drawn on a 480 x 480 canvas."""
    return ModelConfig(
        name="avatar_cpu",
        memory=MemoryConfig(long_term=1),  # with more it blinks less (docs/decisions.md)
        schedule=SchedulerConfig(gaze_temperature=1.15, lips_temperature=0.3),
    )


def avatar_1b() -> ModelConfig:
    """One GPU, 832 x 480: T5 large reads, the encoder of Whisper large hears."""
    sizes = {"width": 1536, "heads": 12, "double_blocks": 2, "single_blocks": 24}
    return _gpu("avatar_1b", text_dim=1024, text_tokens=32, **sizes)


def avatar_14b() -> ModelConfig:
    """One H200 or several GPUs, 832 x 480: T5 XXL reads, the encoder of Whisper large hears."""
    sizes = {"width": 5120, "heads": 40, "double_blocks": 4, "single_blocks": 26}
    return _gpu("avatar_14b", text_dim=4096, text_tokens=64, **sizes)


def _gpu(name: str, **sizes: int) -> ModelConfig:
    """sizes: of the denoiser, whose heads are 128 wide"""
    video = VideoConfig()
    port = {"channels": video.vae.latent_channels, "grid": video.grid, "audio_dim": 1280}
    dit = DiTConfig(**port, rope_axes=(32, 48, 48), rope_theta=256.0, **sizes)
    return ModelConfig(name=name, video=video, dit=dit)


def avatar_spatial_debug() -> ModelConfig:
    """The GPU presets at a hundredth of their size, 128 x 128: what their path does, on a CPU."""
    widths = (16, 32, 64, 128)
    return ModelConfig(
        name="avatar_spatial_debug",
        video=VideoConfig(
            height=128, width=128,
            vae=VAEConfig(
                latent_channels=32, encoder_widths=widths, decoder_widths=widths, encoder_depths=(1, 1, 1, 1),
                decoder_depths=(1, 1, 1, 1),
            ),
        ),
        dit=DiTConfig(
            channels=32, grid=(4, 4), width=192, heads=4, double_blocks=1, single_blocks=5, rope_axes=(16, 16, 16),
        ),
    )  # fmt: skip


PRESETS = {
    preset.__name__: preset for preset in (debug, avatar_cpu, avatar_spatial_debug, avatar_1b, avatar_14b)
}


def video_of(config: ModelConfig) -> VideoConfig:
    """The codec of a spatial preset. Raises ConfigError for one of motion."""
    if config.video is None:
        spatial = ", ".join(name for name, make in PRESETS.items() if make().video)
        raise ConfigError(f"preset {config.name} denoises motion and has no VAE; those that have one are {spatial}")
    return config.video


def preset(name: str, overrides: dict[str, Any] | None = None) -> ModelConfig:
    """The preset called `name` with nested `overrides` applied. Raises ConfigError for unknown names or keys."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} does not exist; the presets are {', '.join(sorted(PRESETS))}")
    return with_overrides(PRESETS[name](), overrides or {})


def sampled_as(config: ModelConfig, card: dict[str, Any], overrides: dict[str, Any] | None = None) -> ModelConfig:
    """The config with the evaluations and the solver that weights were made for, as their card tells.

    A card that tells none is of weights from before there were students.
    overrides: what was asked for; a number of evaluations or a solver among them stays. Raises ConfigError.
    """
    asked = (overrides or {}).get("schedule", {})
    made_for = {key: value for key, value in card.get("schedule", UNDISTILLED).items() if key not in asked}
    return with_overrides(config, {"schedule": made_for})


def with_overrides(config: Any, overrides: dict[str, Any], path: str = "") -> Any:
    """Return a copy of a (nested) frozen config with `overrides` applied; unknown keys raise ConfigError."""
    known = {f.name for f in fields(config)}
    changes = {}
    for key, value in overrides.items():
        if key not in known:
            raise ConfigError(f"unknown key {path + key!r}; the keys here are {', '.join(sorted(known))}")
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, dict):
                raise ConfigError(f"{path + key!r} holds a group of keys, not {value!r}")
            value = with_overrides(current, value, path + key + ".")
        elif isinstance(current, tuple):
            value = tuple(value)
        elif not isinstance(value, type(current)) and not (isinstance(current, float) and isinstance(value, int)):
            raise ConfigError(f"{path + key!r} is {value!r}; expected a {type(current).__name__}")
        changes[key] = value
    return replace(config, **changes)
