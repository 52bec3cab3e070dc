# SPDX-License-Identifier: Apache-2.0
"""Causal video VAE of the GPU presets: 4 frames of 32 x 32 pixels become one latent vector, and back, as a stream.

Layout: video `[B, T, 3, H, W]` in [-1, 1], latents `[B, N, C, H/32, W/32]` with T = 4N. Latent k holds frames
4k .. 4k+3; there is no special first frame, so one image is encoded as four equal frames. Everything is 2-D
convolution on folded frames; time enters only through `CausalMix`, whose single remembered feature map makes the
result independent of how the stream is cut. Streaming state is a dict of tensors that is never written in place:
keeping the dict is a snapshot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.codec.blocks import Down, Residual, Up
from flowact_ros.models.config import VAEConfig

State = dict[str, Tensor]

#: [latents] before a latent that its frames depend on: `CausalMix` looks back one step at each of two strides.
REACH = 2


class CausalMix(nn.Module):
    """Adds what the previous time step saw: y_t = x_t + W [x_{t-1}, x_t]. One feature map of state.

    The first step sees itself as its past, so a still picture is a fixed point.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor, batch: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        # x: [B*T, C, H, W]; past: [B, C, H, W], the last step of the piece before
        steps = x.unflatten(0, (batch, -1))
        before = torch.cat([steps[:, :1] if past is None else past.unsqueeze(1), steps[:, :-1]], 1)
        seen = F.silu(torch.cat([before, steps], 2).flatten(0, 1))
        return x + self.mix(seen), steps[:, -1]


class Encoder(nn.Module):
    """Frames to raw latents: single frames down to stride 16, then four of them folded into one step of stride 32."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths = config.encoder_widths, config.encoder_depths
        self.stem = nn.Conv2d(3 * config.stem_patch**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(d))) for w, d in zip(widths, depths)
        )
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(widths[:-2], widths[1:-1]))
        self.mix16 = CausalMix(widths[2])
        self.fold = nn.Conv2d(4 * config.temporal_stride * widths[2], widths[3], 1)
        self.mix32 = CausalMix(widths[3])
        self.head = nn.Conv2d(widths[3], config.latent_channels, 1)

    def forward(self, video: Tensor, state: State) -> tuple[Tensor, State]:
        batch = len(video)
        x = self.stages[0](self.stem(F.pixel_unshuffle(video.flatten(0, 1), self.config.stem_patch)))
        for down, stage in zip(self.down, self.stages[1:3]):
            x = stage(down(x))
        x, past16 = self.mix16(x, batch, state.get("encoder.16"))
        x = (
            F.pixel_unshuffle(x, 2).unflatten(0, (-1, self.config.temporal_stride)).flatten(1, 2)
        )  # [B*N, 16C, h, w]
        x, past32 = self.mix32(self.fold(x), batch, state.get("encoder.32"))
        latents = self.head(self.stages[3](x)).unflatten(0, (batch, -1))
        return latents, {**state, "encoder.16": past16, "encoder.32": past32}


class Decoder(nn.Module):
    """Raw latents to frames, the way back."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths = config.decoder_widths, config.decoder_depths
        self.stem = nn.Conv2d(config.latent_channels, widths[3], 3, padding=1)
        self.mix32 = CausalMix(widths[3])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(d))) for w, d in zip(widths, depths)
        )
        self.unfold = nn.Conv2d(widths[3], config.temporal_stride * 4 * widths[2], 1)
        self.mix16 = CausalMix(widths[2])
        self.up = nn.ModuleList(Up(b, a) for a, b in zip(widths[:-2], widths[1:-1]))
        self.head = nn.Conv2d(widths[0], 3 * config.stem_patch**2, 3, padding=1)

    def coarse(self, latents: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents `[B, N, C, h, w]` -> frames at stride 16 `[B*4N, C', 2h, 2w]`, and the last step at stride 32."""
        x, past32 = self.mix32(self.stem(latents.flatten(0, 1)), len(latents), past)
        x = self.unfold(F.silu(self.stages[3](x)))  # [B*N, frames * 4C, h, w]
        return F.pixel_shuffle(x.unflatten(1, (self.config.temporal_stride, -1)).flatten(0, 1), 2), past32

    def forward(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        batch = len(latents)
        x, past32 = self.coarse(latents, state.get("decoder.32"))
        x, past16 = self.mix16(x, batch, state.get("decoder.16"))
        x = self.stages[2](x)
        for up, stage in zip(reversed(self.up), reversed(self.stages[:2])):
            x = stage(up(x))
        video = F.pixel_shuffle(self.head(x), self.config.stem_patch).unflatten(0, (batch, -1))
        return video, {**state, "decoder.32": past32, "decoder.16": past16}


class VideoVAE(nn.Module):
    """Encoder and decoder around normalised latents (per channel mean 0, standard deviation 1 over the data).

    `latent_mean` and `latent_std` `[C]` are measured after training and stored with the weights.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """video `[B, 4N, 3, H, W]` in [-1, 1] -> latents `[B, N, C, H/32, W/32]`, state for the next piece.

        Raises ValueError when T is no multiple of 4 or H, W no multiple of the stride.
        """
        stride, time = self.config.spatial_stride, self.config.temporal_stride
        _, frames, _, height, width = video.shape
        if frames % time or height % stride or width % stride:
            raise ValueError(
                f"video is {frames} frames of {height} x {width}; "
                f"frames must be a multiple of {time}, height and width of {stride}"
            )
        latents, state = self.encoder(video, state or {})
        return (latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None], state

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """latents `[B, N, C, h, w]` -> video `[B, 4N, 3, 32h, 32w]` in about [-1, 1], state for the next piece.

        Raises ValueError for another number of channels.
        """
        if latents.shape[2] != self.config.latent_channels:
            raise ValueError(
                f"latents have {latents.shape[2]} channels; this VAE has {self.config.latent_channels}"
            )
        return self.decoder(self._raw(latents), state or {})

    def state_after(self, before: Tensor) -> State:
        """The decoder's state after a stream whose newest latents are `before` `[B, N, C, h, w]`.

        Exact with `REACH` of them; more change nothing. It costs the decoder's layers at stride 32 alone, which makes
        decoding a function of latents: nothing has to be remembered or rewound.
        """
        x, past32 = self.decoder.coarse(self._raw(before[:, -REACH:]), None)
        return {"decoder.32": past32, "decoder.16": x.unflatten(0, (len(before), -1))[:, -1]}

    def _raw(self, latents: Tensor) -> Tensor:
        return latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]


