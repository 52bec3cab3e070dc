# SPDX-License-Identifier: Apache-2.0
"""Causal video VAE: 4 frames of 32 x 32 pixels become one latent vector, and back, as a stream.

Layout: video `[B, T, 3, H, W]` in [-1, 1], latents `[B, N, C, H/32, W/32]` with T = 4N. Latent k holds frames
4k .. 4k+3; there is no special first frame, so one image is encoded as four equal frames. Everything is 2-D
convolution on folded frames; time enters only through `CausalMix`, whose single remembered feature map makes the
result independent of how the stream is cut. Streaming state is a dict of tensors that is never written in place:
keeping the dict is a snapshot.

Frame-wise convolutions at strides 4 to 16 and temporal mixing at strides 16 and 32 follow light decoders of the
TAEHV kind: after step distillation the decoder is the bottleneck. The mean colour of each 32 x 32 x 4 block also takes
a short cut past all layers, as in residual autoencoding (DC-AE): without it, a whole hue axis was still missing after
1,500 steps.

An optional second encoder, the corrector, sees the video and what its first latents fail to show, and adds to them:
one learned step of the optimisation that finds better latents for a fixed decoder (residual feedback as in ReStyle,
Alaluf et al. 2021, arXiv 2104.02699). Encoding is not part of the live stream, so it may cost two passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.config import VAEConfig

State = dict[str, Tensor]
Parameters = tuple[Tensor, Tensor]  # weight and bias of a convolution


def interleave(conv: nn.Conv2d, factor: int, frames: int = 1) -> Parameters:
    """Rows of a convolution from (frame, channel, row, column), as stored, to (frame, row, column, channel).

    In that order `spread` moves long runs of channels-last memory: a tenth of the cost of `F.pixel_shuffle`.
    """
    both = (conv.weight, conv.bias)
    weight, bias = (p.unflatten(0, (frames, -1, factor**2)).transpose(1, 2).flatten(0, 2) for p in both)
    return weight, bias


def spread(x: Tensor, factor: int, frames: int = 1) -> Tensor:
    """Channels (frame, row, column, c) of `[N, C, h, w]` to their place: `[N * frames, c, factor h, factor w]`.

    Channels-last, as its input should be.
    """
    x = x.permute(0, 2, 3, 1).unflatten(-1, (frames, factor, -1))  # [N, h, w, frame, row, column * c]
    x = x.permute(0, 3, 1, 4, 2, 5).flatten(0, 1)  # [N * frame, h, row, w, column * c]
    return x.unflatten(-1, (factor, -1)).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of 1 x 1 as a product: on small maps the convolution's own way there is slower. Channels last."""
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions; the second starts at zero, so that depth does no harm early in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W]
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


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
        before = steps[:, :1] if past is None else past.unsqueeze(1)
        # channels last all the way: joined in the order of the axes, memory would be turned over twice
        seen = F.silu(torch.cat([t.movedim(2, -1) for t in (before, steps)], 1))  # [B, 1 + T, H, W, C]
        both = torch.cat([seen[:, :-1], seen[:, 1:]], -1).flatten(0, 1).permute(0, 3, 1, 2)
        return x + self.mix(both), steps[:, -1]