def to_tokens(latents: Tensor) -> Tensor:
    """Latents of the VAE `[B, N, C, h, w]` -> as the denoiser has them, `[B, N, h * w, C]`, row by row."""
    return latents.flatten(3).transpose(2, 3)


def from_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The way back: `[B, N, h * w, C]` of h x w = `grid` -> `[B, N, C, h, w]`."""
    return tokens.transpose(2, 3).unflatten(3, grid)


def to_video(rgb: Tensor) -> Tensor:
    """uint8 `[..., H, W, 3]` -> float32 `[..., 3, H, W]` in [-1, 1]."""
    return rgb.movedim(-1, -3).float() / 127.5 - 1.0


def to_rgb(video: Tensor) -> Tensor:
    """`[..., 3, H, W]` in about [-1, 1] -> uint8 `[..., H, W, 3]`."""
    levels = (video.float().clamp(-1, 1) + 1).mul(127.5).round()
    return levels.transpose(-3, -2).transpose(-2, -1).to(torch.uint8)  # bytes come last: TensorRT moves none


class NextFrames(nn.Module):
    """The frames of a latent after the `REACH` latents before it, as a function of tensors: what a runtime compiles."""

    def __init__(self, vae: VideoVAE, grid: tuple[int, int]) -> None:
        super().__init__()
        self.vae, self.grid = vae, grid

    def forward(self, before: Tensor, latent: Tensor) -> tuple[Tensor]:
        """Tokens `[1, REACH, P, C]` and `[1, 1, P, C]` of the denoiser's type -> frames uint8 `[4, H, W, 3]`."""
        dtype = self.vae.latent_mean.dtype
        past, new = (from_tokens(x.to(dtype), self.grid) for x in (before, latent))
        video, _ = self.vae.decode(new, self.vae.state_after(past))
        return (to_rgb(video[0]),)