class Encoder(nn.Module):
    """Video `[B, T, channels, H, W]` -> raw latents. `name` is the prefix of its streaming state."""

    def __init__(
        self, config: VAEConfig, widths: Sequence[int], depths: Sequence[int], channels: int = 3, name: str = "encoder"
    ) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.stem = nn.Conv2d(channels * config.stem_patch**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(nn.ModuleList(ResBlock(w) for _ in range(d)) for w, d in zip(widths, depths))
        self.down = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in zip(widths[:-2], widths[1:-1]))
        self.mix16 = CausalMix(widths[2])
        # four frames of stride 16 fold into one step of stride 32
        self.fold = nn.Conv2d(4 * config.temporal_stride * widths[2], widths[3], 1)
        self.mix32 = CausalMix(widths[3])
        self.head = nn.Conv2d(widths[3], config.latent_channels, 1)
        self.colour = nn.Conv2d(channels, config.latent_channels, 1, bias=False)
        nn.init.zeros_(self.colour.weight)
        self.colour.weight.data[:channels, :, 0, 0] = torch.eye(channels)

    def silence(self) -> None:
        """Start with latents of zero."""
        for parameter in (self.head.weight, self.head.bias, self.colour.weight):
            nn.init.zeros_(parameter)

    def forward(self, video: Tensor, state: State) -> tuple[Tensor, State]:
        batch = video.shape[0]
        x = F.pixel_unshuffle(video.flatten(0, 1), self.config.stem_patch)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for level in range(3):
            for block in self.stages[level]:
                x = block(x)
            if level < 2:
                x = self.down[level](F.pixel_unshuffle(x, 2))
        x, past16 = self.mix16(x, batch, state.get(f"{self.name}.16"))
        x = F.pixel_unshuffle(x, 2)
        x = x.unflatten(0, (-1, self.config.temporal_stride)).flatten(1, 2)  # [B*N, 4C, h, w]
        x = self.fold(x)
        x, past32 = self.mix32(x, batch, state.get(f"{self.name}.32"))
        for block in self.stages[3]:
            x = block(x)
        mean = F.avg_pool2d(video.flatten(0, 1), self.config.spatial_stride)
        mean = mean.unflatten(0, (-1, self.config.temporal_stride)).mean(1)
        latents = (self.head(x) + self.colour(mean)).unflatten(0, (batch, -1))
        return latents, {**state, f"{self.name}.16": past16, f"{self.name}.32": past32}


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths = config.decoder_widths, config.decoder_depths
        self.stem = nn.Conv2d(config.latent_channels, widths[3], 3, padding=1)
        self.mix32 = CausalMix(widths[3])
        self.stages = nn.ModuleList(nn.ModuleList(ResBlock(w) for _ in range(d)) for w, d in zip(widths, depths))
        self.unfold = nn.Conv2d(widths[3], config.temporal_stride * 4 * widths[2], 1)
        self.mix16 = CausalMix(widths[2])
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths[:-2], widths[1:-1]))
        self.head = nn.Conv2d(widths[0], 3 * config.stem_patch**2, 3, padding=1)
        self.colour = nn.Conv2d(config.latent_channels, 3, 1, bias=False)
        nn.init.zeros_(self.colour.weight)
        self._enlarging = {
            "unfold": (2, config.temporal_stride), **{f"up.{i}": (2, 1) for i in range(len(self.up))},
            "head": (config.stem_patch, 1),
        }  # fmt: skip
        self._frozen: dict[str, Parameters] = {}

    def freeze(self) -> None:
        """For inference: keeps the weights in the order that `spread` wants, into which they are else put each time.

        What becomes of the stored ones afterwards has no effect.
        """
        self._frozen = {name: self._interleaved(name) for name in self._enlarging}

    def _interleaved(self, name: str) -> Parameters:
        """Of a layer whose results are spread."""
        return self._frozen.get(name) or interleave(self.get_submodule(name), *self._enlarging[name])

    def forward(self, latents: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Patches `[B * N, 4, p * p * 3, H/p, W/p]`, their `tint`, the next state. `tinted` joins the first two and
        `spread` makes pictures of that.
        """
        x, past32 = self.deep(latents, state.get("decoder.32"))
        x, past16 = self.frames(x, len(latents), state.get("decoder.16"))
        patches = self.body(x).unflatten(0, (-1, self.config.temporal_stride))
        return patches, self.tint(latents), {**state, "decoder.32": past32, "decoder.16": past16}

    def widen(self, latents: Tensor) -> Tensor:
        """Latents `[n, C, h, w]` -> the first layer's `[n, width, h, w]`, which `deep` remembers of the last one."""
        return self.stem(latents.contiguous(memory_format=torch.channels_last))

    def deep(self, latents: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Layers at the latents' own stride: latents `[B, N, C, h, w]` -> `[B * N, width, h, w]`, the next `past`."""
        x, past = self.mix32(self.widen(latents.flatten(0, 1)), len(latents), past)
        return self.inner(x), past

    def inner(self, x: Tensor) -> Tensor:
        """The blocks of `deep`: features `[n, width, h, w]` to such of the same size."""
        for block in self.stages[3]:
            x = block(x)
        return F.silu(x)

    def frames(self, x: Tensor, batch: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `deep` gives -> features `[B * 4N, C, H/16, W/16]` of single frames, the next `past`."""
        return self.mix16(self.apart(x, 0, self.config.temporal_stride), batch, past)

    def apart(self, x: Tensor, first: int, stop: int) -> Tensor:
        """Frames `first` .. `stop - 1` of each latent of `x` `[n, width, h, w]`, unmixed: `[n * frames, C, 2h, 2w]`."""
        rows = len(self.unfold.weight) // self.config.temporal_stride
        weight, bias = (p[first * rows : stop * rows] for p in self._interleaved("unfold"))
        return spread(pointwise(x, weight, bias), 2, stop - first)

    def body(self, x: Tensor) -> Tensor:
        """Patches `[n, p * p * 3, H/p, W/p]` of features of n frames, each by itself: most of the work."""
        x = x.contiguous(memory_format=torch.channels_last)
        for level in (2, 1, 0):
            for block in self.stages[level]:
                x = block(x)
            if level > 0:
                x = spread(pointwise(x, *self._interleaved(f"up.{level - 1}")), 2)
        weight, bias = self._interleaved("head")
        return F.conv2d(F.silu(x), weight, bias, padding=1)

    def tint(self, latents: Tensor) -> Tensor:
        """The colour of latents `[B, N, C, h, w]`, `[B * N, 3, H/p, W/p]`: one for a patch's pixels and four frames."""
        scale = self.config.spatial_stride // self.config.stem_patch
        return F.interpolate(self.colour(latents.flatten(0, 1)), scale_factor=scale, mode="bilinear")

    def tinted(self, tint: Tensor) -> Tensor:
        """A tint `[n, 3, rows, columns]` as patches `[n, p * p * 3, rows, columns]` that have its colour."""
        repeated = torch.eye(3, dtype=tint.dtype, device=tint.device).repeat(1, self.config.stem_patch**2)
        return (tint.permute(0, 2, 3, 1).contiguous() @ repeated).permute(0, 3, 1, 2)  # by a product: quickest


class VAE(nn.Module):
    """Encoder and decoder around normalised latents (per channel mean 0, standard deviation 1 over the data).

    `latent_mean` and `latent_std` `[C]` are measured after training and stored with the weights.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, config.encoder_widths, config.encoder_depths)
        self.decoder = Decoder(config)
        self.corrector: Encoder | None = None
        if config.corrector_widths:
            sizes = config.corrector_widths, config.corrector_depths
            self.corrector = Encoder(config, *sizes, channels=6, name="corrector")
            self.corrector.silence()
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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
        if self.corrector is not None:
            if "corrector.16" not in state:
                # as if the first latent had been on screen, so that a still picture is a fixed point; the decoder's
                # state is settled after one pass, the corrector's outer mix after one and its inner one after two
                state = self.decoder(latents[:, :1], state)[2]
                for _ in range(2):
                    state = self._correct(video[:, :time], latents[:, :1], state)[1]
            missing, state = self._correct(video, latents, state)
            latents = latents + missing
        return self.normalise(latents), state

    def _correct(self, video: Tensor, raw: Tensor, state: State) -> tuple[Tensor, State]:
        """What raw latents lack to show `video`, and the next state of decoder and corrector."""
        with torch.no_grad():  # an observation, as in ReStyle: gradients reach the first encoder through the sum
            shown, state = self._video(raw, state)
        assert self.corrector is not None
        return self.corrector(torch.cat([video, video - shown.to(video.dtype)], 2), state)

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """latents `[B, N, C, h, w]` -> video `[B, 4N, 3, 32h, 32w]` in about [-1, 1], state for the next piece."""
        return self._video(self.raw(latents), state or {})

    def _video(self, raw: Tensor, state: State) -> tuple[Tensor, State]:
        patches, tint, state = self.decoder(raw, state)
        video = spread((patches + self.decoder.tinted(tint).unsqueeze(1)).flatten(0, 1), self.config.stem_patch)
        return video.unflatten(0, (len(raw), -1)), state

    def decode_rgb(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """As `decode`, to pictures uint8 `[B, 4N, 32h, 32w, 3]`: rounded first, so that little memory is moved."""
        patches, tint, state = self.decoder(self.raw(latents), state or {})
        return self.pictures(patches, tint).unflatten(0, (len(latents), -1)), state

    def pictures(self, patches: Tensor, tint: Tensor) -> Tensor:
        """Patches and tints of the decoder -> pictures uint8 `[B * N * 4, rows, columns, 3]`."""
        levels = torch.empty_like(patches, dtype=torch.uint8)
        ground = self.decoder.tinted(127.5 * tint.float() + 128.0)  # half a level more: bytes are cut off
        for latent, base in enumerate(ground):
            for frame, patch in enumerate(patches[latent]):  # one by one they stay in the processor's cache
                levels[latent, frame] = torch.add(base, patch.float(), alpha=127.5).clamp_(0.0, 255.0)
        return spread(levels.flatten(0, 1), self.config.stem_patch).permute(0, 2, 3, 1)

    def raw(self, latents: Tensor) -> Tensor:
        """Normalised latents `[B, N, C, h, w]` -> what the decoder takes."""
        if latents.shape[2] != self.config.latent_channels:
            raise ValueError(f"latents have {latents.shape[2]} channels; this VAE has {self.config.latent_channels}")
        return self.denormalise(latents)

    def encode_image(self, image: Tensor) -> Tensor:
        """image `[B, 3, H, W]` -> the latent `[B, C, h, w]` of four equal frames."""
        return self.encode(image.unsqueeze(1).expand(-1, self.config.temporal_stride, -1, -1, -1))[0][:, 0]

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
